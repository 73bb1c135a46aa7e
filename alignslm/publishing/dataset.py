"""The files of a dataset repository: pairs, skipped prompts and optional tables, each a subset in the viewer."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import polars as pl
from datasets import Features

from alignslm import tables
from alignslm.config.publishing import DatasetRepository
from alignslm.publishing.model import Bundle
from alignslm.publishing.pairs import (
    SPLITS,
    Sources,
    continuation_features,
    continuation_rows,
    continuations_in,
    pair_features,
    pair_rows,
)
from alignslm.publishing.parquet import SHARD_ROWS, features_of, write_split

EVALUATION = ("item_scores", "judged")


class Subset(NamedTuple):
    """One subset of a dataset: its name, and its splits with their files and rows."""

    name: str
    splits: dict[str, list[Path]]
    num_rows: dict[str, int]

    @property
    def files(self) -> Bundle:
        """Name in the repository -> file."""
        return {f"{self.name}/{path.name}": path for paths in self.splits.values() for path in paths}


def subsets_of(
    config: DatasetRepository, sources: Sources, work: Path, *, evaluated: Path, evaluated_on: str
) -> list[Subset]:
    """Write the chosen subsets to `work` and return them; pairs are first because the first one opens by default.

    `evaluated` is the folder of the round's evaluation, `evaluated_on` the split of its prompts.
    """
    written = [_pairs(sources, work / "pairs"), _rejections(sources, work / "skipped_prompts")]
    if config.continuations:
        written.append(_continuations(sources, work / "continuations"))
    if config.evaluation:
        written += [_evaluation(kind, evaluated, work / kind, split=evaluated_on) for kind in EVALUATION]
    return [subset for subset in written if subset.splits]


def _pairs(sources: Sources, folder: Path) -> Subset:
    counts = {shown: int((sources.pairs["split"] == split).sum()) for split, shown in SPLITS.items()}
    rows = {shown: pair_rows(sources, split) for split, shown in SPLITS.items()}
    return _spoken("pairs", rows, counts, pair_features(sources), folder)


def _continuations(sources: Sources, folder: Path) -> Subset:
    counts = {shown: len(continuations_in(sources, split)) for split, shown in SPLITS.items()}
    rows = {shown: continuation_rows(sources, split) for split, shown in SPLITS.items()}
    return _spoken("continuations", rows, counts, continuation_features(sources), folder)


def _spoken(
    name: str, rows: Mapping[str, Iterator[pl.DataFrame]], counts: dict[str, int], form: Features, folder: Path
) -> Subset:
    """Write frames with audio, for splits with rows."""
    splits = {
        split: write_split(rows[split], form, folder, split=split, num_shards=shards(count))
        for split, count in counts.items()
        if count
    }
    return Subset(name, splits, counts)


def _rejections(sources: Sources, folder: Path) -> Subset:
    texts = sources.prompts.select("prompt_id", "prompt_text")
    rows = sources.skipped_prompts.join(texts, on="prompt_id", how="left", maintain_order="left")
    found = {shown: rows.filter(pl.col("split") == split).drop("split") for split, shown in SPLITS.items()}
    return _plain("skipped_prompts", found, folder)


def _evaluation(kind: str, evaluated: Path, folder: Path, *, split: str) -> Subset:
    table = {"item_scores": tables.ITEM_SCORES, "judged": tables.CONTINUATION_METRICS}[kind]
    return _plain(kind, {split: tables.read(table, evaluated / f"{kind}.parquet")}, folder)


def _plain(name: str, frames: dict[str, pl.DataFrame], folder: Path) -> Subset:
    """Write frames without audio, for splits with rows."""
    splits = {
        split: write_split([frame], features_of(frame), folder, split=split, num_shards=1)
        for split, frame in frames.items()
        if len(frame)
    }
    return Subset(name, splits, {split: len(frame) for split, frame in frames.items()})


def shards(num_rows: int) -> int:
    """Return the number of audio shards for a number of rows."""
    return -(-num_rows // SHARD_ROWS)
