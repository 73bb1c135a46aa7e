"""One system's evaluation read from a folder of artifacts, and what two systems were both measured on."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from alignslm import tables
from alignslm.report.columns import EvalTables, MetricColumn, ReportError, columns_of
from alignslm.statistics import Floats, group_means

Key = tuple[str, str]  # benchmark, metric


class Paired(NamedTuple):
    """Means of two systems on each prompt or item pair that either has: ids (k,) in order, means (k,), NaN: missing."""

    ids: np.ndarray
    left: Floats
    right: Floats

    @property
    def measured(self) -> np.ndarray:
        """Where both have a value, (k,) of bool."""
        return ~np.isnan(self.left) & ~np.isnan(self.right)


def read_columns(artifacts: Path, model: str) -> dict[Key, MetricColumn]:
    """Read artifacts/eval/MODEL; `distinct` and `speech` only where artifacts/samples and artifacts/mos are there.

    Raises ReportError naming the models there are where this one is not among them, TableError for a broken table.
    """
    folder = artifacts / "eval" / model
    if not folder.is_dir():
        found = sorted(path.name for path in (artifacts / "eval").glob("*/"))
        known = f"It has {', '.join(found)}." if found else "It has no eval folder."
        raise ReportError(f"{artifacts} holds no evaluation of {model!r}. {known} Make one with `dvc repro`.")
    transcripts, mos = artifacts / "samples" / model / "transcripts.parquet", artifacts / "mos" / f"{model}.parquet"
    measured = EvalTables(
        judged=tables.read(tables.JUDGED, folder / "judged.parquet"),
        item_scores=tables.read(tables.ITEM_SCORES, folder / "item_scores.parquet"),
        transcripts={model: tables.read(tables.TRANSCRIPTS, transcripts)} if transcripts.exists() else {},
        mos=tables.read(tables.MOS, mos) if mos.exists() else None,
    )
    return columns_of(measured, model)


def comparable(left: MetricColumn, right: MetricColumn) -> bool:
    """Tell whether a difference means something.

    It does under the declared convention: the others are there to be read beside other papers' figures. The share of
    distinct texts falls with their number, so that it is compared between equally many only.
    """
    return "@" not in left.metric and (left.metric != "distinct" or len(left.values) == len(right.values))


def shared_keys(left: Mapping[Key, MetricColumn], right: Mapping[Key, MetricColumn]) -> list[Key]:
    """List what both systems have and what can be compared, in the order of the report."""
    return [key for key in left if key in right and comparable(left[key], right[key])]


def pair(left: MetricColumn, right: MetricColumn) -> Paired:
    """Join two systems' means within a cluster: draws of one prompt in two models are no pairs, their prompt is."""
    (ours, our_means), (theirs, their_means) = (group_means(some.values, some.clusters) for some in (left, right))
    ids = np.union1d(ours, theirs)
    return Paired(ids, _spread(ours, our_means, ids), _spread(theirs, their_means, ids))


def _spread(known: np.ndarray, means: Floats, ids: np.ndarray) -> Floats:
    spread = np.full(len(ids), np.nan)
    spread[np.searchsorted(ids, known)] = means
    return spread
