"""Folders and files outside the repository as listings: what DVC cannot see, but stages read.

The stage `check` looks at them at every run and writes a listing per config: name, size and SHA-256 of every file. The
stages that read a folder depend on its listing, so they run again exactly if it changed. Paths and times are not in it:
equal files give equal bytes on every machine.

A file is hashed once. The hash is kept in the cache of this machine while inode, size, time of modification and time of
change are the same; the last of them cannot be set, so even a file that was replaced by one of equal size and time is
read again.
"""

import hashlib
import json
import os
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TypeAlias

from alignslm.artifacts import Artifacts
from alignslm.config.experiment import Experiment
from alignslm.config.sources import FolderSource, sources_in
from alignslm.fetching import cache_folder
from alignslm.progress import track
from alignslm.provenance import file_sha256
from alignslm.storage import write_bytes

Files: TypeAlias = dict[str, list[int | str]]  # size in bytes and SHA-256 by name; the name of a single file is ""
Listing: TypeAlias = dict[str, Files]  # by the key of the config that names the folder or file
State: TypeAlias = tuple[int, int, int, int]
UNSETTLED_NS = 2 * 10**9  # a file that was written so shortly before it was read may have changed within one tick
NUM_NAMED = 3


class OutsideError(ValueError):
    """A file or folder that a config names cannot be read."""


class Compared(NamedTuple):
    """Listings by their place below artifacts/outside; `changes` are lines to print, `absent` sources never read.

    `stale` are the paths of listings that are no longer true.
    """

    listings: dict[Path, Listing]
    changes: list[str]
    absent: list[str]
    stale: set[str]


def compare(experiment: Experiment, root: Path = Path(), *, new: bool = True) -> Compared:
    """Compare the folders that configs name with their listings in `root`; those without one are only read if `new`.

    A folder that is not on this machine keeps its former listing. Raises OutsideError.
    """
    compared, known = Compared({}, [], [], set()), root / Artifacts().outside
    for choice in experiment.choices():
        place = Path(*choice.file.with_suffix(".json").parts[1:])
        former = _read(known / place)
        now = compared.listings.setdefault(place, {})
        for key, source in sources_in(choice.config, ""):
            if not isinstance(source, FolderSource) or key in now or not (new or key in former):
                continue
            where = f"{choice.file.as_posix()}: {key} ({source.path})"
            if (files := _listed(source, root)) is not None:
                change = difference(former.get(key, files), files)
                compared.stale.update([f"artifacts/outside/{place.as_posix()}"] if change else [])
            elif (files := former.get(key)) is None:
                compared.absent.append(where)
                continue
            else:
                change = f"not on this machine; its {len(files)} files count as unchanged"
            now[key] = files
            compared.changes.extend([f"{where}: {change}"] if change else [])
    return compared


def _listed(source: FolderSource, root: Path) -> Files | None:
    path, unset = source.expanded()
    return listed(root / path) if unset is None and (root / path).exists() else None


def write(compared: Compared, folder: Path) -> None:
    """Write new and changed listings to `folder`, and remove those of configs that are no longer used."""
    for place, listing in compared.listings.items():
        content = json.dumps(listing, sort_keys=True).encode()
        if not (folder / place).exists() or (folder / place).read_bytes() != content:
            write_bytes(folder / place, content)
    for stale in {*folder.rglob("*.json")} - {folder / place for place in compared.listings}:
        stale.unlink()


def difference(former: Files, now: Files) -> str:
    """Return `160 files added, 3 changed: a.wav, b.wav, c.wav, ...`, or nothing if the files are the same."""
    groups = dict(zip(("added", "removed", "changed"), differing(former, now), strict=True))
    counts = [f"{len(names)} {kind}" for kind, names in groups.items() if names]
    names = [name for group in groups.values() for name in group]
    if not names:
        return ""
    shown = ", ".join(filter(None, names[:NUM_NAMED])) + (", ..." if len(names) > NUM_NAMED else "")
    return f"files: {', '.join(counts)}" + (f" ({shown})" if shown else "")


def differing(former: Mapping[str, object], now: Mapping[str, object]) -> tuple[list[str], list[str], list[str]]:
    """Return the sorted names of files that were added, removed and changed."""
    changed = (name for name in now.keys() & former.keys() if now[name] != former[name])
    return sorted(now.keys() - former.keys()), sorted(former.keys() - now.keys()), sorted(changed)


def listed(path: Path) -> Files:
    """Return size and hash of a file, or of every file below a folder; hidden ones are left out, links followed.

    Only files that are not in this machine's cache with the same state are read. Raises OutsideError.
    """
    place = cache_folder() / "listings" / f"{hashlib.sha256(os.path.abspath(path).encode()).hexdigest()[:32]}.json"  # noqa: PTH100
    kept, began = _read_states(place), time.time_ns()
    states = dict(_states(path))
    unknown = [name for name, state in states.items() if kept.get(name, ((),))[0] != state]
    hashes = {name: kept[name][1] for name in states.keys() - set(unknown)} | _hashes(path, unknown)
    if unknown or len(states) != len(kept):
        settled = {n: (*state, hashes[n]) for n, state in states.items() if max(state[1:3]) < began - UNSETTLED_NS}
        write_bytes(place, json.dumps(settled).encode())
    return {name: [state[0], hashes[name]] for name, state in states.items()}


def _read_states(place: Path) -> dict[str, tuple[State, str]]:
    return {name: ((size, *rest), sha256) for name, (size, *rest, sha256) in _read(place).items()}


def _read(place: Path) -> dict[str, Any]:
    """Return the content of a JSON file; of one that is missing or damaged nothing is known."""
    try:
        found: dict[str, Any] = json.loads(place.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return found


def _states(path: Path) -> Iterator[tuple[str, State]]:
    """Yield name and state of every file; links to nothing and to a folder above themselves are passed over."""
    if path.is_file():
        yield "", _state(path.stat())
        return
    for where, folders, names in os.walk(path, followlinks=True, onerror=_refuse):
        folders[:] = [one for one in folders if one[0] != "." and not _leads_back(Path(where, one))]
        below = where[len(str(path)) :].replace(os.sep, "/").lstrip("/")
        for name in names:
            try:
                found = os.stat(f"{where}/{name}")  # noqa: PTH116 - of 100,000 files, in half the time of a Path
            except FileNotFoundError:
                continue
            except OSError as error:
                _refuse(error)
            if name[0] != "." and stat.S_ISREG(found.st_mode):
                yield f"{below}/{name}".lstrip("/"), _state(found)


def _state(found: os.stat_result) -> State:
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def _leads_back(folder: Path) -> bool:
    return folder.is_symlink() and folder.parent.resolve().is_relative_to(folder.resolve())


def _hashes(path: Path, names: Sequence[str]) -> dict[str, str]:
    def of(name: str) -> str:
        try:
            return file_sha256(path / name)
        except OSError as error:
            _refuse(error)

    with ThreadPoolExecutor() as pool:
        hashes = track(pool.map(of, names), total=len(names), label=f"{path}: files hashed")
        return dict(zip(names, hashes, strict=True))


def _refuse(error: OSError) -> NoReturn:
    raise OutsideError(
        f"{error.filename} cannot be read ({error.strerror}). Make it readable, or move it out of the folder that a "
        "config names."
    ) from error
