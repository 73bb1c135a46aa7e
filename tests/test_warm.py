"""A stage that is a fork of a process with its libraries loaded does what a stage that starts alone does."""

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

from alignslm.lifeline import KILLED
from alignslm.speed import forkserver
from tests.micro import ENVIRONMENT, ROOT, WARM

PROBE = """
import atexit, json, os, signal, subprocess, sys, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

def doubled(number):
    return 2 * number

def told():
    return {
        "arguments": sys.argv[1:],
        "folder": os.getcwd(),
        "variable": os.environ.get("PROBE"),
        "foreign": sorted({"ALIGNSLM_FORKSERVER", "OF_THE_SERVER"} & {*os.environ}),
        "loaded": sorted({"torch", "transformers", "trl", "polars"} & {*sys.modules}),
        "parent": os.getppid(),
        "terminal": os.isatty(1),
    }

if __name__ == "__main__":
    match sys.argv[1]:
        case "tell":
            print(json.dumps(told()))
        case "version":
            import alignslm
            print(alignslm.__version__, os.getcwd())
        case "exit":
            sys.exit(3)
        case "late":
            atexit.register(print, "cleaned", end="")
            print("done", end=" ")
        case "message":
            sys.exit("no such choice")
        case "raise":
            raise KeyError("lost")
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "wait":
            print(os.getpid(), flush=True)
            time.sleep(600)
        case "launch":
            subprocess.run([sys.executable, "-m", "stages.probe", "wait"], start_new_session=True)
        case "stubborn":
            try:
                print(os.getpid(), flush=True)
                time.sleep(600)
            finally:
                time.sleep(600)
        case "workers":
            with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
                print(list(pool.map(doubled, range(3))))
"""


class Project:
    """A folder with a stage `probe`, run alone or through a warm process."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in (
            "alignslm/__init__.py",
            "alignslm/lifeline.py",
            *(f"alignslm/speed/{name}.py" for name in ("__init__", "__main__", "forkserver", "process")),
            "stages/__init__.py",
        ):
            (root / name).parent.mkdir(exist_ok=True)
            shutil.copy(ROOT / name, root / name)
        lifeline = root / "alignslm/lifeline.py"
        lifeline.write_text(lifeline.read_text().replace("GRACE_S = 5.0", "GRACE_S = 0.5"))
        (root / "stages/probe.py").write_text(PROBE)
        self.address, self.server = "", 0

    def start(self, *arguments: str, address: str | None = None) -> "subprocess.Popen[str]":
        variables = {forkserver.VARIABLE: self.address if address is None else address, "PROBE": "17"}
        return subprocess.Popen(
            (sys.executable, "-m", "stages.probe", *arguments),
            cwd=self.root,
            env={**ENVIRONMENT, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, address: str | None = None) -> tuple[int, str, str]:
        process = self.start(*arguments, address=address)
        out, err = process.communicate(timeout=120)
        return process.returncode, out, err


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Iterator[Project]:
    if not forkserver.can_fork():
        pytest.skip("on this machine every stage starts alone")
    found = Project(tmp_path_factory.mktemp("warm"))
    tell = f"import os, time; print(os.environ[{forkserver.VARIABLE!r}], flush=True); time.sleep(600)"
    variables = {**ENVIRONMENT, "OF_THE_SERVER": "1"}
    with subprocess.Popen(
        (*WARM, sys.executable, "-c", tell), cwd=found.root, env=variables, stdout=subprocess.PIPE, text=True
    ) as command:
        assert command.stdout is not None
        found.address = command.stdout.readline().strip()
        (found.server,) = (child.pid for child in psutil.Process(command.pid).children())
        yield found
        command.kill()
    assert ends(found.server)


def ends(process: int) -> bool:
    """Wait until a process that is nobody's child here is dead; False if it still lives after half a minute."""
    status, give_up = Path(f"/proc/{process}/stat"), time.monotonic() + 30
    while time.monotonic() < give_up:
        try:
            if status.read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.02)
    return False


def test_a_fork_has_its_libraries_and_everything_else_of_the_process_that_asked(project):
    status, out, err = project.run("tell", "a b", "--flag")
    assert (status, err) == (0, "")
    assert json.loads(out) == {
        "arguments": ["tell", "a b", "--flag"],
        "folder": str(project.root),
        "variable": "17",
        "foreign": [],
        "loaded": ["torch", "transformers", "trl"],  # not Polars, which a fork may not inherit
        "parent": project.server,
        "terminal": False,
    }


def test_where_nobody_answers_a_stage_goes_on_alone(project, tmp_path):
    status, out, err = project.run("tell", address=str(tmp_path / "gone"))
    assert (status, err) == (0, "")
    told = json.loads(out)
    assert (told["loaded"], told["parent"]) == ([], os.getpid())


@pytest.mark.parametrize(
    ("asked", "status", "last_line"),
    [("exit", 3, ""), ("message", 1, "no such choice"), ("raise", 1, "KeyError: 'lost'")],
)
def test_status_and_message_are_those_of_a_stage_alone(project, asked, status, last_line):
    for address in (project.address, ""):
        found, out, err = project.run(asked, address=address)
        assert (found, out, err.strip().rpartition("\n")[2]) == (status, "", last_line)


def test_what_is_left_for_the_end_is_done(project):
    for address in (project.address, ""):
        assert project.run("late", address=address) == (0, "done cleaned", "")


def test_a_killed_fork_is_told_as_killed_and_the_next_stage_runs(project):
    assert project.run("kill") == (137, "", "")
    assert project.run("exit")[0] == 3


def test_a_fork_ends_with_the_process_that_asked_for_it(project):
    asking = project.start("wait")
    assert asking.stdout is not None
    fork = int(asking.stdout.readline())
    os.kill(fork, 0)
    asking.send_signal(signal.SIGKILL)
    asking.wait()
    assert ends(fork)


def test_what_a_stage_launched_ends_with_it_in_a_session_of_its_own(project):
    """So torch's launcher starts the processes that train together."""
    launching = project.start("launch", address="")
    assert launching.stdout is not None
    launched = int(launching.stdout.readline())
    launching.send_signal(signal.SIGKILL)
    launching.wait()
    assert ends(launched)


def test_a_stage_that_ctrl_c_does_not_end_is_ended_soon(project):
    for address in (project.address, ""):
        stubborn = project.start("stubborn", address=address)
        assert stubborn.stdout is not None
        process = int(stubborn.stdout.readline())
        os.kill(process, signal.SIGINT)
        assert stubborn.wait(60) == KILLED
        assert ends(process)


def test_an_interrupt_ends_all_and_is_told_once(project):
    command = (*WARM, sys.executable, "-m", "stages.probe", "wait")
    with subprocess.Popen(
        command,
        cwd=project.root,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as running:
        assert running.stdout is not None
        fork = int(running.stdout.readline())
        os.killpg(running.pid, signal.SIGINT)  # what a terminal does at Ctrl-C
        try:
            _, said = running.communicate(timeout=60)
        finally:
            if running.poll() is None:
                os.killpg(running.pid, signal.SIGKILL)
    assert running.returncode == 1
    assert said.count("KeyboardInterrupt") == 1
    assert ends(fork)


def test_a_stage_runs_the_code_that_is_there_when_it_starts(project):
    probe = project.root / "stages/probe.py"
    # Python takes its bytecode for that of a source of the same second and the same size: this one is longer.
    probe.write_text(PROBE.replace("sys.exit(3)", "sys.exit(4 )"))
    try:
        assert project.run("exit")[0] == 4
    finally:
        probe.write_text(PROBE)


def test_a_stage_of_another_folder_runs_that_folders_code(project, tmp_path):
    other = Project(tmp_path)
    (tmp_path / "alignslm/__init__.py").write_text('__version__ = "another"')
    assert other.run("version", address=project.address) == (0, f"another {tmp_path}\n", "")


def test_a_forks_own_processes_find_the_stage(project):
    assert project.run("workers") == (0, "[0, 2, 4]\n", "")


def warmed(*command: str, temporary: Path) -> "subprocess.CompletedProcess[str]":
    """Run a command behind a warm process whose temporary files go to a folder of their own."""
    return subprocess.run(
        (*WARM, *command),
        cwd=ROOT,
        env={**ENVIRONMENT, "TMPDIR": str(temporary)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.usefixtures("project")
def test_the_command_decides_the_status_and_nothing_is_left(tmp_path):
    done = warmed("sh", "-c", f'echo "${forkserver.VARIABLE}"; exit 7', temporary=tmp_path)
    assert (done.returncode, done.stderr) == (7, "")
    assert done.stdout.strip()
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("project")
def test_a_server_that_is_killed_leaves_nothing(tmp_path):
    """An address is no file: not even SIGKILL leaves one."""
    kill = (
        "import os, psutil; beside = psutil.Process(os.getppid()).children(); "
        "[process.kill() for process in beside if process.pid != os.getpid()]"
    )
    done = warmed("sh", "-c", f"{sys.executable} -c '{kill}'; true", temporary=tmp_path)
    assert done.returncode == 0
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("unsafe", ["forkserver.machine.GPUS = (pathlib.Path.cwd(),)", "sys.platform = 'darwin'"])
def test_where_a_fork_is_not_safe_the_command_runs_alone(unsafe):
    command = ["sh", "-c", f'test -z "${forkserver.VARIABLE}" && exit 5']
    code = f"import pathlib, sys; from alignslm.speed import forkserver; {unsafe}; forkserver.main({command!r})"
    done = subprocess.run((sys.executable, "-c", code), cwd=ROOT, env=ENVIRONMENT, check=False)
    assert done.returncode == 5


@pytest.mark.parametrize(
    ("given", "told"),
    [((), "usage: python -m alignslm.speed"), (("dcv", "repro"), "dcv: no such command; usage: ")],
)
def test_without_a_command_its_use_is_told(given, told, tmp_path):
    done = warmed(*given, temporary=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith(told)


def test_another_users_processes_are_not_served(project):
    """The address is open to all of a machine: a stage of another user is not run, and one is not run by them."""
    if os.getuid() != 0:
        pytest.skip("only root can be another user")
    code = (
        "import os, socket, sys; os.setuid(65534); mine = socket.socket(socket.AF_UNIX)\n"
        f"mine.connect(b'\\0' + {project.address!r}.encode()); mine.settimeout(60); print(mine.recv(1))"
    )
    done = subprocess.run((sys.executable, "-c", code), capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("b''\n", "")
    impostor = (
        "import os, socket; os.setuid(65534); mine = socket.socket(socket.AF_UNIX); mine.bind(b''); mine.listen()\n"
        "print(mine.getsockname()[1:].decode(), flush=True); met, _ = mine.accept(); print(met.recv(9))"
    )
    with subprocess.Popen((sys.executable, "-c", impostor), stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        address = other.stdout.readline().strip()
        assert project.run("exit", address=address)[0] == 3  # by itself
        assert other.communicate(timeout=60)[0] == "b''\n"


@pytest.fixture
def importing(tmp_path) -> Iterator[tuple[Project, "subprocess.Popen[str]"]]:
    """Give a run whose warm process is importing its libraries for the first stage."""
    if not forkserver.can_fork():
        pytest.skip("on this machine every stage starts alone")
    project = Project(tmp_path)
    (tmp_path / "stages/probe.py").write_text(f"open({str(tmp_path / 'begun')!r}, 'w')\n{PROBE}")
    command = f"{sys.executable} -m stages.probe exit; true"  # through a shell that stays, as DVC would
    with subprocess.Popen(
        (*WARM, "sh", "-c", command), cwd=tmp_path, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    ) as running:  # fmt: skip
        while "numpy" not in maps_of_children(running.pid):
            assert running.poll() is None
        yield project, running
        if running.poll() is None:
            os.killpg(running.pid, signal.SIGKILL)


def maps_of_children(process: int) -> str:
    """Return what the children of a process have loaded."""
    try:
        return "".join(Path(f"/proc/{child.pid}/maps").read_text() for child in psutil.Process(process).children())
    except (OSError, psutil.NoSuchProcess):
        return ""


def nothing_lives(group: int) -> bool:
    """Wait until no process of a group lives; False if one does after half a minute."""
    members = [process.pid for process in psutil.process_iter() if group_of(process.pid) == group]
    return all(ends(process) for process in members)


def group_of(process: int) -> int | None:
    try:
        return os.getpgid(process)
    except ProcessLookupError:
        return None


def test_an_interrupt_while_libraries_are_imported_is_not_lost(importing):
    project, running = importing
    os.killpg(running.pid, signal.SIGINT)
    _, said = running.communicate(timeout=60)
    assert said.count("KeyboardInterrupt") == 1
    assert nothing_lives(running.pid)
    assert not (project.root / "begun").exists()


@pytest.mark.parametrize("victim", ["command", "stage"])
def test_no_fork_starts_for_one_that_died_while_libraries_were_imported(importing, victim):
    project, running = importing
    children = (one for one in psutil.process_iter(["ppid", "cmdline"]) if one.info["ppid"] == running.pid)
    (asking,) = (child for child in children if "stages.probe" in child.info["cmdline"])
    (asking if victim == "stage" else running).send_signal(signal.SIGKILL)
    running.wait(60)
    assert nothing_lives(running.pid)
    assert not (project.root / "begun").exists()
