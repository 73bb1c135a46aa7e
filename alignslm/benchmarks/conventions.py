"""Likelihood conventions: which units of an item are counted, and whether their log-likelihood is summed or averaged.

Papers differ in all of it and call each result accuracy. The item scores keep the parts, so that every convention can
be read off them; these are the expressions that do so.
"""

from collections.abc import Iterator
from typing import Literal, NamedTuple

import polars as pl

LIKELIHOODS: tuple[Literal["conditional", "joint"], ...] = ("conditional", "joint")
NORMALISATIONS: tuple[Literal["mean", "sum"], ...] = ("mean", "sum")


OOV = "oov"
BANDS = {OOV: 0, "1-5": 1, "6-20": 5, "21-100": 20, ">100": 100}
"""Bands by the least count in them; `oov`: never counted. The labels are those of the official scorer, whose bins are
half open ([1, 5), [5, 20), [20, 100)): a word counted 5, 20 or 100 times is in the next band."""


class Convention(NamedTuple):
    """`likelihood`: conditional on the story so far, or joint with it; `eos`: the end of sequence counts as a unit."""

    likelihood: Literal["conditional", "joint"]
    reduction: Literal["mean", "sum"]
    eos: bool

    def name(self, *, has_context: bool) -> str:
        """Return `conditional-mean`, `joint-sum-eos` ...; of items without context, `mean`, `sum-eos` ..."""
        parts = [self.likelihood] if has_context else []
        return "-".join([*parts, self.reduction, *(["eos"] if self.eos else [])])

    def units(self, side: str) -> pl.Expr:
        """Return how many units of `side` (positive, negative) count."""
        counted = pl.col(f"{side}_target_units")
        if self.likelihood == "joint":
            counted += pl.col(f"{side}_context_units")
        return (counted + 1 if self.eos else counted).cast(pl.Int32)

    def log_likelihood(self, side: str) -> pl.Expr:
        """Return the log-likelihood of `side`; null where nothing counts, or a part of it is NaN or not measured."""
        total = pl.col(f"{side}_target_logprob").fill_nan(None)
        if self.likelihood == "joint":
            total += pl.col(f"{side}_context_logprob").fill_nan(None)
        if self.eos:
            total += pl.col(f"{side}_eos_logprob").fill_nan(None)
        units = self.units(side)
        value = total / units if self.reduction == "mean" else total
        return pl.when(units > 0).then(value)

    def correct(self) -> pl.Expr:
        """Return which side is preferred under this convention, as `preferred`."""
        return preferred(self.log_likelihood("positive"), self.log_likelihood("negative"))


def preferred(positive: pl.Expr, negative: pl.Expr) -> pl.Expr:
    """Return 1 where the positive is likelier, 0.5 for a tie, 0 otherwise, null where either is null or NaN.

    Compared naively, NaN would pass for a wrong answer.
    """
    left, right = positive.fill_nan(None), negative.fill_nan(None)
    return pl.when(left > right).then(1.0).when(left == right).then(0.5).when(left < right).then(0.0)


def conventions_of(scores: pl.DataFrame) -> Iterator[tuple[str, Convention]]:
    """Yield (name, convention) of all conventions that these rows of item scores tell apart."""
    has_context = bool((scores["positive_context_units"] + scores["negative_context_units"] > 0).any())
    has_eos = scores["positive_eos_logprob"].is_not_null().any()
    for likelihood in LIKELIHOODS if has_context else LIKELIHOODS[:1]:
        for reduction in NORMALISATIONS:
            for eos in (False, True) if has_eos else (False,):
                convention = Convention(likelihood, reduction, eos)
                yield convention.name(has_context=has_context), convention


def frequency_band(frequency: pl.Expr) -> pl.Expr:
    """Return the label of a count's band, null for null."""
    label = pl.lit(None, pl.String)
    for name, least in BANDS.items():
        label = pl.when(frequency >= least).then(pl.lit(name)).otherwise(label)
    return label
