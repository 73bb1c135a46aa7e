"""Whatever is killed, by whatever signal: of a run nothing lives on, and running again repairs it."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, Self

import psutil
import pytest
from ruamel.yaml import YAML

from alignslm import lifeline
from alignslm.speed import forkserver
from tests.micro import ENVIRONMENT, WARM, changed, edit, make_repository, run
from tests.sweep_world import VARIABLES, make_world
from tests.test_writers import unlike_their_names

LIMIT_S = 60.0  # of waiting for what takes a second or two where nothing else is at work
SHELL = '#!/bin/sh\n/bin/sh "$@"\nexit $?\n'  # one that stays while its command runs
ALONE, BESIDE, SHELLED = "alone", "warm", "shell"


def temporary(root: Path) -> Path:
    """Return the system's temporary folder, as runs below `root` see it."""
    place = root.with_name("temporary")
    place.mkdir(exist_ok=True)
    return place


class Run:
    """A `dvc repro` whose processes are found by a variable that all of them inherit."""

    def __init__(self, root: Path, mode: str) -> None:
        self.mark = uuid.uuid4().hex
        shell = {"SHELL": str(root / "shell")} if mode == SHELLED else {"SHELL": "/bin/sh"}
        self.dvc = subprocess.Popen(
            (*(WARM if mode == BESIDE else ()), "dvc", "repro"),
            cwd=root,
            env={**ENVIRONMENT, **shell, "MARK": self.mark, "TMPDIR": str(temporary(root))},
            stdout=(root / "said").open("w"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def living(self) -> list[psutil.Process]:
        """Return the processes of this run, dead ones that nobody buried left out."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("MARK") == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def find(self, what: Callable[[psutil.Process], bool]) -> psutil.Process | None:
        for process in self.living():
            with contextlib.suppress(psutil.Error):
                if what(process):
                    return process
        return None

    def wait_for(self, name: str) -> None:
        give_up = time.monotonic() + LIMIT_S
        while not self.find(VICTIMS[name]):
            assert self.dvc.poll() is None, "it ended, see the file `said`"
            assert time.monotonic() < give_up
            time.sleep(0.02)

    def ended(self) -> bool:
        """Wait until nothing of this run lives; False where something still does after a minute."""
        give_up = time.monotonic() + LIMIT_S
        while self.living():
            if time.monotonic() > give_up:
                return False
            self.dvc.poll()
            time.sleep(0.1)
        self.dvc.wait()
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.living():
            with contextlib.suppress(psutil.Error):
                process.kill()
        self.dvc.wait()


def of_line(part: str) -> Callable[[psutil.Process], bool]:
    return lambda process: part in " ".join(process.cmdline())


def is_fork(process: psutil.Process) -> bool:
    parent = process.parent()
    return of_line("alignslm.speed")(process) and parent is not None and of_line("alignslm.speed")(parent)


VICTIMS: dict[str, Callable[[psutil.Process], bool]] = {
    "dvc": of_line("bin/dvc repro"),
    "shell": lambda process: "/shell -c " in " ".join(process.cmdline()),
    "stage": lambda process: process.cmdline()[1:3] == ["-m", "stages.corpus"],
    "server": lambda process: of_line("alignslm.speed")(process) and not is_fork(process),
    "fork": is_fork,
    "worker": of_line("spawn_main"),
}


class Case(NamedTuple):
    mode: str
    victim: str  # `all`: the whole group, as a terminal does
    number: signal.Signals

    def __str__(self) -> str:
        return f"{self.mode}-{self.victim}-{self.number.name}"


TERM, INT, HUP, KILL = signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL
# DVC, the process that forks and the workers leave SIGINT to the stage: alone, it ends nothing there.
CASES = [
    *(Case(ALONE, victim, number) for victim in ("dvc", "worker") for number in (TERM, HUP, KILL)),
    *(Case(ALONE, victim, number) for victim in ("stage", "all") for number in (TERM, INT, HUP, KILL)),
    *(Case(SHELLED, victim, number) for victim in ("dvc", "shell") for number in (TERM, HUP, KILL)),
    *(Case(BESIDE, victim, number) for victim in ("dvc", "server", "worker") for number in (TERM, HUP, KILL)),
    *(Case(BESIDE, victim, number) for victim in ("stage", "fork", "all") for number in (TERM, INT, HUP, KILL)),
]
QUICK = {Case(ALONE, "dvc", KILL), Case(SHELLED, "dvc", TERM), Case(BESIDE, "dvc", KILL), Case(BESIDE, "all", INT)}


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Iterator[Path]:
    """Give a repository of the corpus stage, with workers and more to do than is done before the last kill.

    At the end it is run to its end, and held to what a run that nothing disturbed makes.
    """
    former = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup, runs would inherit that it is ignored
    root = tmp_path_factory.mktemp("left-behind") / "repository"
    make_repository(root)
    yaml = YAML()
    pipeline = yaml.load(root / "dvc.yaml")
    with (root / "dvc.yaml").open("w") as stream:
        yaml.dump({"stages": {name: pipeline["stages"][name] for name in ("check", "corpus")}}, stream)
    stories = {"train": 600, "valid": 12, "dev": 1, "test": 12}
    edit(root / "experiments/corpus/storyworld.yaml", {"stories": stories, "num_texts": 500})
    edit(root / "experiments/execution.yaml", {"num_workers": 2, "shard_size": 16})
    (root / "shell").write_text(SHELL)
    (root / "shell").chmod(0o755)
    # Libraries that this stage does not need would take seconds a case, and are nothing to any signal.
    copy = root / "alignslm/speed/forkserver.py"
    light, libraries = 'LIBRARIES = ("filelock", "psutil", "numpy")', copy.read_text()
    copy.write_text(
        libraries.replace(libraries[libraries.index("LIBRARIES = (") : libraries.index("\nELSEWHERE")], light)
    )
    yield root
    signal.signal(signal.SIGHUP, former)
    run(root, "dvc", "repro", variables={"TMPDIR": str(temporary(root))})
    assert list(temporary(root).iterdir()) == [], "left by what was killed, and by the run after it"
    assert changed(root) == {}
    assert unlike_their_names(root) == []
    assert list((root / "artifacts").rglob("*.partial")) == []


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=str(case), marks=() if case in QUICK else pytest.mark.long) for case in CASES]
)
def test_nothing_of_a_run_is_left_behind(repository, case):
    if case.mode == BESIDE and not forkserver.can_fork():
        pytest.skip("on this machine every stage starts alone")
    with Run(repository, case.mode) as running:
        running.wait_for("worker")
        if case.victim == "all":
            os.killpg(running.dvc.pid, case.number)
        else:
            victim = running.find(VICTIMS[case.victim])
            assert victim is not None
            victim.send_signal(case.number)
        assert running.ended(), [*map(str, running.living())]
    assert running.dvc.returncode != 0
    assert not (repository / "artifacts/corpus/texts.parquet").exists(), "the stage was not ended: it came to its end"


@pytest.mark.parametrize("mode", [ALONE, BESIDE])
def test_a_second_run_waits_and_says_for_whom(repository, mode):
    """A stage that somebody starts by hand waits for that stage, `make repro` for the whole of the other run."""
    if mode == BESIDE and not forkserver.can_fork():
        pytest.skip("on this machine every stage starts alone")
    with Run(repository, mode) as running:
        running.wait_for("worker")
        holder = running.find(VICTIMS["stage"]) if mode == ALONE else psutil.Process(running.dvc.pid)
        assert holder is not None
        command = (sys.executable, "-m", "stages.corpus") if mode == ALONE else (*WARM, "dvc", "repro")
        with subprocess.Popen(command, cwd=repository, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) as second:
            assert second.stdout is not None
            said = second.stdout.readline()
            second.kill()
    who = (
        f"corpus: process {holder.pid} (stages/corpus.py)"
        if mode == ALONE
        else f"dvc: process {holder.pid} (dvc repro)"
    )
    assert said.startswith(f"{who} has been running in this workspace since 20")
    assert said.endswith("; waiting until it is done\n")


CONTAINER = ("unshare", "--pid", "--fork", "--mount-proc", "setsid", "--wait")  # process 1 is in the session of all
ADOPTS = """
import os, signal, subprocess, sys, time
assert (os.getpid(), os.getsid(0)) == (1, 1)
late = "import time; time.sleep(.5); from alignslm import lifeline; lifeline.follow(); time.sleep(30)"
subprocess.run(["sh", "-c", '"$@" & echo $!', "sh", sys.executable, "-c", late], check=True)
signal.alarm(60)
print("status", os.waitstatus_to_exitcode(os.waitpid(-1, 0)[1]))
"""


def contained(*command: str, cwd: Path, **variables: str) -> str:
    if (
        shutil.which("unshare") is None
        or subprocess.run([*CONTAINER, "true"], check=False, capture_output=True).returncode
    ):
        pytest.skip("this user may not start processes as a container does")
    done = subprocess.run(
        [*CONTAINER, *command],
        check=False,
        cwd=cwd,
        env={**ENVIRONMENT, **VARIABLES, **variables},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_containers_first_process_is_not_taken_for_dvc(tmp_path):
    told = contained(sys.executable, "-c", ADOPTS, cwd=tmp_path, DVC_STAGE="check", DVC_ROOT=str(tmp_path))
    assert told.splitlines()[1:] == [f"status {lifeline.KILLED}"]


def test_dvc_may_be_a_containers_first_process(tmp_path):
    root = make_world(tmp_path / "experiment")
    contained("dvc", "repro", "check", cwd=root)
    assert (root / "artifacts/checked.txt").read_text() == "valid\n"
