"""The list of a release's recordings before any audio is read, and what may be wrong with it."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from alignslm import listing, tables
from alignslm.benchmarks import BenchmarkError
from alignslm.benchmarks.items import incomplete_pairs
from alignslm.config.sources import FolderSource, Source
from alignslm.fetching import download, expanded
from alignslm.listing import Listing, raise_problems
from alignslm.user_errors import Problem

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


def resolve_folder(source: Source, *, patterns: Sequence[str] | None = None) -> Path:
    """Return the folder of a release. A local one is hashed only if its config has a sha256."""
    if isinstance(source, FolderSource) and source.sha256 is None:
        path = expanded(source)
        if not path.is_dir():
            raise BenchmarkError(f"{path.absolute()} is not a folder. Fetch the release, or correct `data.path`.")
        return path
    return download(source, patterns=patterns).path


def recordings(folder: Path) -> list[Path]:
    """Return the wav files below a folder, sorted; what archives of other systems leave behind is not among them."""
    return [file for file in sorted(folder.rglob("*.wav")) if not file.name.startswith(".")]


def checked(found: Listing) -> Listing:
    """Return the list sorted by item, or raise BenchmarkError with every problem of it."""
    refuse([*found.problems, *unpaired(found.rows)], where=found.root, total=len(found.rows))
    if found.rows.is_empty():
        raise BenchmarkError(f"{found.root} has no recordings of this benchmark. Fetch the release or correct `data`.")
    return found._replace(rows=found.rows.sort("item_id"))


def unpaired(rows: pl.DataFrame) -> list[Problem]:
    """Return a problem for every pair, in every voice, that is not one positive and one negative of one subtype."""
    return [
        Problem("not one positive and one negative of one subtype", f"{pair} voice {voice!r}: {found}")
        for pair, voice, found in incomplete_pairs(rows).iter_rows()
    ]


def refuse(problems: Sequence[Problem], *, where: Path, total: int) -> None:
    """Raise BenchmarkError listing the problems by kind, unless there are none. `total` recordings were looked at."""
    cure = "No item is dropped and no pair is guessed: fetch the release again, or correct `data` in its config."
    raise_problems(BenchmarkError, problems, among=f"{total} recordings of {where}", cure=cure)


def fingerprint(found: Listing) -> str:
    """Return a hash of the list and of its files; see `listing.fingerprint`."""
    files = {*found.rows["file"], *found.rows["context_file"].drop_nulls()}
    return listing.fingerprint(found.rows, {file: found.root / file for file in files})
