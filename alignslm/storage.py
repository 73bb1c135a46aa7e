"""The only way to write a file: a new one next to it, renamed when complete. Disk errors have one message.

DVC links outputs to the objects of its cache, so that opening one for writing would alter the cached object as well,
under the hash of what it was. Renaming does not touch it, even if it is open, and no partial file is ever seen.
A test makes sure that all modules use it (tests/test_writers.py).
"""

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir

from alignslm.redaction import redact

DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}
_NAMES = {errno.ENAMETOOLONG, errno.EILSEQ, errno.ELOOP}
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_PROBE_BYTES = 1 << 20
_MB = 10**6


class StorageError(ValueError):
    """A file cannot be written: the disk is full, read-only, forbidden or broken."""


@contextmanager
def reraise_disk_errors(path: Path, wanted_bytes: int = 0) -> Iterator[None]:
    """Raise StorageError if writing to `path` in this block fails because of the disk.

    `wanted_bytes` is how much will be written, if known. Libraries report a full disk in many ways, torch not at all:
    if an error does not name the cause, a small test write next to `path` does.
    """
    try:
        yield
    except StorageError:
        raise
    except Exception as error:
        number = disk_error(error) or _probed(path)
        if number is None:
            raise
        raise StorageError(refusal(path, number, wanted_bytes)) from error


@contextmanager
def atomic_write(path: Path, wanted_bytes: int = 0) -> Iterator[Path]:
    """Yield a path to write to; if the block succeeds the file replaces `path`, else it is removed.

    A reader never meets half a file. Raises StorageError as `reraise_disk_errors` does.
    """
    partial = _partial(path)
    try:
        with reraise_disk_errors(path, wanted_bytes):
            _sweep(path)
            path.parent.mkdir(parents=True, exist_ok=True)
            yield partial
            partial.replace(path)
    finally:
        with suppress(OSError):  # a disk that may not be written has been named already
            partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text without secrets, with line feeds as line ends on every system; see `atomic_write`."""
    with atomic_write(path, len(text)) as partial:
        partial.write_text(redact(text), encoding="utf-8", newline="\n")


def write_bytes(path: Path, content: bytes) -> None:
    """Write bytes; see `atomic_write`."""
    with atomic_write(path, len(content)) as partial:
        partial.write_bytes(content)


def copy_file(source: Path, path: Path) -> None:
    """Copy the content of a file, links followed; see `atomic_write`."""
    with atomic_write(path, source.stat().st_size) as partial:
        shutil.copyfile(source, partial)


@contextmanager
def filling(folder: Path, wanted_bytes: int = 0) -> Iterator[Path]:
    """Yield an empty folder to write to; if the block succeeds its files move to `folder`.

    Other files of `folder` stay. For libraries that take a folder instead of a file. Raises StorageError as
    `reraise_disk_errors` does.
    """
    with _fresh(folder, wanted_bytes) as partial:
        yield partial
        for file in sorted(path for path in partial.rglob("*") if path.is_file()):
            place = folder / file.relative_to(partial)
            place.parent.mkdir(parents=True, exist_ok=True)
            file.replace(place)


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder to write to; if the block succeeds it replaces `folder`, else it is removed.

    Raises StorageError as `reraise_disk_errors` does.
    """
    with _fresh(folder) as partial:
        yield partial
        shutil.rmtree(folder, ignore_errors=True)
        partial.replace(folder)


@contextmanager
def _fresh(folder: Path, wanted_bytes: int = 0) -> Iterator[Path]:
    partial = _partial(folder)
    try:
        with reraise_disk_errors(folder, wanted_bytes):
            _sweep(folder)
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            yield partial
    finally:  # a corpus may be as large as the disk: no half of one is left behind
        shutil.rmtree(partial, ignore_errors=True)


def _partial(path: Path) -> Path:
    """Return this process's temporary path for `path`."""
    return path.with_name(f".{path.name}.{os.getpid()}.partial")


def _sweep(path: Path) -> None:
    """Remove partial files of dead processes next to `path`."""
    for left in path.parent.glob(f".{path.name}.*.partial"):
        _remove_if_dead(left, left.name.split(".")[-2])


def temporary_folder() -> TemporaryDirectory[str]:
    """Return a folder in the system's temporary one. Folders of killed processes are removed by the next one.

    The folder may be shared with containers, which have their own process ids.
    """
    numbering = Path("/proc/self/ns/pid")
    prefix = f"alignslm-{numbering.stat().st_ino if numbering.exists() else 0}-"
    for left in Path(gettempdir()).glob(f"{prefix}*"):
        with suppress(OSError):  # another user's, or another process is removing it
            _remove_if_dead(left, left.name.split("-")[2])
    return TemporaryDirectory(prefix=f"{prefix}{os.getpid()}-", ignore_cleanup_errors=True)


def _remove_if_dead(left: Path, process: str) -> None:
    """Remove a file or folder that belongs to a process, given by its number, unless that process is alive."""
    if process.isdecimal() and not _is_alive(int(process)):
        shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    """Return whether a process runs; one that was killed keeps its number until its parent takes note of it."""
    if process == os.getpid():
        return True
    import psutil  # slow to import, and rarely needed

    try:
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:  # alive, and another user's
        return True


def disk_error(error: Exception) -> int | None:
    """Return the number of the disk error that an exception carries or speaks of, or None."""
    if isinstance(error, OSError):
        return error.errno if error.errno in DISK_ERRORS | _NAMES else None
    found = re.search(r"\(os error (\d+)\)", str(error))  # polars and safetensors: Rust's words
    return int(found[1]) if found and int(found[1]) in DISK_ERRORS else None


def write_error(path: Path) -> str | None:
    """Return why the disk would reject a file at or below `path`, or None if it would not."""
    number = _probed(path)
    return os.strerror(number) if number else None


def _probed(path: Path) -> int | None:
    """Return the errno of a test write next to `path`."""
    place = next((folder for folder in [path, *path.parents] if folder.is_dir()), Path())
    probe = place / f".probe.{os.getpid()}"
    try:
        probe.write_bytes(bytes(_PROBE_BYTES))
    except OSError as error:
        return error.errno if error.errno in DISK_ERRORS else None
    finally:
        with suppress(OSError):
            probe.unlink(missing_ok=True)
    return None


def refusal(path: Path, number: int, wanted_bytes: int = 0) -> str:
    """Return the message for a disk that rejects `path`: why, free and needed space, what is kept."""
    if number in _NAMES:
        return f"{str(path)[:200]} cannot be used as the name of a file: {os.strerror(number)}"
    if number in FULL:
        place = next(folder for folder in path.absolute().parents if folder.is_dir())
        disk = shutil.disk_usage(place)
        wanted = max(wanted_bytes, _written(_partial(path))) / _MB
        room = f"{disk.free / _MB:.1f} of {disk.total / _MB:.1f} MB are free, at least {wanted:.1f} MB are wanted"
        why = f"{os.strerror(number)} ({room}). Make room there (or raise the quota)"
    else:
        why = f"{os.strerror(number)}. Make the folder writable for this user, or work in one that is,"
    what = "read" if path.is_file() and not os.access(path, os.R_OK) else "written"
    return f"{path} cannot be {what}: {why} and run the same command again: finished shards and checkpoints are kept."


def _written(partial: Path) -> int:
    files = partial.rglob("*") if partial.is_dir() else [partial]
    return sum(file.stat().st_size for file in files if file.is_file())
