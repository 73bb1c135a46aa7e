"""Stages that do not wait for their libraries: one process imports them, and every stage is a fork of it.

Importing torch, transformers and TRL takes a stage two to five seconds, and an experiment of small models has dozens of
stages. `python -m alignslm.warm dvc repro` imports them once, when the first stage is wanted, and runs any command
beside that; what a stage does, and every byte it makes, stays as without. DVC starts `python -m stages.NAME` as ever:
that process finds a socket's address in ALIGNSLM_WARM, hands over its arguments, folder, environment and files, and
ends as the fork ends. Where nobody answers it goes on by itself.

Nothing of alignslm or stages is imported before the fork, so a stage runs the code of its own folder as it is then.
A fork inherits memory but no threads. Importing computes nothing, and the thread pools that it does start (OpenBLAS,
jemalloc) expect forks; Polars warns that its own does not, so every stage imports it for itself. A GPU's driver does
not survive a fork either, and models that want one make seconds of importing small: there the command runs as without.
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Never

VARIABLE = "ALIGNSLM_WARM"
LIBRARIES = (
    "matplotlib.figure",
    "pyarrow.parquet",
    "pydantic",
    "ruamel.yaml",
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
GPUS = (Path("/dev/nvidiactl"), Path("/dev/kfd"))
_OWN = ("alignslm", "stages")
_KILLED = 137  # what a shell says of a process that SIGKILL ended
_LOOK_S = 0.1


def stage_asked_for() -> str | None:
    """Return the stage's module if this process is `python -m stages.NAME ...`, whose arguments are then all of it."""
    given = sys.orig_argv
    return given[2] if given[1:2] == ["-m"] and len(given) > 2 and given[2].startswith("stages.") else None


def hand_over(module: str, address: str) -> None:
    """Have a fork of the process behind `address` run the module, and end as it ends. Returns if nobody answers."""
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(address)
        except OSError:
            return
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the fork as well, which ends by it and says so
        environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
        request = {"module": module, "arguments": sys.orig_argv[3:], "folder": str(Path.cwd()), "environ": environment}
        socket.send_fds(connection, [b"."], [0, 1, 2])
        connection.sendall(json.dumps(request).encode() + b"\n")
        told = b"".join(iter(lambda: connection.recv(1), b""))
    raise SystemExit(told[0] if told else _KILLED)


def forks_here() -> bool:
    """Tell whether this machine's stages may be forks."""
    return sys.platform == "linux" and not any(gpu.exists() for gpu in GPUS)


def main(command: Sequence[str]) -> Never:
    """Run `command`; the stages it starts are forks of this process. Ends with the command's exit status."""
    if not forks_here():
        _run_alone(command)
    ended: list[int] = []
    atexit.register(_skip_teardown, ended)  # the first to be registered is the last to run
    own, folder = os.getpid(), tempfile.mkdtemp(prefix="alignslm-warm-")
    address = f"{folder}/socket"
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            try:
                listener.bind(address)
            except OSError:  # the folder for temporary files has a name that is too long for a socket
                _run_alone(command)
            listener.listen()
            listener.settimeout(_LOOK_S)
            running = subprocess.Popen(command, env={**os.environ, VARIABLE: address})  # noqa: S603 the user's own command
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the command as well, which decides
            asked = _serve(listener, running)
    finally:
        if os.getpid() == own:
            shutil.rmtree(folder)
    if asked is not None:
        _run_stage(asked, ended)
    raise SystemExit(running.returncode)


def _run_alone(command: Sequence[str]) -> Never:
    raise SystemExit(subprocess.run(command, check=False).returncode)  # noqa: S603 the user's own command


def _serve(listener: socket.socket, running: "subprocess.Popen[bytes]") -> socket.socket | None:
    """Fork for everyone who asks; return None when the command has ended, in a fork the connection to who asked."""
    forks: set[int] = set()
    while running.poll() is None:
        forks = {fork for fork in forks if os.waitpid(fork, os.WNOHANG) == (0, 0)}
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            continue
        _import_libraries()
        if (fork := os.fork()) == 0:
            return connection
        forks.add(fork)
        connection.close()
    return None


def _import_libraries() -> None:
    if LIBRARIES[0] in sys.modules:
        return
    gc.disable()  # half a million objects that stay: looking through them again and again takes a third of the time
    for name in LIBRARIES:
        with contextlib.suppress(ImportError):  # the stage that needs it tells
            importlib.import_module(name)
    gc.enable()
    gc.freeze()  # a fork's collector leaves them alone, so their pages stay shared


def _skip_teardown(ended: Sequence[int]) -> None:
    """End a fork when all else is done, for taking apart what it inherited would first copy it: a third of a second."""
    if ended:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(ended[0])


def _run_stage(connection: socket.socket, ended: list[int]) -> Never:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _, files, _, _ = socket.recv_fds(connection, 1, 3)
    with connection.makefile("rb") as told:
        request = json.loads(told.readline())
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
        with contextlib.suppress(OSError):  # nobody may wait any more
            connection.send(bytes(ended))
    raise SystemExit(status)


def _end_with(connection: socket.socket) -> None:
    """End this process when the one that asked for it is gone, as if it had been it."""
    with contextlib.suppress(OSError):
        connection.recv(1)
    os._exit(_KILLED)


if __name__ == "__main__":
    if not sys.argv[1:] or shutil.which(sys.argv[1]) is None:
        told = f"{sys.argv[1]}: no such command; " if sys.argv[1:] else ""
        raise SystemExit(f"{told}usage: python -m alignslm.warm COMMAND ...   (such as dvc repro)")
    main(sys.argv[1:])
