"""Whether DVC could work in this folder: its repository, git beside it, its cache, and nobody else at work."""

import configparser
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from alignslm.storage import refusal


def workspace_faults(root: Path) -> Iterator[str]:
    """Yield what DVC would stop at, each with what to do. DVC itself names neither causes nor remedies in full."""
    top = next((folder for folder in (root.resolve(), *root.resolve().parents) if (folder / ".dvc").is_dir()), None)
    if top is None:
        yield f"DVC: {root.resolve()} is in no DVC repository; run `git init && dvc init` there"
        return
    settings = _settings(top / ".dvc")
    no_scm = settings.get("core", "no_scm", fallback="false").lower() == "true"
    if not no_scm and not any((folder / ".git").exists() for folder in (top, *top.parents)):
        yield (
            f"git: {top} is no git repository, and DVC was set up with one; run `git init`, or let DVC do without: "
            "`dvc config core.no_scm true`"
        )
    yield from _cache_faults(top / ".dvc", settings)
    yield from _lock_faults(top / ".dvc" / "tmp" / "lock")


def _settings(folder: Path) -> configparser.ConfigParser:
    """Read the repository's own configuration, the local one last; DVC writes them in this format."""
    settings = configparser.ConfigParser(strict=False, interpolation=None)
    settings.read([folder / "config", folder / "config.local"], encoding="utf-8")
    return settings


def _cache_faults(folder: Path, settings: configparser.ConfigParser) -> Iterator[str]:
    cache = folder / Path(settings.get("cache", "dir", fallback="cache")).expanduser()
    if why := refusal(cache):
        yield (
            f"DVC: its cache {cache} cannot be written ({why}); make it writable, make room, or name another: "
            "`dvc cache dir --local FOLDER`"
        )


def _lock_faults(lock: Path) -> Iterator[str]:
    """DVC holds its lock as a lock of the system on a file, and writes its process's number into it."""
    if not lock.exists():
        return
    with lock.open() as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = stream.read(20).strip() or "unknown"
            here = f" (`{_command_of(holder)}`)" if _command_of(holder) else ""
            yield f"DVC: process {holder}{here} is at work in this repository; wait until it is done, or end it"


def _command_of(process: str) -> str:
    """Return a process's command line where the system tells it."""
    path = Path("/proc", process, "cmdline")
    if not process.isdecimal() or not os.access(path, os.R_OK):
        return ""
    return path.read_text(errors="replace").replace("\0", " ").strip()
