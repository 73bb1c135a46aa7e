"""Disks that are full or may not be written: one error that names the path and what to do."""

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_PROBE_BYTES = 1 << 20


class StorageError(ValueError):
    """A file cannot be written: the disk is full, read-only, forbidden or broken."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise StorageError where what is written to `path` in this block fails because of the disk.

    Libraries tell of a full disk in many words, torch in none at all: where an error does not say it, a small write
    beside `path` does.
    """
    try:
        yield
    except StorageError:
        raise
    except Exception as error:
        number = _named(error) or _probed(path)
        if number is None:
            raise
        raise StorageError(_message(path, number)) from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a name to write to; when the block ends well the file takes the place of `path`, else it goes.

    A reader never meets half a file. Raises StorageError as `writing` does.
    """
    partial = partial_of(path)
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield partial
            partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def partial_of(path: Path) -> Path:
    """Return where this process writes what becomes `path`, after sweeping away what processes that died left there."""
    for left in path.parent.glob(f".{path.name}.*.partial"):
        number = left.name.split(".")[-2]
        if number.isdecimal() and not _is_alive(int(number)):
            shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)
    return path.with_name(f".{path.name}.{os.getpid()}.partial")


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # alive, and another user's
        return True
    try:  # a process that was killed keeps its number until its parent, or whoever adopted it, takes note
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:  # no /proc here, or gone meanwhile
        return True


def _named(error: Exception) -> int | None:
    """Return the number of the disk error that an exception carries or speaks of."""
    if isinstance(error, OSError):
        return error.errno if error.errno in DISK_ERRORS else None
    told = re.search(r"\(os error (\d+)\)", str(error))  # polars and safetensors: Rust's words
    return int(told[1]) if told and int(told[1]) in DISK_ERRORS else None


def refusal(path: Path) -> str | None:
    """Return why the disk would refuse a file at or below `path`, or None where it would take it."""
    number = _probed(path)
    return os.strerror(number) if number else None


def _probed(path: Path) -> int | None:
    """Return the number of the disk error that a write beside `path` meets."""
    place = next((folder for folder in [path, *path.parents] if folder.is_dir()), Path())
    probe = place / f".probe.{os.getpid()}"
    try:
        probe.write_bytes(bytes(_PROBE_BYTES))
    except OSError as error:
        return error.errno if error.errno in DISK_ERRORS else None
    finally:
        probe.unlink(missing_ok=True)
    return None


def _message(path: Path, number: int) -> str:
    remedy = (
        "Make room there (or raise the quota)"
        if number in FULL
        else "Make the folder writable for this user, or work in one that is"
    )
    return (
        f"{path} cannot be written: {os.strerror(number)}. {remedy} and run the same command again: "
        "finished shards and checkpoints are kept."
    )
