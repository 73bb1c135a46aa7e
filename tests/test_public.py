"""What a public project states about itself agrees with what it is."""

import re
import tomllib

import pytest
from ruamel.yaml import YAML

from tests.micro import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
WORKFLOWS = {file.name: YAML(typ="safe").load(file.read_text()) for file in (ROOT / ".github/workflows").iterdir()}


def commands(workflow):
    return [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]


def test_each_python_that_is_named_is_tested():
    named = {found[1] for line in PROJECT["classifiers"] if (found := re.fullmatch(r".* :: (3\.\d+)", line))}
    assert {*WORKFLOWS["tests.yml"]["jobs"]["tests"]["strategy"]["matrix"]["python"]} == named
    assert min(named, key=lambda version: int(version[2:])) == PROJECT["requires-python"].removeprefix(">=")


@pytest.mark.parametrize("name", WORKFLOWS)
def test_what_a_workflow_runs_is_there(name):
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for command in commands(WORKFLOWS[name]):
        assert set(re.findall(r"^make (\w+)", command)) <= targets
        assert all((ROOT / file).is_file() for file in re.findall(r"tests/\w+\.py", command))


def test_the_wheel_is_built_and_the_newest_libraries_are_tried():
    everything = {name: "\n".join(commands(workflow)) for name, workflow in WORKFLOWS.items()}
    assert "pip wheel" in everything["tests.yml"]
    assert "make lint" in everything["tests.yml"]
    assert {*WORKFLOWS["weekly.yml"]["jobs"]["newest"]["strategy"]["matrix"]["library"]} == {
        "transformers",
        "trl",
        "dvc",
    }
    assert "mkdocs" in everything["docs.yml"]


def test_no_registry_is_named():
    """Whoever has a mirror uses it; pip knows where."""
    for file in [*(ROOT / ".github").rglob("*.yml"), *ROOT.glob("*.toml"), *ROOT.glob("*.txt"), *ROOT.glob("*.md")]:
        assert not re.search(r"pypi\.|pythonhosted|download\.pytorch|anaconda\.", file.read_text()), file
