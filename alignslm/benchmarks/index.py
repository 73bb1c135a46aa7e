"""The list of a release's recordings before any audio is read, and what may be wrong with it."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import polars as pl

from alignslm import tables
from alignslm.benchmarks.items import ItemError, odd_pairs
from alignslm.config.sources import FolderSource, Source
from alignslm.failures import Problem, listed
from alignslm.fetching import expanded, obtain

INDEX: dict[str, pl.DataType | type[pl.DataType]] = {
    **{
        name: tables.ITEMS.schema[name]
        for name in (
            *("item_id", "pair_id", "polarity", "type", "subtype", "voice", "text"),
            *("frequency", "band", "length"),
        )
    },
    "file": pl.String,  # below the release's folder
    "row": pl.Int64,  # of a parquet file; null: the file is the recording
    "column": pl.String,
    "context_file": pl.String,  # spoken before `file`, null: nothing is
}
SIDES = ("positive", "negative")


class Found(NamedTuple):
    """The recordings of a benchmark, where their files lie, and what is wrong with the list."""

    rows: pl.DataFrame
    root: Path
    problems: list[Problem]


def frame(rows: Iterable[Mapping[str, object]]) -> pl.DataFrame:
    """Return index rows as a frame; columns that a layout does not know are null."""
    return pl.DataFrame([{name: row.get(name) for name in INDEX} for row in rows], schema=INDEX)


def place(source: Source, *, patterns: Sequence[str] | None = None) -> Path:
    """Return the folder of a release. A local one is hashed only where the configuration promises its hash."""
    if isinstance(source, FolderSource) and source.sha256 is None:
        path = expanded(source)
        if not path.is_dir():
            raise ItemError(f"{path.absolute()} is no folder. Fetch the release, or correct `data.path`.")
        return path
    return obtain(source, patterns=patterns).path


def recordings(folder: Path) -> list[Path]:
    """Return the wav files below a folder, sorted; what archives of other systems leave behind is not among them."""
    return [file for file in sorted(folder.rglob("*.wav")) if not file.name.startswith(".")]


def checked(found: Found) -> Found:
    """Return the list sorted by item, or raise ItemError with every problem of it."""
    refuse([*found.problems, *unpaired(found.rows)], where=found.root, total=len(found.rows))
    if found.rows.is_empty():
        raise ItemError(f"{found.root} holds no recordings of this benchmark. Fetch the release, or correct `data`.")
    return found._replace(rows=found.rows.sort("item_id"))


def unpaired(rows: pl.DataFrame) -> list[Problem]:
    """Return a problem for every pair, in every voice, that is not one positive and one negative of one subtype."""
    return [
        Problem("not one positive and one negative of one subtype", f"{pair} voice {voice!r}: {found}")
        for pair, voice, found in odd_pairs(rows).iter_rows()
    ]


def refuse(problems: Sequence[Problem], *, where: Path, total: int) -> None:
    """Raise ItemError listing the problems by kind, unless there are none. `total` recordings were looked at."""
    if not problems:
        return
    head = f"{where}: {len(problems)} problems among {total} recordings:"
    cure = "Nothing is dropped and no pair is guessed: fetch the release again, or correct its choice of data."
    raise ItemError("\n".join([head, *listed(problems), cure]))


def fingerprint(found: Found) -> str:
    """Return a hash of the list and of every file's size and time of change, without reading any."""
    digest = hashlib.sha256()
    files = {*found.rows["file"], *found.rows["context_file"].drop_nulls()}
    for file in sorted(files):
        stat = (found.root / file).stat()
        digest.update(f"{file}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode())
    for row in found.rows.iter_rows():
        digest.update(repr(row).encode())
    return digest.hexdigest()
