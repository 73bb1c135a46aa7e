"""Item scores: the log-likelihood of both sides of every pair, and which side the model prefers."""

import math
from collections.abc import Sequence

import polars as pl

from alignslm.benchmarks.items import paired
from alignslm.config.evaluation import Evaluation
from alignslm.lm.checkpoint import UnitLm
from alignslm.lm.likelihood import Scored, unit_log_likelihoods


def preferred(positive_nats: float | None, negative_nats: float | None) -> float | None:
    """Return 1 where the positive is likelier, 0.5 for a tie, 0 otherwise; None where either is not measured.

    NaN counts as not measured: compared naively it would pass for a wrong answer.
    """
    if positive_nats is None or negative_nats is None or math.isnan(positive_nats) or math.isnan(negative_nats):
        return None
    return 0.5 + 0.5 * ((positive_nats > negative_nats) - (positive_nats < negative_nats))


def _item(context: Sequence[int], units: Sequence[int], config: Evaluation) -> Scored:
    if config.context == "given":
        return Scored(context, units, config.score_eos)
    return Scored([], [*context, *units], config.score_eos)


def score_items(
    items: pl.DataFrame, lm: UnitLm, config: Evaluation, *, benchmark: str, model: str, batch_rows: int
) -> pl.DataFrame:
    """Score every pair of a benchmark: rows of the item scores table.

    Log-likelihoods are summed or averaged over scored units as `config.normalisation` says; counts of scored units
    stand beside them, so either can be recomputed. A side without a scored unit is null and counted missing.
    """
    pairs = paired(items)
    sides = []
    for suffix in ("", "_negative"):
        rows = pairs.select(f"context_units{suffix}", f"units{suffix}").iter_rows()
        scored = [_item(context, units, config) for context, units in rows]
        nats = unit_log_likelihoods(lm, scored, batch_rows=batch_rows)
        reduce = (lambda a: float(a.mean())) if config.normalisation == "mean" else (lambda a: float(a.sum()))
        sides.append([(reduce(values) if len(values) else None, len(values)) for values in nats])
    positive, negative = sides
    return pairs.select(
        pl.lit(benchmark).alias("benchmark"),
        "pair_id",
        pl.lit(model).alias("model"),
        "subtype",
        "voice",
        pl.Series("positive_nats", [nats for nats, _ in positive], pl.Float64),
        pl.Series("negative_nats", [nats for nats, _ in negative], pl.Float64),
        pl.Series("positive_units", [count for _, count in positive], pl.Int32),
        pl.Series("negative_units", [count for _, count in negative], pl.Int32),
        pl.Series("correct", [preferred(p, n) for (p, _), (n, _) in zip(positive, negative, strict=True)], pl.Float64),
    )
