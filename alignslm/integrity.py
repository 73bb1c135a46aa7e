"""Integrity of artifacts: their hashes are recorded when they are written, and compared before use.

DVC keeps the hash of every output in dvc.lock. A stage keeps those of its own outputs in .work/written as well, since
one that was run by hand is not in dvc.lock. An artifact with another hash was altered: by a disk error,
an incomplete copy, an editor. Folders that no experiment made have no record, and are read as they are.
"""

import configparser
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from pydantic import BaseModel, ValidationError

from alignslm.fast_yaml import load_texts
from alignslm.locks import WORK
from alignslm.storage import copy_file, write_text
from alignslm.user_errors import is_user_error

Listing: TypeAlias = Mapping[str, str]  # md5 of every file of an artifact by its name; the name of a single file is ""
Model = TypeVar("Model", bound=BaseModel)
WRITTEN = WORK / "written"
VERIFIED = "ALIGNSLM_VERIFIED"  # set while a stage runs: it has compared all that it reads
ABSENT = "{} does not exist. Make it with `dvc repro`, or fetch it with `dvc pull`."
CURE = "Delete it and run `dvc repro`, or `dvc checkout`."


class DamagedError(ValueError):
    """An artifact is missing, cannot be read, or is not what was written."""


class LockError(ValueError):
    """dvc.lock cannot be read."""


def require_intact(path: Path) -> str:
    """Return the hash of an artifact as DVC computes it. Raises DamagedError if it was altered."""
    return tree_md5(_verified(path))


def _verified(path: Path) -> Listing:
    if not path.exists():
        raise DamagedError(ABSENT.format(path))
    found = listing(path)
    for name, known in _records(path).items():
        part = _part(found, name)
        if (part or (path / name).exists()) and tree_md5(part) not in known:
            raise DamagedError(_fault(path / name, part, known))
    return found


@contextmanager
def reading(path: Path, *, compare: bool = True) -> Iterator[None]:
    """Read an artifact in this block. Raises DamagedError unless it is intact, or, without a record, readable.

    With `compare` false, large artifacts of which only a part is read are not compared.
    """

    def is_recorded() -> bool:  # reads dvc.lock, so only if it matters
        return compare and path.exists() and bool(_records(path))

    if VERIFIED not in os.environ and (not path.exists() or is_recorded()):
        require_intact(path)
    try:
        yield
    except Exception as error:
        if is_user_error(error) or is_recorded():
            raise
        why = (str(error).strip().splitlines() or [""])[0]
        raise DamagedError(f"{path} cannot be read ({type(error).__name__}: {why}). {CURE}") from error


def read_json(path: Path, model: type[Model]) -> Model:
    """Read a JSON file as a model. Raises DamagedError."""
    with reading(path):
        return _parsed(path, model)


def _parsed(path: Path, model: type[Model]) -> Model:
    try:
        return model.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise DamagedError(f"{path} cannot be read ({where or 'line 1'}: {first['msg']}). {CURE}") from error


def listing(path: Path) -> Listing:
    """Return the md5 of a file, or of every file of a folder. Files are read side by side."""
    if path.is_file():
        return {"": _md5(path)}
    files = sorted(file for file in path.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
    with ThreadPoolExecutor() as pool:
        return dict(zip((file.relative_to(path).as_posix() for file in files), pool.map(_md5, files), strict=True))


def _md5(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def tree_md5(files: Listing) -> str:
    """Return DVC's hash of an artifact: a file's md5, or that of the listing of a folder, which ends in .dir."""
    if set(files) == {""}:
        return files[""]
    return hashlib.md5(_listing_text(files).encode(), usedforsecurity=False).hexdigest() + ".dir"


def _listing_text(files: Listing) -> str:
    return json.dumps([{"md5": files[name], "relpath": name} for name in sorted(files)])


@contextmanager
def stage(name: str, inputs: Sequence[str], outputs: Sequence[str]) -> Iterator[dict[str, str]]:
    """Yield the hashes of a stage's inputs, which must be intact, and record its outputs if the block succeeds."""
    listed = {path: _verified(Path(path)) for path in inputs}
    _keep_listings(listed.values())
    found = {path: tree_md5(files) for path, files in listed.items()}
    os.environ[VERIFIED] = name
    try:
        yield found
    finally:
        del os.environ[VERIFIED]
    if os.environ.get("RANK", "0") == "0":
        written = {path: listing(Path(path)) for path in outputs if Path(path).exists()}
        write_text(WRITTEN / f"{name.replace('/', '-')}.json", json.dumps(written) + "\n")


def require_outputs(inputs: Sequence[str], outputs: Iterable[str]) -> None:
    """Raise DamagedError if some of `outputs` that are inside folders among `inputs` are missing.

    DVC takes a folder of many outputs for one input, and with --allow-missing leaves it as it is as soon as one of them
    is there: in a stage that DVC started, the others are fetched here.
    """
    within = [one for one in outputs if any(one.startswith(f"{path}/") for path in inputs)]
    missing = [one for one in within if not Path(one).exists()]
    if missing and "DVC_ROOT" in os.environ:
        fetch(missing)
    for one in missing:
        if not Path(one).exists():
            raise DamagedError(ABSENT.format(one))


def fetch(missing: Sequence[str]) -> None:
    """Restore outputs from DVC's cache or remote."""
    subprocess.run([sys.executable, "-m", "dvc", "fetch", "-q", *missing], check=False)  # noqa: S603 its errors are told below
    known = {output: total for output, total, _ in _locked(Path("dvc.lock"))}
    for output in missing:
        for name, md5 in (_cached(Path(), known.get(output, "")) or {}).items():
            if (kept := _object(Path(), md5)).is_file():
                copy_file(kept, Path(output, name))


def keep_listings(inputs: Iterable[str]) -> None:
    """Keep the listings of inputs that are not read, from their records; see `_keep_listings`."""
    for path in inputs:
        parts = {name: list(known.values())[-1] for name, known in _records(Path(path)).items()}
        files = {f"{name}/{file}".strip("/"): md5 for name, part in parts.items() for file, md5 in (part or {}).items()}
        _keep_listings([files])


def _keep_listings(inputs: Iterable[Listing]) -> None:
    """Keep the listings of folders in DVC's cache, as DVC does only for outputs.

    A push to a remote that keeps versions (of S3, say) replaces the hashes of folders in dvc.lock by their listings,
    and drops those without a listing: a clone would run the stages that read them again.
    """
    for files in inputs if Path(".dvc").is_dir() else ():
        if files and "" not in files and not (place := _object(Path(), tree_md5(files))).exists():
            write_text(place, _listing_text(files))


def _is_within(file: str, name: str) -> bool:
    return not name or file == name or file.startswith(f"{name}/")


def _records(path: Path) -> dict[str, dict[str, Listing | None]]:
    """Return the hashes, with listings where known, that outputs at or below `path` may have, by name below it.

    Of a path inside an output, those of that path, if a listing of the output is known.
    """
    root = _root(path)
    if root is None:
        return {}
    wanted, known = path.absolute().relative_to(root).as_posix(), dict[str, dict[str, Listing | None]]()
    for output, total, written in [*_written(root), *_locked(root / "dvc.lock")]:
        if not (_is_within(output, wanted) or _is_within(wanted, output)):
            continue
        files = written or _cached(root, total)
        if _is_within(output, wanted):
            known.setdefault(output[len(wanted) :].lstrip("/"), {})[total] = files
        elif part := _part(files or {}, wanted[len(output) + 1 :]):
            known.setdefault("", {})[tree_md5(part)] = part
    return known


def _root(path: Path) -> Path | None:
    """Return the folder of the experiment that a path belongs to."""
    return next((above for above in path.absolute().parents if (above / "dvc.yaml").is_file()), None)


def _part(files: Listing, name: str) -> Listing:
    """Return the part of a listing at or below `name`."""
    return {file[len(name) :].lstrip("/"): md5 for file, md5 in files.items() if _is_within(file, name)}


def _written(root: Path) -> Iterator[tuple[str, str, Listing | None]]:
    for file in sorted((root / WRITTEN).glob("*.json")):
        try:
            outputs = json.loads(file.read_bytes())
        except ValueError:  # a damaged record is ignored
            continue
        for output, files in outputs.items():
            yield output, tree_md5(files), files


def _locked(lock: Path) -> Iterator[tuple[str, str, Listing | None]]:
    if not lock.is_file():
        return
    state = lock.stat()
    for output in _outputs(lock, state.st_mtime_ns, state.st_size):
        if "md5" in output or "files" in output:
            listed = {file["relpath"]: file["md5"] for file in output.get("files", ())}
            yield output["path"], identity_of(output)["md5"], listed or None


@lru_cache(maxsize=1)
def _outputs(lock: Path, _time: int, _size: int) -> list[dict[str, Any]]:
    """Return the outputs that dvc.lock names; all values are text. Raises LockError."""
    import yaml

    with _lock_reading(lock, yaml.YAMLError):
        read = load_texts(lock.read_bytes())
        return [output for stage in read["stages"].values() for output in stage.get("outs", ())]


def lock_entries(lock: Path) -> Mapping[str, Mapping[str, Any]]:
    """Return the entries of dvc.lock by stage. Raises LockError."""
    from ruamel.yaml.error import YAMLError

    from alignslm.config.document import limited_reader

    with _lock_reading(lock, YAMLError):
        stages = limited_reader().load(lock.read_bytes())["stages"]
        return dict(stages.items())


@contextmanager
def _lock_reading(lock: Path, broken: type[Exception]) -> Iterator[None]:
    try:
        yield
    except (broken, TypeError, KeyError, AttributeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise LockError(f"{lock}{line}: not a lock file of DVC. Resolve its conflict, or restore it by git.") from error


def identity_of(item: Mapping[str, Any]) -> dict[str, str]:
    """Return path and hash of an entry of dvc.lock, which no push changes."""
    files = {file["relpath"]: file["md5"] for file in item.get("files", ())}
    return {"path": item["path"], "md5": tree_md5(files) if files else item.get("md5", "lost by a push")}


def _cached(root: Path, total: str) -> Listing | None:
    """Return the listing of a folder that DVC keeps in its cache, if it is there."""
    if not total.endswith(".dir"):
        return {"": total}
    try:
        rows = json.loads(_object(root, total).read_bytes())
    except (OSError, ValueError):
        return None
    return {row["relpath"]: row["md5"] for row in rows}


def _object(root: Path, md5: str) -> Path:
    """Return where DVC's cache keeps the content of this hash."""
    settings = configparser.ConfigParser(strict=False, interpolation=None)
    settings.read([root / ".dvc" / "config", root / ".dvc" / "config.local"], encoding="utf-8")
    cache = Path(".dvc", settings.get("cache", "dir", fallback="cache")).expanduser()
    return root / cache / "files" / "md5" / md5[:2] / md5[2:]


def _fault(path: Path, found: Listing, known: Mapping[str, Listing | None]) -> str:
    """Return which file changed, how, and what to do."""
    expected = next((files for files in known.values() if files), None)
    if expected is None:
        names = ", ".join(sorted(found)[:8])
        return f"{path} is not what was written: one of {names} was altered, lost or added. {CURE}"
    name = next(name for name in sorted({*expected, *found}) if found.get(name) != expected.get(name))
    file, whole = path / name, expected.get(name)
    if whole is None:
        return f"{file} was not written with the rest of {path}. {CURE}"
    if name not in found:
        what = "is missing"
    elif file.stat().st_size == 0:
        what = "is empty"
    else:
        what = f"is damaged: its md5 is {found[name]}, and was {whole} when it was written"
    kept = _object(_root(path) or Path(), whole)
    if kept.is_file() and _md5(kept) != whole:  # a link to it: both were altered at once
        also = f"and so is its copy in DVC's cache. Delete both ({kept})"
        return f"{file} {what}, {also} and run `dvc repro`, or `dvc pull`."
    return f"{file} {what}. {CURE}"
