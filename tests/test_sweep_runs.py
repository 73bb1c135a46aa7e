"""Sweeps as processes: DVC, git and a pipeline of seconds (tests/sweep_world.py)."""

import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from ruamel.yaml import YAML

from tests.documented import commands
from tests.messages import names
from tests.micro import ENVIRONMENT, edit, make_repository, repro, run, stages_of
from tests.sweep_world import VARIABLES, make_world, sweep


@pytest.fixture(autouse=True)
def orphans_go_to_init() -> None:
    """Ray has the process of its tests adopt orphans for good: they would be in one session with their adopter."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(36, 0, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    return make_world(tmp_path_factory.mktemp("world") / "experiment")


def copy(world: Path, target: Path) -> Path:
    return shutil.copytree(world, target, symlinks=True)


def state(root: Path) -> tuple[str, dict[str, str]]:
    """Return what git says of the workspace, and every file that is not the sweep's, git's or DVC's own."""
    files = {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file()
        and path.relative_to(root).parts[0] not in {".git", ".dvc", ".work"}
        and "__pycache__" not in path.parts
    }
    return run(root, "git", "status", "--porcelain"), files


def experiments(root: Path) -> dict[str, str]:
    listed = run(root, "git", "for-each-ref", "--format=%(refname:lstrip=4) %(objectname)", "refs/exps").split()
    return dict(zip(listed[::2], listed[1::2], strict=True))


def processes_in(folder: Path) -> dict[int, list[str]]:
    """Return the command lines of the processes that work below a folder; one may end while it is looked at."""
    found = (process.info for process in psutil.process_iter(["pid", "cwd", "status", "cmdline"]))
    return {
        one["pid"]: one["cmdline"]
        for one in found
        if one["cwd"] and Path(one["cwd"]).is_relative_to(folder) and one["status"] != psutil.STATUS_ZOMBIE
    }


def evaluates(folder: Path) -> bool:
    return any("eval" in command for command in processes_in(folder).values())


def json_of(told: str) -> str:
    """Return the JSON on stdout; what comes after it was on stderr."""
    return told[: json.JSONDecoder().raw_decode(told)[1]]


def wait_for(condition, folder: Path) -> None:
    """Wait until a condition holds; a failure says what still runs in a folder."""
    end = time.monotonic() + 300
    while not condition():
        if time.monotonic() > end:
            pytest.fail(f"still runs: {processes_in(folder)}")
        time.sleep(0.2)


@pytest.mark.long
def test_one_wrong_combination_and_nothing_is_run(world, tmp_path):
    root = copy(world, tmp_path / "experiment")
    before = state(root)
    told = sweep(root, "judge=ngram,ngrm", "weights.ppl=0,0.5", fails=True)
    names(told, "nothing was run", "judge=ngrm weights.ppl=0 (and 1 more)", "params.yaml:", "'ngram'")
    assert "judge=ngram " not in told
    told = sweep(root, "weights.pppl=0,0.5", fails=True)
    names(told, "weights.pppl", "'weights.ppl'")
    assert (experiments(root), state(root)) == ({}, before)


@pytest.mark.long
def test_a_failed_run_stops_no_other_and_experiments_are_ordinary(world, tmp_path):
    """One choice is not in git; a changed value in the workspace is not part of the runs."""
    root = copy(world, tmp_path / "experiment")
    shutil.copy(root / "experiments/judge/ngram.yaml", root / "experiments/judge/trigram.yaml")
    text = (root / "params.yaml").read_text()
    (root / "params.yaml").write_text(text.replace("ppl: 0.0", "ppl: 0.7"))
    before = state(root)
    told = sweep(root, "judge=ngram,trigram", "weights.num_words=0,9", fails=True)
    names(
        told,
        "3/4",
        "sweep-judge-trigram-num-words-0",
        "the ninth word is too much",
        "other judge",
        "experiments/judge/trigram.yaml",
        "params.yaml",
    )
    assert state(root) == before
    made = experiments(root)
    assert set(made) == {"sweep-judge-ngram-num-words-0", "sweep-judge-trigram-num-words-0"}
    log = (root / ".work/sweep/logs/sweep-judge-ngram-num-words-9.log").read_text()
    assert "the ninth word is too much" in log
    params = run(root, "git", "show", f"{made['sweep-judge-trigram-num-words-0']}:params.yaml")
    assert "judge: trigram" in params
    assert "ppl: 0.0" in params
    shown = json.loads(run(root, "dvc", "exp", "show", "--json").partition("\n\n")[0])
    assert {entry["name"] for commit in shown for entry in commit["experiments"] or ()} == set(made)
    assert "No experiment tasks in the queue" in run(root, "dvc", "queue", "status")
    run(root, "git", "checkout", "-q", "params.yaml")
    run(root, "dvc", "exp", "apply", "sweep-judge-trigram-num-words-0")
    assert "judge: trigram" in (root / "params.yaml").read_text()
    assert (root / "artifacts/judges/trigram/trigram.yaml").is_file()


@pytest.mark.long
def test_a_killed_sweep_ends_at_once_and_continues_to_the_same_table(world, tmp_path):
    one, other = (copy(world, tmp_path / name) for name in ("whole", "killed"))
    settings = ("weights.ppl=0,0.5", "seeds.base=0,1")
    table = json_of(sweep(one, *settings, "--json"))
    waits = tmp_path / "wait"
    command = [sys.executable, "-m", "alignslm", "sweep", *settings]
    clone = other / ".work/sweep/clone"
    waits.touch()
    environment = {**ENVIRONMENT, **VARIABLES, "SWEEP_WAITS": str(waits)}
    process = subprocess.Popen(command, cwd=other, env=environment, stdout=subprocess.PIPE, text=True)
    wait_for(lambda: evaluates(clone), clone)
    waits.unlink()
    wait_for(lambda: len(experiments(other)) == 1, clone)
    waits.touch()
    wait_for(lambda: evaluates(clone), clone)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    wait_for(lambda: not processes_in(clone), clone)  # within seconds, but on a loaded machine longer
    assert len(experiments(other)) == 1
    first = experiments(other)
    waits.unlink()
    (clone / ".git/index.lock").touch()  # what a git that was killed leaves
    told = sweep(other, *settings)
    names(told, "4 runs", "1 of them finished")
    assert first.items() < experiments(other).items()
    assert json_of(sweep(other, *settings, "--json")) == table
    assert not clone.exists()


def lines_of_the_page() -> list[list[str]]:
    """Return what docs/daily.md has readers type to change values and to sweep, but for the round that needs pairs."""
    starts = ("dvc exp run -S", "git restore", "dvc repro", "alignslm sweep", "dvc exp apply")
    typed = [command for command in commands() if command.page == "daily.md" and command.text.startswith(starts)]
    upto = next(place for place, command in enumerate(typed) if command.text.startswith("dvc exp apply"))
    return [command.words for command in typed[: upto + 1] if "preferences.r2" not in command.text]


@pytest.mark.long
def test_the_lines_of_the_page_do_not_stack(tmp_path):
    """In one clone, in order, at micro size: each run differs from the commit in what its own line says."""
    root = tmp_path / "micro"
    make_repository(root)
    run(root, "git", "rm", "-q", "--cached", "experiments/judge/trigram.yaml")  # the page has the reader copy it
    edit(root / "params.yaml", {"judge": "ngram-narrow", "heldout_judge": "ngram-narrow"})
    run(root, "git", "commit", "-q", "-a", "-m", "committed")
    committed = (root / "params.yaml").read_text()
    repro(root)
    lines = lines_of_the_page()
    assert [words[1] for words in lines].count("restore") >= 3
    for words in lines:
        told = run(root, *words)
        if words[:2] == ["dvc", "repro"]:
            assert stages_of(told) == [], words
        if words[:3] == ["dvc", "exp", "run"]:
            assert [*changed(committed, (root / "params.yaml").read_text())] == [words[4]]
    assert (root / "params.yaml").read_text() != committed  # of the last line, which applies one
    made = {name: run(root, "git", "show", f"{commit}:params.yaml") for name, commit in experiments(root).items()}
    swept = {name: sorted(changed(committed, text)) for name, text in made.items() if name.startswith("sweep")}
    assert swept == {
        "sweep-judge-ngram-ppl-0": ["judge=ngram"],
        "sweep-judge-ngram-ppl-0.5": ["judge=ngram", "weights.ppl=0.5"],
        "sweep-judge-trigram-ppl-0": ["judge=trigram"],
        "sweep-judge-trigram-ppl-0.5": ["judge=trigram", "weights.ppl=0.5"],
    }


def changed(before: str, after: str) -> Iterator[str]:
    """Yield KEY=VALUE of the values of params.yaml that differ."""
    one, other = (dict(flat(YAML(typ="safe").load(text))) for text in (before, after))
    yield from (f"{key}={value}" for key, value in other.items() if one.get(key) != value)


def flat(values: dict, parent: str = "") -> Iterator[tuple[str, object]]:
    for key, value in values.items():
        yield from flat(value, f"{parent}{key}.") if isinstance(value, dict) else [(f"{parent}{key}", value)]
