"""One number per continuation, on the judge's 1..5 scale, from the weighted raw metrics."""

import polars as pl

from alignslm.config.feedback import Weights

# Whether more of a metric is better. The judge's score needs no rank: it defines the scale.
HIGHER_IS_BETTER = {"ppl": False, "auto_bleu": False, "num_words": True}


def _measured(metric: str) -> pl.Expr:
    """Return the metric where it was measured: a row without a usable judgement takes no place in the pool."""
    value = pl.col(metric).cast(pl.Float64).fill_nan(None)
    return pl.when(pl.col("status") == "ok").then(value)


def _on_scale(metric: str) -> pl.Expr:
    """Map a metric to 1 (worst of the pool) .. 5 (best) by its average rank; equal values share one place."""
    if metric == "llm_score":
        return _measured(metric)
    value = _measured(metric)
    place = value.rank("average", descending=not HIGHER_IS_BETTER[metric]) - 1
    others = value.count() - 1
    return pl.when(others > 0).then(1 + 4 * place / others).when(value.is_not_null()).then(3.0)


def utility(scores: pl.DataFrame, weights: Weights) -> pl.DataFrame:
    """Add `utility` (1..5, higher better) to a scores table: the weighted mean of the metrics in use.

    `llm_score` enters as it is, so on its own it is exactly the paper's rule and s_c, s_r keep their meaning.
    Every other metric enters by its rank within `scores`, which must therefore be the round's whole pool.
    A metric of weight 0 is not looked at. Null where a metric in use is null or the status is not ok.
    """
    used = {name: weight for name, weight in weights.model_dump().items() if weight > 0}
    total = sum(used.values())
    terms = [_on_scale(name) * (weight / total) for name, weight in used.items()]
    return scores.with_columns(pl.sum_horizontal(terms, ignore_nulls=False).cast(pl.Float64).alias("utility"))
