"""Stages that do not wait for their libraries: one process imports them, and every stage is a fork of it.

Importing torch, transformers and TRL takes a stage two to five seconds, and an experiment of small models has dozens of
stages. `python -m alignslm.speed dvc repro` becomes the command and starts a server next to it, which imports them
once, before the first stage runs; stages do the same, and write the same bytes, as without it. DVC starts
`python -m stages.NAME` as usual: that process finds a socket's address in ALIGNSLM_FORKSERVER, sends its arguments,
folder, environment and files, and exits with the fork's status. Without a server, the stage runs by itself.

No process outlives the one it works for: the server ends with the command, a fork with the server and with the process
that requested it, and that one with DVC (`alignslm.lifeline`).

Nothing of alignslm or stages is imported before the fork, so a stage runs the code of its folder as it is then. A fork
inherits memory but no threads. Importing computes nothing, and the thread pools that it starts (OpenBLAS, jemalloc)
support forks; Polars warns that its own does not, so each stage imports it by itself. A GPU's driver does not survive a
fork either, and models that need one make seconds of importing negligible: there the command runs without a server.
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import shlex
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Never

from alignslm import lifeline, machine, times

VARIABLE = "ALIGNSLM_FORKSERVER"
LIBRARIES = (
    "filelock",
    "matplotlib.figure",
    "psutil",
    "pyarrow.parquet",
    "pydantic",
    "ruamel.yaml",
    "yaml",
    "safetensors.torch",
    "scipy.fft",
    "scipy.optimize",
    "scipy.signal",
    "scipy.stats",
    "sklearn.cluster",
    "soundfile",
    "transformers.models.llama.modeling_llama",
    "transformers.generation.utils",
    "trl.trainer.dpo_trainer",
    "typer",
)
ELSEWHERE = {"--queue", "--run-all", "--temp"}  # experiments that do not run in this folder, or not now
_OWN = ("alignslm", "stages")
_LOOK_S = 0.1


def requested_stage() -> str | None:
    """Return the stage's module if this process is `python -m stages.NAME ...`."""
    given = sys.orig_argv
    return given[2] if given[1:2] == ["-m"] and len(given) > 2 and given[2].startswith("stages.") else None


def run_in_fork(module: str, address: str) -> None:
    """Run the module in a fork of the server at `address` and exit with its status. Returns if there is no answer."""
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(b"\0" + address.encode())
        except OSError:
            return
        if not _is_mine(connection):
            return
        environment = {name: value for name, value in os.environ.items() if name not in {VARIABLE, lifeline.VARIABLE}}
        request = {"module": module, "arguments": sys.orig_argv[3:], "folder": str(Path.cwd()), "environ": environment}
        socket.send_fds(connection, [b"."], [0, 1, 2])
        connection.sendall(json.dumps(request).encode() + b"\n")
        if connection.recv(1):  # the fork is there; until then Ctrl-C ends this process, and the fork finds it gone

            def pass_on(number: int, _: FrameType | None) -> None:
                with contextlib.suppress(OSError):  # it has ended meanwhile
                    connection.sendall(bytes([number]))

            signal.signal(signal.SIGINT, pass_on)
            connection.sendall(b".")
        status = b"".join(iter(lambda: connection.recv(1), b""))  # until the fork has ended
    raise SystemExit(status[0] if status else lifeline.KILLED)


def can_fork() -> bool:
    """Return whether stages may be forks on this machine."""
    return sys.platform == "linux" and not machine.has_gpu()


def main(command: Sequence[str]) -> Never:
    """Become `command`; the stages it starts are forks of a server that this process starts first."""
    held = _lock_workspace(command)  # noqa: F841 as long as this process lives, under another name too
    os.environ[times.RUN] = f"{time.time():.3f}"  # stages note their times under it
    if can_fork():
        start_server()
    os.execvp(command[0], list(command))  # noqa: S606 the user's own command


def _lock_workspace(command: Sequence[str]) -> contextlib.ExitStack:
    """Wait until no other run is active in this folder. DVC does not wait: its locks end a run with an error."""
    held = contextlib.ExitStack()
    tool, *arguments = command
    runs = arguments[:1] == ["repro"] or (arguments[:2] == ["exp", "run"] and not ELSEWHERE & {*arguments})
    if Path(tool).name == "dvc" and runs:
        from alignslm.locks import alone
        from alignslm.user_errors import report_user_errors

        with report_user_errors():
            held.enter_context(
                alone("dvc", command=shlex.join(command), on_acquired=lambda file: os.set_inheritable(file, True))
            )
    return held


def start_server() -> None:
    """Start the server of this process, and put its address into the environment: its stages are forks."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(b"")  # Linux chooses a name that no file has: nothing is left of it, however the server ends
    listener.listen()
    command = os.getpid()
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # Ctrl-C also reaches the child, which continues
    if os.fork() == 0:
        _be_server(listener, command)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    os.environ[VARIABLE] = listener.getsockname()[1:].decode()


def _be_server(listener: socket.socket, command: int) -> Never:
    """Serve while the command runs, and wait for its last forks. In a fork: run the stage."""
    own, ended = os.getpid(), list[int]()
    atexit.register(_skip_teardown, ended)  # the first to be registered is the last to run
    with open(os.devnull, "r+b", buffering=0) as nothing:  # noqa: PTH123 who reads what the command says waits for no child of it
        os.dup2(nothing.fileno(), 0)
        os.dup2(nothing.fileno(), 1)
    former = [(number, signal.getsignal(number)) for number in (signal.SIGTERM, signal.SIGHUP)]
    for number, handler in former:
        if handler == signal.SIG_DFL:  # and not nohup's
            signal.signal(number, _leave)
    connection = _serve(listener, command)
    if connection is not None:
        for number, handler in former:
            signal.signal(number, handler)
        _run_stage(connection, own, ended)
    os._exit(0)


def _leave(number: int, _: FrameType | None) -> Never:
    raise SystemExit(128 + number)


def _serve(listener: socket.socket, command: int) -> socket.socket | None:
    """Fork for each request. Return None when the command has ended; in a fork, the connection of its request."""
    forks: set[int] = set()
    listener.settimeout(_LOOK_S)
    while os.getppid() == command:
        forks = {fork for fork in forks if os.waitpid(fork, os.WNOHANG) == (0, 0)}
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            continue
        with connection:
            if not _is_mine(connection):
                continue
            _import_libraries(command)
            if os.getppid() != command or _is_closed(connection):  # importing took seconds
                continue
            if (fork := os.fork()) == 0:
                return connection.dup()
        forks.add(fork)
    listener.close()
    for fork in forks:  # of a queue's worker, which outlives the command that started it
        os.waitpid(fork, 0)
    return None


def _is_mine(connection: socket.socket) -> bool:
    """Return whether the process at the other end is this user's: the address is open to all of a machine."""
    _, user, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return bool(user == os.getuid())


def _is_closed(connection: socket.socket) -> bool:
    """Return whether the requesting process is gone; what it sent may still be readable."""
    poll = select.poll()
    poll.register(connection, select.POLLHUP)
    return bool(poll.poll(0))


def _import_libraries(command: int) -> None:
    """Import the remaining modules while the command runs."""
    gc.disable()  # half a million objects that stay: looking through them again and again takes a third of the time
    for name in LIBRARIES:
        if name not in sys.modules and os.getppid() == command:
            with contextlib.suppress(ImportError):  # the stage that needs it reports it
                importlib.import_module(name)
    gc.enable()
    gc.freeze()  # a fork's collector ignores them, so their pages stay shared


def _skip_teardown(ended: Sequence[int]) -> None:
    """Exit a fork at once: freeing inherited memory would first copy it, a third of a second."""
    if ended:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(ended[0])


def _run_stage(connection: socket.socket, server: int, ended: list[int]) -> Never:
    _, files, _, _ = socket.recv_fds(connection, 1, 3)
    with connection.makefile("rb") as stream:
        request = json.loads(stream.readline())
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    sys.stdout.reconfigure(line_buffering=os.isatty(1))  # type: ignore[union-attr]
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environ"])
    sys.argv = [request["module"], *request["arguments"]]
    sys.path[0] = request["folder"]
    for name in [name for name in sys.modules if name.partition(".")[0] in _OWN]:
        del sys.modules[name]
    importlib.invalidate_caches()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    lifeline.follow(server)
    _take_over(connection)
    threading.Thread(target=_end_with, args=[connection], daemon=True).start()
    status = 1
    try:
        runpy.run_module(request["module"], run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        raise
    finally:
        ended.append(status & 0xFF)
        with contextlib.suppress(OSError):  # the requester may be gone
            connection.send(bytes(ended))
    raise SystemExit(status)


def _take_over(connection: socket.socket) -> None:
    """Be the process that Ctrl-C ends. An earlier one is not lost: it is pending here, or has ended the requester."""
    with contextlib.suppress(OSError):
        connection.sendall(b".")
        if connection.recv(1):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
            return
    lifeline.end()


def _end_with(connection: socket.socket) -> None:
    """End this process when the requesting one is gone; pass on what interrupts that one."""
    with contextlib.suppress(OSError):
        while connection.recv(1):
            os.kill(os.getpid(), signal.SIGINT)
    lifeline.end()
