"""One system's evaluation read from an artifacts folder, and what two systems were both measured on."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from alignslm import tables
from alignslm.artifacts import Artifacts
from alignslm.figures.columns import EvalTables, MetricColumn, ReportError, columns_of
from alignslm.statistics import Estimate, Floats, Scale, group_means, holm, paired_difference

Key = tuple[str, str]  # benchmark, metric


class Paired(NamedTuple):
    """Means of two systems per prompt or item pair that either has: ids (k,) in order, means (k,), NaN if missing."""

    ids: np.ndarray
    left: Floats
    right: Floats
    scale: Scale | None = None

    @property
    def measured(self) -> np.ndarray:
        """Whether both have a value, (k,) bool."""
        return ~np.isnan(self.left) & ~np.isnan(self.right)

    @property
    def difference(self) -> Estimate:
        """The mean of left - right."""
        return paired_difference(self.left, self.right, self.ids, scale=self.scale)


class Difference(NamedTuple):
    """One difference of two systems: the pairs, what they give, and p corrected for all tested with it."""

    both: Paired
    found: Estimate
    p_corrected: float | None


def differences(left: Mapping[Key, MetricColumn], right: Mapping[Key, MetricColumn]) -> dict[Key, Difference]:
    """Return left - right in every metric that both have and that is comparable, in the order of the report.

    p is corrected (Holm) over all metrics of the two systems, and apart from these over the parts of benchmarks, of
    which some have dozens.
    """
    both = {key: pair(left[key], right[key]) for key in shared_keys(left, right)}
    found = {key: some.difference for key, some in both.items()}
    corrected: dict[Key, float | None] = {}
    for parts in (False, True):
        together = [key for key in both if ("/" in key[1]) is parts]
        corrected |= zip(together, holm([found[key].p for key in together]), strict=True)
    return {key: Difference(both[key], found[key], corrected[key]) for key in both}


def read_columns(artifacts: Path, model: str) -> dict[Key, MetricColumn]:
    """Read artifacts/eval/MODEL; `unique_ratio` and `speech` only if the tables of `absent_tables` exist.

    Raises ReportError, which names the evaluated systems, if this one is not among them; TableError for a broken table.
    """
    made = Artifacts(artifacts)
    if not (made.evaluations / model).is_dir():
        found = sorted(path.name for path in made.evaluations.glob("*/"))
        known = f"It has {', '.join(found)}." if found else "It has no eval folder."
        raise ReportError(f"{artifacts} has no evaluation of {model!r}. {known} Run `dvc repro`.")
    transcripts, mos = made.sample(model).transcripts, made.mos_of(model)
    measured = EvalTables(
        judged=tables.read(tables.CONTINUATION_METRICS, made.judged(model)),
        item_scores=tables.read(tables.ITEM_SCORES, made.item_scores(model)),
        transcripts={model: tables.read(tables.TRANSCRIPTS, transcripts)} if transcripts.exists() else {},
        mos=tables.read(tables.MOS, mos) if mos.exists() else None,
    )
    return columns_of(measured, model)


def absent_tables(artifacts: Path, model: str) -> list[Path]:
    """List the tables of a system that a comparison can do without, and that are not here."""
    made = Artifacts(artifacts)
    return [path for path in (made.sample(model).transcripts, made.mos_of(model)) if not path.exists()]


def comparable(left: MetricColumn, right: MetricColumn) -> bool:
    """Return whether the difference of two columns is meaningful.

    Only the declared likelihood convention is compared: the others are for reading next to other papers' figures. The
    ratio of unique texts falls with their number, so it is only compared between equal numbers.
    """
    return "@" not in left.metric and (left.metric != "unique_ratio" or len(left.values) == len(right.values))


def shared_keys(left: Mapping[Key, MetricColumn], right: Mapping[Key, MetricColumn]) -> list[Key]:
    """List the metrics that both systems have and that are comparable, in the order of the report."""
    return [key for key in left if key in right and comparable(left[key], right[key])]


def pair(left: MetricColumn, right: MetricColumn) -> Paired:
    """Join two systems' means per cluster: they are paired by prompt, not by continuation."""
    (left_ids, left_means), (right_ids, right_means) = (
        group_means(some.values, some.clusters) for some in (left, right)
    )
    ids = np.union1d(left_ids, right_ids)
    return Paired(ids, _spread(left_ids, left_means, ids), _spread(right_ids, right_means, ids), left.scale)


def _spread(known: np.ndarray, means: Floats, ids: np.ndarray) -> Floats:
    spread = np.full(len(ids), np.nan)
    spread[np.searchsorted(ids, known)] = means
    return spread
