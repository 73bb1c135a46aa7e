"""One process at a time: locks on files, which the system takes back from a process that ends, however it ends."""

import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from alignslm.storage import reraise_disk_errors, write_text

WORK = Path(".work")


@contextmanager
def alone(name: str, *, command: str | None = None, on_acquired: Callable[[int], None] | None = None) -> Iterator[None]:
    """Hold the lock `name` of the current folder in this block; while another process has it, print which, and wait.

    Others are told `command`, else this process's own. `on_acquired` gets the open lock file.
    Raises StorageError if it cannot be written.
    """
    path = WORK / f"{name}.lock"
    holder = path.with_suffix(".holder")
    with reraise_disk_errors(path):
        WORK.mkdir(exist_ok=True)
        lock = FileLock(path, fallback_to_soft=False, on_acquired=on_acquired)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            print(f"{name}: {_told(holder)}; waiting until it is done", flush=True)
            lock.acquire()
    try:
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        write_text(
            holder, f"process {os.getpid()} ({command or _own()}) has been running in this workspace since {since}"
        )
        yield
    finally:
        lock.release()


def _told(holder: Path) -> str:
    try:
        return holder.read_text(encoding="utf-8")
    except FileNotFoundError:  # it has the lock but has not written who it is yet
        return "another process is running in this workspace"


def _own() -> str:
    script, *arguments = sys.argv
    return shlex.join([os.path.relpath(script), *arguments])
