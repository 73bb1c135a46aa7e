"""What a round's scores would have given under other rules or fewer continuations, computed from its tables alone."""

import math
from collections.abc import Iterator
from itertools import combinations
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from alignslm.config.curriculum import JudgedPreferences
from alignslm.config.feedback import Weights
from alignslm.config.model import Config
from alignslm.pairs.own import Selector
from alignslm.pairs.selection import candidate_pool, select_pairs
from alignslm.pairs.streaming import Batch
from alignslm.pairs.thresholds import with_quantiles
from alignslm.pairs.utility import utility
from alignslm.statistics import POINTS, RATIO, Interval, Scale, mean_interval

MAX_SUBSETS = 64
HELDOUT = "heldout_score"


class Rules(NamedTuple):
    """What selects pairs: `num_continuations` of the round's continuations per prompt are used."""

    weights: Weights
    selector: Selector
    thresholds: JudgedPreferences
    num_continuations: int


class Mean(Config):
    """A mean with its 95 % interval over prompts; None where there is nothing to average, or too few prompts."""

    value: float | None
    ci95: Interval | None


class PairYield(Config):
    """Pairs of the train prompts: numbers are means over all choices of `num_continuations` continuations.

    Scores and margin are utilities, averaged over pairs. `agreement` is the fraction of pairs whose chosen side the
    held-out judge scores higher (equal: one half), of those that it scored.
    """

    num_continuations: int
    prompts: int
    pairs: float
    prompts_with_pairs: float
    margin: float | None
    chosen: float | None
    rejected: float | None
    agreement: Mean


class BestOf(Config):
    """The best of `num_continuations` by utility: expected scores of it by both judges, and its KL bound in nats."""

    num_continuations: int
    prompts: int
    score: Mean
    heldout_score: Mean
    kl: float


def subsets(available: int, wanted: int) -> list[tuple[int, ...]]:
    """Return all choices of `wanted` out of `available` indices, or MAX_SUBSETS random ones if there are more."""
    if math.comb(available, wanted) <= MAX_SUBSETS:
        return list(combinations(range(available), wanted))
    chance = np.random.default_rng(0)
    return [tuple(sorted(chance.choice(available, wanted, replace=False))) for _ in range(MAX_SUBSETS)]


def scored_pool(batch: Batch, rules: Rules) -> tuple[pl.DataFrame, JudgedPreferences]:
    """Return the whole round's continuations with their utility and `sample_index`, and the thresholds that hold."""
    drawn = batch.continuations.select("continuation_id", "sample_index")
    pool = utility(candidate_pool(batch.scores, batch.continuations, batch.prompts, rules.thresholds), rules.weights)
    thresholds = with_quantiles(rules.thresholds, rules.selector, pool["utility"])
    return pool.join(drawn, on="continuation_id", maintain_order="left"), thresholds


def pair_yield(batch: Batch, rules: Rules, heldout: pl.DataFrame | None) -> PairYield:
    """Return what pairs the rules select; `heldout` has continuation_id and the held-out judge's heldout_score."""
    pool, thresholds = scored_pool(batch, rules)
    train = pool.filter(split="train")
    available = int(train["sample_index"].n_unique())
    chosen = subsets(available, rules.num_continuations)
    pairs = pl.concat(
        select_pairs(
            train.filter(pl.col("sample_index").is_in(some)).drop("sample_index"),
            batch.continuations,
            batch.prompts,
            selector=rules.selector,
            round=thresholds,
        )[0].with_columns(subset=pl.lit(number))
        for number, some in enumerate(chosen)
    )
    means = pairs.select(
        margin=pl.mean("margin"), chosen=pl.mean("chosen_utility"), rejected=pl.mean("rejected_utility")
    )
    return PairYield(
        num_continuations=rules.num_continuations,
        prompts=train["prompt_id"].n_unique(),
        pairs=len(pairs) / len(chosen),
        prompts_with_pairs=pairs.select("subset", "prompt_id").n_unique() / len(chosen),
        **means.row(0, named=True),
        agreement=_agreement(pairs, heldout),
    )


def _agreement(pairs: pl.DataFrame, heldout: pl.DataFrame | None) -> Mean:
    if heldout is None:
        return Mean(value=None, ci95=None)
    sides = (heldout.rename({"continuation_id": f"{side}_id", HELDOUT: side}) for side in ("chosen", "rejected"))
    for side in sides:
        pairs = pairs.join(side, on=side.columns[0], how="left", maintain_order="left")
    wins = pairs.select(((pl.col("chosen") - pl.col("rejected")).sign() + 1) / 2).to_series()
    return _mean(wins.to_numpy(), pairs["prompt_id"].to_numpy(), RATIO)


def best_of(batch: Batch, rules: Rules, heldout: pl.DataFrame | None) -> Iterator[BestOf]:
    """Yield for every N what the best of N by utility scores, averaged over all choices of N of the continuations.

    Exact and unbiased: the i-th best of M is the best of C(M - i, N - 1) of all C(M, N) choices. Ties go to the smaller
    continuation_id, as in selection. Train prompts with an unscored continuation take no part.
    """
    pool = scored_pool(batch, rules)[0].filter(split="train")
    scores = ["judge_score"]
    if heldout is not None:
        pool, scores = pool.join(heldout, on="continuation_id", how="left"), ["judge_score", HELDOUT]
    whole = pl.all_horizontal(pl.col("utility", *scores).is_not_null()).all().over("prompt_id")
    order = pool.filter(whole).sort("prompt_id", "utility", "continuation_id", descending=[False, True, False])
    prompts = order["prompt_id"].unique(maintain_order=True).to_numpy()
    available = len(order) // max(1, len(prompts))
    sorted_scores = [order[name].to_numpy().reshape(len(prompts), available) for name in scores]
    for wanted in range(1, available + 1):
        shares = chance_of_best(available, wanted)
        found = [_mean(values @ shares, prompts, POINTS) for values in sorted_scores]
        yield BestOf(
            num_continuations=wanted,
            prompts=len(prompts),
            score=found[0],
            heldout_score=found[1] if len(found) > 1 else Mean(value=None, ci95=None),
            kl=kl_bound(wanted),
        )


def chance_of_best(available: int, wanted: int) -> npt.NDArray[np.float64]:
    """Return the probability (available,) that the i-th best is the best of `wanted` chosen at random."""
    whole = math.comb(available, wanted)
    return np.array([math.comb(available - place, wanted - 1) / whole for place in range(1, available + 1)])


def kl_bound(num: int) -> float:
    """Return log N - (N - 1) / N: at most this many nats is best-of-N away from sampling (arXiv 2401.01879)."""
    return math.log(num) - (num - 1) / num


def _mean(values: npt.NDArray[np.float64], prompts: npt.NDArray[np.str_], scale: Scale) -> Mean:
    found = mean_interval(values, prompts, scale=scale)
    return Mean(value=found.value, ci95=found.ci95)
