"""Provenance of a report: code, lock file, packages and device."""

import hashlib
import platform
import subprocess
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

from alignslm.config.model import Config
from alignslm.machine import cores, has_gpu, processor

PACKAGES = ("alignslm", "torch", "transformers", "trl", "peft", "polars", "numpy", "scipy", "dvc")


class RunInfo(Config):
    """Provenance of one report. `git_commit` is None outside a repository, `dvc_lock_sha256` without a dvc.lock.

    `dirty` is true if tracked files differ from the commit. The processor is that of the machine that wrote the report.
    """

    git_commit: str | None
    dirty: bool
    dvc_lock_sha256: str | None
    packages: dict[str, str]
    python: str
    processor: str
    device: str


def origin_of(root: Path, *, device: str, packages: Iterable[str] = PACKAGES) -> RunInfo:
    """Return the provenance of the working tree at `root`; `device` is the setting of execution.yaml."""
    lock = root / "dvc.lock"
    status = git(root, "status", "--porcelain", "--untracked-files=no")
    return RunInfo(
        git_commit=git(root, "rev-parse", "HEAD"),
        dirty=bool(status),
        dvc_lock_sha256=hashlib.sha256(lock.read_bytes()).hexdigest() if lock.exists() else None,
        packages={name: version(name) for name in packages},
        python=platform.python_version(),
        processor=f"{processor()}, {cores()} cores, {'a' if has_gpu() else 'no'} GPU",
        device=device,
    )


def git(root: Path, *arguments: str) -> str | None:
    """Return the output of git, None without git or a repository, as in an unpacked archive."""
    try:
        done = subprocess.run(  # noqa: S603 (a fixed command)
            ["git", "-C", str(root), *arguments],  # noqa: S607 (git is where the user has it)
            capture_output=True,
            text=True,
            check=True,
        )
    except (FileNotFoundError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
