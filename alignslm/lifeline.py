"""Processes that end with their parent, whatever ended it: nothing keeps running unattended.

A signal ends one process. The processes it started keep running, adopted by another one, and would write the same files
as the next run. So each process of a stage checks once a second that its parent is still the one that started it: a
stage checks for DVC (and the shell through which DVC started it), workers and training processes for the stage. Polling
works on every system, and also if the parent had no time to do anything (SIGKILL). Ctrl-C raises KeyboardInterrupt in a
stage, so that it cleans up; a stage that has not ended a few seconds later is ended like an orphan.
"""

import json
import os
import select
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Never

VARIABLE = "ALIGNSLM_PARENT"  # the process that a stage's children work for
KILLED = 137  # a shell's status for a process ended by SIGKILL
LOOK_S = 1.0
GRACE_S = 5.0  # from Ctrl-C until a process that is still there is ended
_following: list[int] = []


def follow(parent: int | None = None) -> None:
    """End this process when its parent is gone, and make Ctrl-C end it. Call this in the main thread.

    The parent is the process given, the stage that started this one, or DVC. A process started by hand follows none:
    closing the terminal ends it, unless it was started with nohup. On Windows this does nothing: a stage there outlives
    a DVC that was killed.
    """
    if os.getpid() in _following or sys.platform == "win32":  # no sessions, and pipes cannot be waited for there
        return
    _following[:] = [os.getpid()]
    given = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = str(os.getpid())
    by_dvc = parent is None and given is None and "DVC_STAGE" in os.environ
    parent = os.getppid() if by_dvc else parent or (int(given) if given else None)
    if parent is not None and (os.getppid() != parent or (by_dvc and _adopts(parent))):
        end()
    threading.Thread(target=_watch, args=[parent, _interrupts()], kwargs={"by_dvc": by_dvc}, daemon=True).start()


def become_worker() -> None:
    """Make a spawned process follow the one that spawned it: a killed one closes no queue that workers wait for."""
    import multiprocessing  # ten milliseconds that a stage without workers need not wait

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's affair
    parent = multiprocessing.parent_process()
    follow(parent.pid if parent else None)


def end() -> Never:
    """End this process at once, as SIGKILL would. The next run repeats unfinished work."""
    os._exit(KILLED)


def _adopts(process: int) -> bool:
    """Return whether `process` did not start this process, but adopted it from a parent that is gone.

    An adopting process is in another session. Only a session leader was started into another session on purpose, by
    ssh, setsid or a container. The first process of a container adopts too, and may be in this session: it started this
    process only if it is the DVC that notes itself as the writer of this stage.
    """
    try:
        elsewhere = os.getsid(process) != os.getsid(0) != os.getpid()
    except ProcessLookupError:
        return True
    return elsewhere or (process == 1 and 1 not in _writers())


def _writers() -> set[int]:
    """Return the processes that DVC notes as writing outputs in this workspace."""
    try:
        noted = json.loads((Path(os.environ.get("DVC_ROOT", ".")) / ".dvc/tmp/rwlock").read_bytes())
        return {writer["pid"] for writer in noted["write"].values()}
    except (OSError, ValueError, LookupError):
        return set()


def _interrupts() -> int:
    """Return a file that is readable after SIGINT, even while the main thread is in a long computation."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    return reading


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Interrupt once: another Ctrl-C would stop the cleanup after the first."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.default_int_handler(number, frame)


def _watch(parent: int | None, interrupts: int, *, by_dvc: bool) -> None:
    deadline = float("inf")
    now = None
    while time.monotonic() < deadline:
        ready, _, _ = select.select([interrupts], [], [], LOOK_S)
        if ready and signal.SIGINT in os.read(interrupts, 64):
            deadline = min(deadline, time.monotonic() + GRACE_S)
        if parent is not None and os.getppid() != parent:
            end()
        if parent is not None and by_dvc:
            before, now = now, _behind_shell(parent)
            by_dvc = now is not None
            if before not in {None, now} or (now is not None and _adopts(now)):
                end()
    end()


def _behind_shell(parent: int) -> int | None:
    """Return the process of DVC if `parent` is a shell through which it started this stage, None if it is DVC.

    A shell may be a wrapper that starts another one; each was given the stage's command as its last argument.
    """
    import psutil  # slow to import for a stage of a second, which has ended before it is needed

    try:
        above = parent
        while "-c" in (command := psutil.Process(above).cmdline())[:-1] and "stages." in command[-1]:
            above = psutil.Process(above).ppid()
    except psutil.Error:  # it has just ended
        pass
    return above if above != parent else None
