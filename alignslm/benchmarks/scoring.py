"""Item scores: the log-likelihood of both sides of every pair, and which side the model prefers."""

from collections.abc import Sequence

import polars as pl

from alignslm import tables
from alignslm.benchmarks import BenchmarkError
from alignslm.benchmarks.conventions import Convention
from alignslm.benchmarks.items import paired
from alignslm.config.evaluation import Evaluation
from alignslm.lm.checkpoint import UnitLM
from alignslm.lm.likelihood import LikelihoodRequest, LogLikelihoods, log_likelihoods
from alignslm.lm.positions import named_rows

COLUMNS = ["item_id", "pair_id", "polarity", "type", "subtype", "voice", "band", "length", "context_units", "units"]
"""Of the items table: what scoring needs. The audio is left on disk."""
SIDES = ("positive", "negative")


def score_items(
    items: pl.DataFrame, lm: UnitLM, config: Evaluation, *, benchmark: str, model: str, batch_size: int
) -> pl.DataFrame:
    """Score every pair of a benchmark in every voice: rows of the item scores table.

    The reported log-likelihoods follow `config`; sums and counts of context, ending and end of sequence stand beside
    them, so that every other convention can be read off. A side without a scored unit is null and counted missing.
    Raises BenchmarkError if `config.include_eos` is true and the model has no EOS token.
    """
    has_eos = lm.vocabulary.eos_id is not None
    if config.include_eos and not has_eos:
        raise BenchmarkError(f"evaluation.include_eos is true, but model {model!r} has no EOS token. Set it to false.")
    pairs = paired(items)
    declared = Convention(config.likelihood, config.reduction, config.include_eos)
    parts = _parts(pairs, lm, batch_size=batch_size)
    scores = pairs.with_columns(
        pl.lit(benchmark).alias("benchmark"), pl.lit(model).alias("model"), *parts
    ).with_columns(
        *(declared.log_likelihood(side).alias(f"{side}_logprob") for side in SIDES),
        *(declared.units(side).alias(f"{side}_units") for side in SIDES),
        declared.correct().alias("correct"),
    )
    return tables.conform(scores, tables.ITEM_SCORES)


def _parts(pairs: pl.DataFrame, lm: UnitLM, *, batch_size: int) -> list[pl.Series]:
    """Return sums and counts of each side's context, ending and end of sequence; what both share is read once."""
    has_eos = lm.vocabulary.eos_id is not None
    items = [
        LikelihoodRequest(context, units, has_eos)
        for suffix in ("", "_negative")  # in the order of SIDES
        for context, units in pairs.select(f"context_units{suffix}", f"units{suffix}").iter_rows()
    ]
    with named_rows([*pairs["pair_id"]] * len(SIDES)):
        found = log_likelihoods(lm, items, batch_size=batch_size)
    return [
        part
        for place, side in enumerate(SIDES)
        for part in _columns(side, found[place * len(pairs) :][: len(pairs)], has_eos=has_eos)
    ]


def _columns(side: str, found: Sequence[LogLikelihoods], *, has_eos: bool) -> list[pl.Series]:
    endings = [nats.target[:-1] if has_eos else nats.target for nats in found]
    return [
        pl.Series(f"{side}_context_logprob", [float(nats.context.sum()) for nats in found], pl.Float64),
        pl.Series(f"{side}_context_units", [len(nats.context) for nats in found], pl.Int32),
        pl.Series(f"{side}_target_logprob", [float(ending.sum()) for ending in endings], pl.Float64),
        pl.Series(f"{side}_target_units", [len(ending) for ending in endings], pl.Int32),
        pl.Series(f"{side}_eos_logprob", [_last(nats) if has_eos else None for nats in found], pl.Float64),
    ]


def _last(nats: LogLikelihoods) -> float:
    return float(nats.target[-1])
