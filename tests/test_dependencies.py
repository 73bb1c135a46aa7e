"""What is installed is what is needed: two lock files, each the closure of what pyproject.toml declares."""

import ast
import importlib.metadata
import itertools
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from alignslm.extras import EXTRAS

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
RUNTIME, DEVELOPMENT = "requirements.lock.txt", "requirements-dev.lock.txt"
FIRST = {"torch"}  # installed before the locks and without them, so that a CPU build stays one
COMPANIONS = ("cuda-", "nvidia-", "triton")  # of torch's other builds
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
PLATFORMS = {"linux": "Linux", "darwin": "Darwin", "win32": "Windows", "emscripten": "Emscripten"}
PLACES = [
    {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": name, "platform_system": system}
    for python, (name, system) in itertools.product(PYTHONS, PLATFORMS.items())
]


def locked(name: str) -> list[Requirement]:
    lines = (line.partition("#")[0].strip() for line in (ROOT / name).read_text().splitlines())
    return [Requirement(line) for line in lines if line and not line.startswith("-r ")]


def names(requirements: Iterable[Requirement]) -> set[str]:
    return {canonicalize_name(requirement.name) for requirement in requirements}


def declared(*extras: str) -> list[Requirement]:
    lines = [*PROJECT["dependencies"], *(line for extra in extras for line in PROJECT["optional-dependencies"][extra])]
    return [Requirement(line) for line in lines]


@cache
def requirements_of(name: str) -> tuple[Requirement, ...]:
    """Return what an installed distribution asks for; one that this Python does not have asks for nothing."""
    try:
        lines = importlib.metadata.requires(name)
    except importlib.metadata.PackageNotFoundError:
        return ()
    return tuple(Requirement(line) for line in lines or ())


def closure(wanted: Iterable[Requirement], place: Mapping[str, str]) -> set[str]:
    """Return the names of everything that is installed with `wanted` in such a place."""
    reached: set[tuple[str, str]] = set()
    queue = [*wanted]
    while queue:
        requirement = queue.pop()
        name = canonicalize_name(requirement.name)
        for extra in {"", *requirement.extras} - {known for at, known in reached if at == name}:
            reached.add((name, extra))
            environment = {**default_environment(), **place, "extra": extra}
            asked = declared(*([extra] if extra else [])) if name == PROJECT["name"] else requirements_of(name)
            queue += [one for one in asked if one.marker is None or one.marker.evaluate(environment)]
    return {name for name, _ in reached if not name.startswith(COMPANIONS)} - FIRST - {PROJECT["name"]}


def everywhere(wanted: Iterable[Requirement]) -> set[str]:
    wanted = [*wanted]
    return set().union(*(closure(wanted, place) for place in PLACES))


def test_the_lock_of_the_experiment_is_what_it_declares_and_all_that_this_brings():
    assert names(locked(RUNTIME)) == everywhere(declared())


def test_the_lock_of_the_tests_holds_the_rest_and_nothing_twice():
    assert (ROOT / DEVELOPMENT).read_text().count(f"-r {RUNTIME}\n") == 1
    assert names(locked(DEVELOPMENT)) == everywhere(declared("dev")) - everywhere(declared())


@pytest.mark.parametrize("place", PLACES[::4], ids=lambda place: place["python_version"])
def test_every_package_has_one_version_within_its_bounds(place):
    environment = {**default_environment(), **place}
    pinned = [
        one for one in locked(RUNTIME) + locked(DEVELOPMENT) if not one.marker or one.marker.evaluate(environment)
    ]
    assert len(names(pinned)) == len(pinned)
    versions = {canonicalize_name(one.name): str(one.specifier).removeprefix("==") for one in pinned}
    for one in declared("dev"):
        name = canonicalize_name(one.name)
        assert name in FIRST | {PROJECT["name"]} or one.specifier.contains(versions[name]), one


def test_extras_are_those_that_errors_name():
    own = {extra: lines for extra, lines in PROJECT["optional-dependencies"].items() if extra != "dev"}
    assert {Requirement(line).name: extra for extra, lines in own.items() for line in lines} == EXTRAS
    assert Requirement(PROJECT["optional-dependencies"]["dev"][0]).extras == set(own)


def imported(file: Path) -> set[str]:
    nodes = [*ast.walk(ast.parse(file.read_text()))]
    found = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    found |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level}
    return {name.partition(".")[0] for name in found} - sys.stdlib_module_names - {"alignslm", "stages"}


def guarded(file: Path) -> set[str]:
    """Return the packages of extras that a file asks for by `needed`."""
    return set(re.findall(r'with needed\("(\w+)"', file.read_text()))


def test_what_is_imported_is_declared_and_an_extra_is_asked_for_by_name():
    holders, always = importlib.metadata.packages_distributions(), names(locked(RUNTIME)) | FIRST
    files = [*(ROOT / "alignslm").rglob("*.py"), *(ROOT / "stages").glob("*.py")]
    assert {name for file in files for name in guarded(file)} == set(EXTRAS)
    for file in files:
        wild = {name for name in imported(file) if not {*map(canonicalize_name, holders.get(name, []))} & always}
        assert wild <= guarded(file), file


def recipes(target: str, folder: Path) -> str:
    """Return what make would do in a fresh clone."""
    for name in ("Makefile", "pyproject.toml", RUNTIME, DEVELOPMENT):
        shutil.copy(ROOT / name, folder)
    return subprocess.run(["make", "-n", target], cwd=folder, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(
    ("target", "installs"), [("repro", [RUNTIME]), ("check", [RUNTIME]), ("lint", [RUNTIME, DEVELOPMENT])]
)
def test_a_command_installs_what_it_needs(target, installs, tmp_path):
    assert re.findall(r"-r (\S+)", recipes(target, tmp_path)) == installs


def test_help_lists_every_target(tmp_path):
    told = re.findall(r'^echo "make ([\w-]+) ', recipes("help", tmp_path), re.MULTILINE)
    targets = re.findall(r"^\.PHONY: help (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert told == targets[0].split()
