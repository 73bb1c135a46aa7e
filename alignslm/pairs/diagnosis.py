"""Why a round gave no pair, in words that name the keys to change."""

from collections.abc import Mapping

import polars as pl

from alignslm.config.curriculum import JudgedPreferences
from alignslm.config.feedback import QuantileSelector, ThresholdSelector
from alignslm.pairs.own import Selector


class NoPairsError(ValueError):
    """The train split of a round gave no preference pair, so there is nothing to train on."""


def explain_no_pairs(
    pool: pl.DataFrame,
    reasons: Mapping[str, int],
    *,
    selector: Selector,
    round: JudgedPreferences,  # noqa: A002 - the paper's noun
    name: str,
) -> str:
    """Describe the train pool's obstacles, its spread of utility and judge score, and what to change.

    `reasons` counts the prompts of the train split, none of which has a pair; of the pool its split, utility,
    judge_score and status are read.
    """
    train = pool.filter(split="train")
    if train.is_empty():
        return (
            f"round {name}: no train prompt has a continuation ({len(pool)} continuations belong to other splits). "
            "Draw some: raise prompts.train in params.yaml and run `dvc repro`."
        )
    most = sorted(((count, reason) for reason, count in reasons.items()), reverse=True)
    listed = ", ".join(f"{reason}: {count}" for count, reason in most)
    return (
        f"round {name}: none of the {sum(reasons.values())} train prompts gave a pair ({listed}). "
        f"{_spread(train, 'utility')}; {_spread(train, 'judge_score')}. {_advice(train, selector, round, name)}"
    )


def _spread(train: pl.DataFrame, column: str) -> str:
    values = train[column].drop_nulls()
    if values.is_empty():
        return f"{column} was never measured"
    points = ("min", 0.0), ("25 %", 0.25), ("median", 0.5), ("75 %", 0.75), ("max", 1.0)
    shown = ", ".join(f"{label} {values.quantile(q, 'linear'):.2f}" for label, q in points)
    return f"{column} of {len(values)} of {len(train)} continuations: {shown}"


def _unmeasured(statuses: Mapping[str, int]) -> str:
    """Return why no continuation has a utility: the judge's statuses, and what helps against the commonest."""
    cures = {
        "empty": (
            "silence, or speech in which no word was recognized: listen to artifacts/speech, then look at the vocoder "
            "and at the limits of the ASR model (experiments/asr)"
        ),
        "failed": "look at the transcripts and the judge's replies (artifacts/replies)",
        "truncated": "raise max_tokens in the judge's file",
        "too_long": "use a shorter rubric or lower sampling.max_new_units",
        "ok": "set the weight of the metric that this judge does not measure (weights.* in params.yaml) to 0",
    }
    listed = ", ".join(f"{status}: {count}" for status, count in statuses.items())
    status, count = next(iter(statuses.items()))
    return f"{count} of {sum(statuses.values())} continuations are {status} ({listed}): {cures[status]}."


def _advice(train: pl.DataFrame, selector: Selector, rules: JudgedPreferences, name: str) -> str:
    score = train["judge_score"].drop_nulls()
    if train["utility"].drop_nulls().is_empty():
        return _unmeasured(dict(train["status"].value_counts().sort("count", descending=True).iter_rows()))
    if len(score) > 1 and score.min() == score.max():
        return (
            f"The judge scores everything alike ({score[0]:.2f}), so no threshold can help: check that it reads the "
            "transcripts, or choose another `judge` in params.yaml."
        )
    shared = (
        f"preferences.{name}.min_margin (now {rules.min_margin:g}), "
        f"preferences.{name}.max_auto_bleu (now {rules.max_auto_bleu:g})"
    )
    if isinstance(selector, QuantileSelector):
        return (
            f"Bring the selector's chosen_quantile (now {selector.chosen_quantile:g}) and rejected_quantile (now "
            f"{selector.rejected_quantile:g}) closer; then look at {shared} and min_words (now {selector.min_words})."
        )
    if isinstance(selector, ThresholdSelector):
        return (
            f"Lower preferences.{name}.min_chosen_score (now {rules.min_chosen_score:g}) or raise "
            f"preferences.{name}.max_rejected_score (now {rules.max_rejected_score:g}) to reach into that spread; "
            f"then look at {shared} and the selector's min_words (now {selector.min_words})."
        )
    return f"Look at {shared} and the selector's min_words (now {selector.min_words})."
