"""Turn scored continuations into preference pairs, and give the reason for every prompt without one.

A train or valid prompt that had continuations has either pairs or one row in SKIPPED_PROMPTS with one of `REASONS`;
continuations of other splits are ignored. Rules (paper, AI feedback):

* chosen: judged, some units, at least `min_words` words, auto-BLEU measured and at most `max_auto_bleu`;
* `thresholds`: chosen at utility >= `min_chosen_score`; rejected at utility <= `max_rejected_score`, or vetoed by
  auto-BLEU, or nothing said; the best `max_chosen_per_prompt` against the worst `max_rejected_per_prompt`;
* `best-worst`: the best against the worst of all, thresholds unused;
* no pair of identical unit sequences, none below `min_margin` (see `_fits_margin`).

A judgement that failed is not measured: such a continuation is neither. Ties go to the smaller continuation_id.
"""

import polars as pl

from alignslm.config.curriculum import JudgedPreferences
from alignslm.config.feedback import BestWorstSelector, ThresholdSelector
from alignslm.pairs.own import OwnSelector, Selector
from alignslm.tables import PAIRS, SKIPPED_PROMPTS, conform

NOT_SCORED = "no continuation scored"
NO_CANDIDATE = "neither chosen nor rejected candidate"
NO_CHOSEN = "no chosen candidate"
NO_REJECTED = "no rejected candidate"
IDENTICAL = "only identical units"
MARGIN = "margin too small"
REASONS = (NOT_SCORED, NO_CANDIDATE, NO_CHOSEN, NO_REJECTED, IDENTICAL, MARGIN)

SPLITS = ("train", "valid")
SIDES = ("chosen", "rejected")


def select_pairs(
    pool: pl.DataFrame,
    continuations: pl.DataFrame,
    prompts: pl.DataFrame,
    *,
    selector: Selector,
    round: JudgedPreferences,  # noqa: A002 - the paper's noun
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return PAIRS and SKIPPED_PROMPTS of `pool`, which has `utility` and all continuations of its prompts.

    Prompts do not know of each other: a pool may be cut between any two of them.
    """
    chosen, rejected = _candidates(pool, selector, round)
    matched = _with_units(chosen.join(rejected, on="prompt_id"), continuations).with_columns(
        differ=pl.col("chosen_units") != pl.col("rejected_units"), fits=_fits_margin(selector, round)
    )
    pairs = _pairs_table(matched.filter("differ", "fits"), prompts)
    return pairs, _skipped_prompts_table(pool, chosen, rejected, matched)


def reasons_of(skipped_prompts: pl.DataFrame) -> dict[str, int]:
    """Count the reasons of the train split."""
    return dict(skipped_prompts.filter(split="train")["reason"].value_counts().iter_rows())


def candidate_pool(
    scores: pl.DataFrame, continuations: pl.DataFrame, prompts: pl.DataFrame, rules: JudgedPreferences
) -> pl.DataFrame:
    """Join the columns that selection reads, one row per continuation of a train or valid prompt, without units."""
    splits = prompts.select("prompt_id", "split").filter(pl.col("split").is_in(SPLITS))
    drawn = continuations.select("continuation_id", "prompt_id", "finish_reason", num_units=pl.col("units").list.len())
    pool = drawn.join(splits, on="prompt_id").join(scores.drop("prompt_id", "sample_index"), on="continuation_id")
    judged = pl.col("status") == "ok"
    vetoed = judged & (pl.col("auto_bleu").fill_nan(None) > rules.max_auto_bleu).fill_null(value=False)
    return pool.with_columns(vetoed=vetoed)


def conditions(
    selector: ThresholdSelector | BestWorstSelector, rules: JudgedPreferences
) -> tuple[dict[str, pl.Expr], dict[str, pl.Expr]]:
    """Return the conditions of being chosen (all must hold) and of being rejected (one suffices).

    Each is named by its condition, with the row's value in braces: `auto_bleu {auto_bleu} <= 0.1`.
    """
    value, bleu = pl.col("utility"), pl.col("auto_bleu").fill_nan(None)
    chosen = {
        "has a utility": value.is_not_null(),
        f"auto_bleu {{auto_bleu}} <= {rules.max_auto_bleu:g}": bleu <= rules.max_auto_bleu,
        f"num_words {{num_words}} >= {selector.min_words}": pl.col("num_words") >= selector.min_words,
        "num_units {num_units} > 0": pl.col("num_units") > 0,
    }
    rejected = {"nothing was said": pl.col("status") == "empty"}
    if isinstance(selector, BestWorstSelector):
        return chosen, rejected | {"has a utility": value.is_not_null()}
    chosen[f"utility {{utility}} >= min_chosen_score {rules.min_chosen_score:g}"] = value >= rules.min_chosen_score
    rejected[f"auto_bleu {{auto_bleu}} > {rules.max_auto_bleu:g}"] = pl.col("vetoed")
    rejected[f"utility {{utility}} <= max_rejected_score {rules.max_rejected_score:g}"] = (
        value <= rules.max_rejected_score
    )
    return chosen, rejected


def _candidates(pool: pl.DataFrame, selector: Selector, rules: JudgedPreferences) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return chosen and rejected candidates, cut to the best and worst: prompt_id, <side>_id, <side>_utility, ..."""
    match selector:
        case ThresholdSelector():
            must, may = conditions(selector, rules)
            chosen = _first(pool.filter(*must.values()), selector.max_chosen_per_prompt, "chosen")
            rejected = _first(
                pool.filter(pl.any_horizontal(may.values())), selector.max_rejected_per_prompt, "rejected"
            )
        case BestWorstSelector():
            must, may = conditions(selector, rules)
            chosen = _first(pool.filter(*must.values()), 1, "chosen")
            others = pool.join(chosen, left_on="continuation_id", right_on="chosen_id", how="anti")
            rejected = _first(others.filter(pl.any_horizontal(may.values())), 1, "rejected")
        case OwnSelector():
            picked = selector.candidates(pool, rules)
            chosen, rejected = (
                _first(side, len(side), name) for side, name in zip(picked, ("chosen", "rejected"), strict=True)
            )
        case _:
            raise TypeError(f"{selector.object} was not loaded: use alignslm.pairs.own.load_selector")
    return chosen, rejected


def _first(candidates: pl.DataFrame, limit: int, side: str) -> pl.DataFrame:
    """Keep a prompt's best (chosen) or worst (rejected) candidates. No utility (nothing said) counts as worst."""
    best = side == "chosen"
    order = candidates.sort("prompt_id", "utility", "continuation_id", descending=[False, best, False], nulls_last=best)
    kept = order.group_by("prompt_id", maintain_order=True).head(limit)
    return kept.select(
        "prompt_id",
        pl.col("continuation_id").alias(f"{side}_id"),
        pl.col("finish_reason").alias(f"{side}_finish_reason"),
        pl.col("utility").alias(f"{side}_utility"),
        pl.col("vetoed").alias(f"{side}_vetoed"),
    )


def _with_units(matched: pl.DataFrame, continuations: pl.DataFrame) -> pl.DataFrame:
    for side in SIDES:
        units = continuations.select(
            pl.col("continuation_id").alias(f"{side}_id"), pl.col("units").alias(f"{side}_units")
        )
        matched = matched.join(units, on=f"{side}_id", how="left")
    return matched.with_columns(margin=pl.col("chosen_utility") - pl.col("rejected_utility"))


def _fits_margin(selector: Selector, rules: JudgedPreferences) -> pl.Expr:
    """Return whether chosen beats rejected by enough.

    `min_margin` is not in the paper. A continuation in which nothing was said has no utility, hence no
    margin, and passes. Under `thresholds` a vetoed continuation passes as well: the paper rejects it "whatever
    its score", so its score, which may even exceed the chosen one's, cannot be held against the pair. Under
    `best-worst` the veto guards only the chosen side and the worst is worst by utility, so the margin holds.
    Equal utility never makes a preference, even at min_margin 0.
    """
    wide = ((pl.col("margin") >= rules.min_margin) & (pl.col("margin") > 0)).fill_null(value=True)
    return wide | pl.col("rejected_vetoed") if isinstance(selector, ThresholdSelector) else wide


def _pairs_table(matched: pl.DataFrame, prompts: pl.DataFrame) -> pl.DataFrame:
    context = prompts.select("prompt_id", "split", pl.col("units").alias("prompt_units"))
    pair_id = pl.concat_str("chosen_id", "rejected_id", separator="-")
    return conform(matched.join(context, on="prompt_id", how="left").with_columns(pair_id=pair_id), PAIRS)


def _skipped_prompts_table(
    pool: pl.DataFrame, chosen: pl.DataFrame, rejected: pl.DataFrame, matched: pl.DataFrame
) -> pl.DataFrame:
    """Name the first obstacle of every prompt without a pair."""
    measured = (pl.col("utility").is_not_null() | pl.col("vetoed") | (pl.col("status") == "empty")).any()
    outcome = matched.group_by("prompt_id").agg(
        differ=pl.col("differ").any(), paired=(pl.col("differ") & pl.col("fits")).any()
    )
    prompts = (
        pool.group_by("prompt_id", "split")
        .agg(measured=measured)
        .with_columns(
            has_chosen=pl.col("prompt_id").is_in(chosen["prompt_id"].unique().implode()),
            has_rejected=pl.col("prompt_id").is_in(rejected["prompt_id"].unique().implode()),
        )
        .join(outcome, on="prompt_id", how="left")
        .filter(~pl.col("paired").fill_null(value=False))
    )
    reason = (
        pl.when(~pl.col("measured"))
        .then(pl.lit(NOT_SCORED))
        .when(~pl.col("has_chosen") & ~pl.col("has_rejected"))
        .then(pl.lit(NO_CANDIDATE))
        .when(~pl.col("has_chosen"))
        .then(pl.lit(NO_CHOSEN))
        .when(~pl.col("has_rejected"))
        .then(pl.lit(NO_REJECTED))
        .when(~pl.col("differ"))
        .then(pl.lit(IDENTICAL))
        .otherwise(pl.lit(MARGIN))
    )
    return conform(prompts.with_columns(reason=reason), SKIPPED_PROMPTS)
