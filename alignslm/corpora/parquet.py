"""Parquet files with an audio column, as the datasets library and the Hub keep them."""

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatch
from itertools import accumulate
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from alignslm.config.corpora import SPLITS, DatasetSource, ParquetPart
from alignslm.config.sources import FolderSource
from alignslm.corpora.index import Found, frame, spoken
from alignslm.failures import Problem
from alignslm.fetching import expanded, obtain


def find(part: ParquetPart, name: str) -> Found:
    """List the rows of the files that the part's patterns choose, downloading them from the Hub where that is named.

    Only ids, speakers and texts are read here; audio is read later, a row group at a time.
    """
    wanted = [pattern for split in SPLITS for pattern in part.subsets.of(split)]
    root = _root(part.source, wanted)
    frames: list[pl.DataFrame] = []
    problems: list[Problem] = []
    for split in SPLITS:
        for pattern in part.subsets.of(split):
            files = [
                file for file in sorted(root.rglob("*.parquet")) if fnmatch(file.relative_to(root).as_posix(), pattern)
            ]
            if not files:
                problems.append(Problem(f"no parquet file below {root} fits the subset's pattern", pattern))
            for file in files:
                rows, wrong = _rows(file, part, name, root)
                frames.append(rows.with_columns(split=pl.lit(split)))
                problems += [Problem(kind, f"{name}/{where}") for kind, where in wrong]
    return Found(pl.concat([frame([]), *frames]), root, problems)


def _root(source: DatasetSource | FolderSource, patterns: Sequence[str]) -> Path:
    """Return the folder of the files. A local one is not hashed first: every row's audio is, when it is read."""
    return expanded(source) if isinstance(source, FolderSource) else obtain(source, patterns=patterns).path


def _rows(file: Path, part: ParquetPart, name: str, root: Path) -> tuple[pl.DataFrame, list[Problem]]:
    below, columns = file.relative_to(root).as_posix(), part.columns
    try:
        schema = pq.read_schema(file)
        wanted = [column for column in (columns.utterance_id, columns.speaker_id, columns.text) if column is not None]
        absent = [column for column in (*wanted, columns.audio) if column not in schema.names]
        if absent:
            return frame([]), [Problem(f"no column {', '.join(absent)}; columns are {', '.join(schema.names)}", below)]
        if not _is_audio(schema.field(columns.audio).type):
            kind = schema.field(columns.audio).type
            return frame([]), [Problem(f"column {columns.audio} is {kind}, expected a struct of bytes and path", below)]
        listed = pl.from_arrow(pq.read_table(file, columns=wanted))
    except (OSError, pa.ArrowException) as error:
        return frame([]), [Problem(f"unreadable parquet ({error})", below)]
    return _checked(pl.DataFrame(listed), part, name, below)


def _is_audio(kind: pa.DataType) -> bool:
    return pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0


def _checked(listed: pl.DataFrame, part: ParquetPart, name: str, below: str) -> tuple[pl.DataFrame, list[Problem]]:
    columns = part.columns
    text = pl.lit(None, pl.String) if columns.text is None else pl.col(columns.text)
    rows = listed.select(
        pl.col(columns.utterance_id).cast(pl.String).alias("utterance_id"),
        pl.lit(None, pl.String).alias("split"),
        pl.col(columns.speaker_id).cast(pl.String).alias("speaker_id"),
        text.map_elements(spoken, pl.String, skip_nulls=True).alias("text"),
        pl.lit(name).alias("part"),
        pl.lit(below).alias("file"),
        pl.int_range(pl.len(), dtype=pl.Int64).alias("row"),
        pl.lit(None, pl.List(pl.Float64)).alias("word_ends_s"),
    ).with_columns(pl.when(pl.col("text") != "").then(pl.col("text")))
    problems = [
        Problem(f"no {column}", f"{below} row {row}")
        for column in ("utterance_id", "speaker_id", *(["text"] if columns.text else []))
        for row in rows.filter(pl.col(column).is_null())["row"]
    ]
    return rows.drop_nulls(["utterance_id", "speaker_id"]), problems


def audio_bytes(root: Path, file: str, rows: Sequence[int], column: str) -> Mapping[int, bytes | None]:
    """Return the encoded audio of some rows of a file. Each row group that holds one is read once, one at a time."""
    found: dict[int, bytes | None] = {}
    with pq.ParquetFile(root / file) as stored:
        for group, start, wanted in _groups(stored.metadata, sorted(rows)):
            cells = stored.read_row_group(group, columns=[column])[column]
            found |= {row: cells[row - start].as_py()["bytes"] for row in wanted}
    return found


def _groups(metadata: pq.FileMetaData, rows: Sequence[int]) -> Iterator[tuple[int, int, list[int]]]:
    """Yield (row group, its first row, wanted rows in it)."""
    sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    for group, (start, size) in enumerate(zip(accumulate(sizes, initial=0), sizes, strict=False)):
        wanted = [row for row in rows if start <= row < start + size]
        if wanted:
            yield group, start, wanted
