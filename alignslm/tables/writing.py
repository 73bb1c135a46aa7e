"""How a table reaches the disk: arranged, verified, and whole or not at all."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq

from alignslm.provenance import UnitContract
from alignslm.storage import atomic_write, replacing_folder
from alignslm.tables.schemas import Table
from alignslm.tables.validation import conform, require_later, verify

PART_ROWS = 500  # rows of audio in one file: some 60 MB, few enough to hold, many enough to keep files few
PARQUET_OPTIONS: dict[str, Any] = {
    "compression": "zstd",
    "write_page_checksum": True,
}  # a flipped bit is detected
GROUP_ROWS = 1 << 16  # rows of one row group, all that a reader of batches must decode at once


def write(frame: pl.DataFrame, table: Table, path: Path, contract: UnitContract | None = None) -> None:
    """Arrange, verify and write one parquet file, then rename it into place."""
    write_frames([conform(frame, table)], table, path, contract)


def write_frames(frames: Iterable[pl.DataFrame], table: Table, path: Path, contract: UnitContract | None = None) -> int:
    """Write frames, already in key order from one to the next, as one parquet file. Returns the row count."""
    with open_table(table, path, contract) as grown:
        for frame in frames:
            grown.add(frame)
    return grown.rows


@contextmanager
def open_table(table: Table, path: Path, contract: UnitContract | None = None) -> Iterator["TableWriter"]:
    """Yield a table that frames can be added to; it is moved to `path` if the block succeeds.

    One row group is in memory at a time, and how the rows were cut into frames leaves no trace.
    """
    metadata = {"alignslm.table": table.name, "alignslm.version": str(table.version)}
    if contract is not None:
        metadata["alignslm.unit_contract"] = contract.model_dump_json()
    schema = pl.DataFrame(schema=dict(table.schema)).to_arrow().schema.with_metadata(metadata)
    with atomic_write(path) as partial, pq.ParquetWriter(partial, schema, **PARQUET_OPTIONS) as writer:
        grown = TableWriter(writer, table, path)
        yield grown
        grown.finish()


class TableWriter:
    """A table while it is written. `rows` counts the added rows."""

    def __init__(self, writer: pq.ParquetWriter, table: Table, path: Path) -> None:
        self.rows = 0
        self._held: list[pl.DataFrame] = []
        self._last: tuple[object, ...] | None = None
        self._writer, self._table, self._path = writer, table, path

    def add(self, frame: pl.DataFrame) -> None:
        """Add rows with keys after those of all rows before. Raises TableError."""
        self._held.append(conform(frame, self._table))
        self.rows += len(frame)
        while sum(map(len, self._held)) >= GROUP_ROWS:
            joined = pl.concat(self._held)
            self._write(joined[:GROUP_ROWS])
            self._held = [joined[GROUP_ROWS:]]

    def finish(self) -> None:
        """Write the remaining rows. A table without rows gets one empty group."""
        rest = pl.concat(self._held) if self._held else pl.DataFrame(schema=dict(self._table.schema))
        if len(rest) or not self.rows:
            self._write(rest)

    def _write(self, group: pl.DataFrame) -> None:
        verify(group, self._table, where=str(self._path))
        self._last = require_later(group, self._table, self._last, where=str(self._path))
        # Chunks show in the pages of the file, and come from how rows arrived.
        self._writer.write_table(group.to_arrow().combine_chunks().cast(self._writer.schema))


def rechunk(frames: Iterable[pl.DataFrame], rows: int) -> Iterator[pl.DataFrame]:
    """Yield the same rows in frames of exactly `rows` rows (the last may have fewer), for any input frames."""
    held: list[pl.DataFrame] = []
    for frame in frames:
        held.append(frame)
        while sum(map(len, held)) >= rows:
            joined = pl.concat(held)
            yield joined[:rows]
            held = [joined[rows:]]
    if any(map(len, held)):
        yield pl.concat(held)


def write_shards(
    frames: Iterable[pl.DataFrame],
    table: Table,
    folder: Path,
    contract: UnitContract | None = None,
    *,
    part_rows: int = PART_ROWS,
) -> int:
    """Write frames, already in key order from one to the next, as a folder of parts. Returns the row count.

    Parts have `part_rows` rows for any input frames, so that the shard size of a run, an execution setting,
    leaves no trace. One part is in memory at a time; the folder appears under its name only when complete.
    """
    with replacing_folder(folder) as partial:
        arranged = (conform(frame, table) for frame in frames)
        return _write_parts(rechunk(arranged, part_rows), table, partial, contract, named=folder)


def _write_parts(
    frames: Iterable[pl.DataFrame], table: Table, partial: Path, contract: UnitContract | None, *, named: Path
) -> int:
    rows = 0
    last = None
    for number, frame in enumerate(frames):
        last = require_later(frame, table, last, where=f"{named}: part {number}")
        rows += write_frames([frame], table, partial / f"part-{number:05d}.parquet", contract)
    return rows
