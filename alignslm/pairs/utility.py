"""One number per continuation, on the judge's 1..5 scale, from the weighted raw metrics."""

from collections.abc import Iterable, Mapping

import numpy as np
import polars as pl

from alignslm.config.feedback import Weights

# Whether more of a metric is better. The judge's score needs no rank: it defines the scale.
HIGHER_IS_BETTER = {"ppl": False, "auto_bleu": False, "num_words": True}


def _measured(scores: pl.DataFrame, metric: str) -> pl.Series:
    """Return the metric of rows in which it was measured: others do not count for ranks."""
    value = pl.col(metric).cast(pl.Float64).fill_nan(None)
    return scores.select(pl.when(pl.col("status") == "ok").then(value).alias(metric)).to_series()


def _used(weights: Weights) -> dict[str, float]:
    return {name: weight for name, weight in weights.model_dump().items() if weight > 0}


def metric_ranks(pool: Iterable[pl.DataFrame], weights: Weights) -> dict[str, np.ndarray]:
    """Return the measured values, sorted, of every metric in use that is ranked; 8 bytes per value."""
    ranked = [name for name in _used(weights) if name in HIGHER_IS_BETTER]
    values: dict[str, list[np.ndarray]] = {name: [np.empty(0)] for name in ranked}
    for scores in pool if ranked else ():
        for name in ranked:
            values[name].append(_measured(scores, name).drop_nulls().to_numpy())
    joined = {name: np.concatenate(values.pop(name)) for name in ranked}
    for column in joined.values():
        column.sort()
    return joined


def _on_scale(scores: pl.DataFrame, metric: str, pool: Mapping[str, np.ndarray]) -> pl.Series:
    """Map a metric to 1 (worst of the pool) .. 5 (best) by its average rank; equal values share one place."""
    value = _measured(scores, metric)
    if metric not in HIGHER_IS_BETTER:
        return value
    others = len(pool[metric]) - 1
    if others < 1:
        return scores.select(pl.when(value.is_not_null()).then(3.0)).to_series()
    below, upto = (np.searchsorted(pool[metric], value.to_numpy(), side) for side in ("left", "right"))
    place = (below + upto - 1) / 2
    place = place if HIGHER_IS_BETTER[metric] else others - place
    return scores.select(pl.when(value.is_not_null()).then(pl.Series(1 + 4 * place / others))).to_series()


def utility(scores: pl.DataFrame, weights: Weights, pool: Mapping[str, np.ndarray] | None = None) -> pl.DataFrame:
    """Add `utility` (1..5, higher better) to a scores table: the weighted mean of the metrics in use.

    `judge_score` enters as it is, so on its own it is exactly the paper's rule and s_c, s_r keep their meaning.
    Every other metric enters by its rank within the round's whole pool: `pool`, from `standings`, or `scores` itself.
    A metric of weight 0 is ignored. Null if a metric in use is null or the status is not ok.
    """
    used = _used(weights)
    pool = metric_ranks([scores], weights) if pool is None else pool
    total = sum(used.values())
    terms = [_on_scale(scores, name, pool) * (weight / total) for name, weight in used.items()]
    added = pl.sum_horizontal([pl.lit(term) for term in terms], ignore_nulls=False).cast(pl.Float64)
    return scores.with_columns(added.alias("utility"))
