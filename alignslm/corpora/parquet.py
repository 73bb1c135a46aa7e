"""Corpora as parquet files with an audio column, as the datasets library and the Hub keep them."""

from fnmatch import fnmatch
from pathlib import Path

import polars as pl

from alignslm.config.corpora import SPLITS, ParquetPart, SplitName
from alignslm.config.sources import FolderSource
from alignslm.corpora.index import INDEX, spoken
from alignslm.corpora.layouts import list_subsets
from alignslm.fetching import download, expanded
from alignslm.listing import Listing, index_frame, parquet_columns
from alignslm.user_errors import Problem

NEEDED = ("utterance_id", "speaker_id")


def find(part: ParquetPart, name: str) -> Listing:
    """List the rows of the files that the part's patterns match, downloading them from the Hub if it names a dataset.

    Only ids, speakers and texts are read here; audio is read later, a row group at a time. A local folder is not
    hashed, because the audio of each row is when it is read.
    """
    wanted = [pattern for split in SPLITS for pattern in part.subsets.of(split)]
    source = part.source
    root = expanded(source) if isinstance(source, FolderSource) else download(source, patterns=wanted).path

    def list_pattern(pattern: str, _: SplitName) -> Listing:
        matching = [
            file for file in sorted(root.rglob("*.parquet")) if fnmatch(file.relative_to(root).as_posix(), pattern)
        ]
        found = [_list_file(file, part, root) for file in matching]
        problems = [problem for item in found for problem in item.problems]
        if not matching:
            problems.append(Problem(f"no parquet file below {root} matches the subset's pattern", pattern))
        return Listing(pl.concat([index_frame([], INDEX), *(item.rows for item in found)]), root, problems)

    return list_subsets(part, name, root, list_pattern)


def _list_file(file: Path, part: ParquetPart, root: Path) -> Listing:
    below, columns = file.relative_to(root).as_posix(), part.columns
    wanted = [column for column in (columns.utterance_id, columns.speaker_id, columns.text) if column is not None]
    listed = parquet_columns(file, wanted, sound=[columns.audio])
    if isinstance(listed, str):
        return Listing(index_frame([], INDEX), root, [Problem(listed, below)])
    text = pl.lit(None, pl.String) if columns.text is None else pl.col(columns.text)
    rows = listed.select(
        pl.col(columns.utterance_id).cast(pl.String).alias("utterance_id"),
        pl.lit(None, pl.String).alias("split"),
        pl.col(columns.speaker_id).cast(pl.String).alias("speaker_id"),
        text.map_elements(spoken, pl.String, skip_nulls=True).alias("text"),
        pl.lit(None, pl.String).alias("part"),
        pl.lit(below).alias("file"),
        pl.int_range(pl.len(), dtype=pl.Int64).alias("row"),
        pl.lit(None, pl.List(pl.Float64)).alias("word_ends_s"),
    ).with_columns(pl.when(pl.col("text") != "").then(pl.col("text")))
    problems = [
        Problem(f"no {column}", f"{below} row {row}")
        for column in (*NEEDED, *(["text"] if columns.text else []))
        for row in rows.filter(pl.col(column).is_null())["row"]
    ]
    return Listing(rows.drop_nulls(NEEDED), root, problems)
