"""Reading of tables: whole, by part, or in batches, always after a check of table name and version."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from alignslm.provenance import UnitContract
from alignslm.tables.schemas import Table
from alignslm.tables.validation import TableError, require_later, verify
from alignslm.tables.writing import rechunk


def parts(path: Path) -> list[Path]:
    """Return the parquet files of a table, in order. Raises TableError if there are none."""
    files = sorted(path.glob("part-*.parquet")) if path.is_dir() else [path] if path.exists() else []
    if not files:
        raise TableError(f"{path} does not exist or is empty. Make it with `dvc repro`, or fetch it with `dvc pull`.")
    return files


def _read_part(table: Table, path: Path, columns: list[str] | None) -> tuple[pl.DataFrame, str | None]:
    with _opened(path) as file:
        contract = _require_identity(file, table, path)
        frame = pl.DataFrame(pl.from_arrow(file.read(columns=columns)))
        return frame if columns is None else frame.select(columns), contract


def _require_valid(frame: pl.DataFrame, table: Table, where: str) -> None:
    try:
        verify(frame, table, where=where)
    except TableError as error:
        raise TableError(f"{error}. Delete it and run `dvc repro`.") from None


@contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    """Open a parquet file with page checksums verified as it is read. Raises TableError."""
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            yield file
    except (OSError, UnicodeDecodeError, pa.ArrowException, pl.exceptions.PolarsError) as error:
        raise TableError(f"{path} cannot be read as parquet ({error}). Delete it and run `dvc repro`.") from error


def _require_identity(file: pq.ParquetFile, table: Table, path: Path) -> str | None:
    """Raise TableError unless a file is this table in this version; return its unit contract."""
    metadata = {key.decode(errors="replace"): value for key, value in (file.metadata.metadata or {}).items()}
    found = tuple(metadata.get(f"alignslm.{what}", b"?").decode(errors="replace") for what in ("table", "version"))
    if found != (table.name, str(table.version)):
        raise TableError(
            f"{path} holds table {found[0]!r} version {found[1]}, expected {table.name!r} version {table.version}. "
            "It was written by another version of alignslm: run `dvc repro` to make it again."
        )
    contract = metadata.get("alignslm.unit_contract")
    return contract.decode(errors="replace") if contract else None


def iterate(table: Table, path: Path, columns: list[str] | None = None) -> Iterator[pl.DataFrame]:
    """Yield the table part by part, so memory is bounded by a shard."""
    for part in parts(path):
        frame, _ = _read_part(table, part, columns)
        yield frame


def batches(table: Table, path: Path, *, rows: int, columns: list[str] | None = None) -> Iterator[pl.DataFrame]:
    """Yield the table in frames of `rows` rows (the last may have fewer), in key order, across parts.

    Memory is bounded by `rows` and a row group. Verified like `read` if all columns are read.
    """
    last = None
    for number, frame in enumerate(rechunk(_decoded(table, path, columns), rows)):
        if columns is None:
            where = f"{path}, from row {number * rows}"
            _require_valid(frame, table, where)
            last = require_later(frame, table, last, where=where)
        yield frame


def _decoded(table: Table, path: Path, columns: list[str] | None) -> Iterator[pl.DataFrame]:
    for part in parts(path):
        with _opened(part) as file:
            _require_identity(file, table, part)
            for group in range(file.num_row_groups):  # pyarrow's own batches keep all data in memory until the end
                frame = pl.DataFrame(pl.from_arrow(file.read_row_group(group, columns=columns)))
                yield frame if columns is None else frame.select(columns)


class Slice(NamedTuple):
    """Consecutive rows of one parquet file of a table."""

    file: Path
    start: int
    rows: int


def slices(path: Path, rows: int) -> list[Slice]:
    """Cut a table on disk, file by file, into slices of at most `rows` rows, without reading them."""
    return [Slice(file, start, rows) for file in parts(path) for start in range(0, _count(file), rows)]


def _count(path: Path) -> int:
    with _opened(path) as file:
        return file.metadata.num_rows


def read_slice(table: Table, place: Slice) -> pl.DataFrame:
    """Read one slice, checked as `iterate` checks. Raises TableError."""
    frame, _ = _read_part(table, place.file, None)
    return frame.slice(place.start, place.rows)


def read(table: Table, path: Path, columns: list[str] | None = None) -> pl.DataFrame:
    """Read a whole table (or some columns of it) and verify it when all columns are read."""
    frame = pl.concat(list(iterate(table, path, columns)))
    if columns is None:
        _require_valid(frame, table, str(path))
    return frame


def contract_of(table: Table, path: Path) -> UnitContract:
    """Return a table's unit contract. Raises TableError if it has none."""
    first = parts(path)[0]
    with _opened(first) as file:
        text = _require_identity(file, table, first)
    if text is None:
        raise TableError(f"{path} has no unit contract, so its units have no meaning. Run `dvc repro`.")
    return UnitContract.model_validate_json(text)
