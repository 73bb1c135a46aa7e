"""The files of imported preferences: jsonl or parquet, listed as slices of rows and read slice by slice."""

import json
from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq

from alignslm.config.corpora import DatasetSource
from alignslm.config.preferences import AnyPreferences, SpokenPreferences
from alignslm.config.sources import FolderSource
from alignslm.fetching import Fetched, download, expanded
from alignslm.listing import parquet_rows, parquet_schema
from alignslm.user_errors import Problem

SUFFIXES = (".jsonl", ".parquet")


class RowSlice(NamedTuple):
    """Consecutive rows of one file; `file` is relative to the source's folder, rows count from 0."""

    root: Path
    file: str
    split: str
    start: int
    rows: int


class RawRow(NamedTuple):
    """One row as stored: its place, and the values of its three columns, or its `problem`."""

    where: str
    split: str
    values: Mapping[str, Any]
    problem: str | None


def fetch(config: AnyPreferences, root: Path = Path()) -> Fetched:
    """Return the source's files on this machine, verified if the config has a sha256.

    Audio files that a jsonl names count as well: all files of the folder are then its identity. `root` is what a
    relative folder is relative to: the folder of params.yaml.
    """
    patterns = [*config.files.train, *config.files.valid]
    names_sound = isinstance(config, SpokenPreferences) and any(p.endswith(".jsonl") for p in patterns)
    return download(below(config.source, root), patterns=None if names_sound else patterns)


def below(source: DatasetSource | FolderSource, root: Path) -> DatasetSource | FolderSource:
    """Return a source with a relative folder resolved in `root`."""
    if not isinstance(source, FolderSource):
        return source
    return source.model_copy(update={"path": str(root / expanded(source))})


def find_slices(config: AnyPreferences, root: Path, *, rows: int) -> tuple[list[RowSlice], list[Problem]]:
    """Cut every matching file into slices of at most `rows` rows; list what is wrong with files."""
    slices: list[RowSlice] = []
    problems: list[Problem] = []
    folder = root if root.is_dir() else root.parent
    for split, patterns in (("train", config.files.train), ("valid", config.files.valid)):
        for pattern in patterns:
            files = _matching(root, pattern)
            problems += [] if files else [Problem(f"no file below {folder} matches files.{split}", pattern)]
            for file in files:
                name = file.relative_to(folder).as_posix()
                count = _count(file, config)
                if isinstance(count, str):
                    problems.append(Problem(count, name))
                    continue
                starts = range(0, count, rows)
                slices += [RowSlice(folder, name, split, start, min(rows, count - start)) for start in starts]
    return slices, problems


def _matching(root: Path, pattern: str) -> list[Path]:
    if root.is_file():
        return [root] if fnmatch(root.name, pattern) else []
    return [file for file in sorted(root.rglob("*")) if fnmatch(file.relative_to(root).as_posix(), pattern)]


def _count(file: Path, config: AnyPreferences) -> int | str:
    """Return how many rows a file holds, or what is wrong with it."""
    if file.suffix == ".jsonl":
        with file.open("rb") as stream:
            return sum(1 for _ in stream)
    if file.suffix != ".parquet":
        return f"neither {' nor '.join(SUFFIXES)}"
    schema = parquet_schema(file, _columns(config))
    return schema if isinstance(schema, str) else pq.read_metadata(file).num_rows


def _columns(config: AnyPreferences) -> tuple[str, str, str]:
    return config.columns.prompt, config.columns.chosen, config.columns.rejected


def raw_rows(config: AnyPreferences, place: RowSlice) -> Iterator[RawRow]:
    """Yield the rows of a slice. A line that is not a JSON object, or has no such key, is a row with a problem."""
    file = place.root / place.file
    if file.suffix == ".jsonl":
        with file.open("rb") as stream:
            for number, line in enumerate(islice(stream, place.start, place.start + place.rows), place.start + 1):
                yield _from_line(line, f"{place.file}:{number}", place.split, config)
        return
    rows = range(place.start, place.start + place.rows)
    for number, values in zip(rows, parquet_rows(file, rows, _columns(config)), strict=True):
        yield RawRow(f"{place.file} row {number}", place.split, values, None)


def _from_line(line: bytes, where: str, split: str, config: AnyPreferences) -> RawRow:
    values = _object(line)
    if isinstance(values, str):
        return RawRow(where, split, {}, values)
    absent = [key for key in _columns(config) if key not in values]
    return RawRow(where, split, values, f"no key {', '.join(absent)}" if absent else None)


def _object(line: bytes) -> Mapping[str, Any] | str:
    """Return the JSON object in a line, or what is wrong with it."""
    try:
        found = json.loads(line)
    except UnicodeDecodeError:
        return "no JSON (not UTF-8)"
    except ValueError as error:
        return f"no JSON ({error.args[0].partition(':')[0]})"
    return found if isinstance(found, dict) else "no JSON object"


def first_row(file: Path) -> Mapping[str, Any] | str:
    """Return a file's first row, all its columns, or why there is none."""
    if file.suffix == ".jsonl":
        with file.open("rb") as stream:
            line = stream.readline()
        return _object(line) if line else "no row"
    schema = parquet_schema(file, [])
    return schema if isinstance(schema, str) else next(parquet_rows(file, [0], None), "no row")
