"""Why a continuation was chosen, rejected or neither: the selection rule read aloud for one row."""

from pathlib import Path

import polars as pl

from alignslm import tables
from alignslm.config.curriculum import JudgedPreferences
from alignslm.config.experiment import Experiment
from alignslm.config.feedback import SelectorConfig, ThresholdSelector
from alignslm.config.own_code import PythonSelectorConfig
from alignslm.pairs.utility import utility

SPLITS = ("train", "valid")


def rule_facts(continuation_id: str, name: str, folder: Path, experiment: Experiment) -> dict[str, object]:
    """Return utility, the checks of both sides, and what came of it, for a continuation of round `name`.

    The outcome is read from the tables of pairs and rejections; utility and checks follow params.yaml as it is now.
    """
    rules = experiment.params.preferences[name]
    row = _judged_pool(name, folder, experiment).filter(pl.col("continuation_id") == continuation_id)
    facts: dict[str, object] = {}
    if len(row):
        values = row.row(0, named=True)
        facts = {
            "utility": values["utility"],
            "may be chosen": _read_aloud(choosable(values, experiment.selector, rules)),
            "may be rejected": _read_aloud(rejectable(values, experiment.selector, rules)),
        }
    return facts | {"outcome": _outcome(continuation_id, name, folder)}


def _judged_pool(name: str, folder: Path, experiment: Experiment) -> pl.DataFrame:
    """Return the round's scored continuations of train and valid prompts with their utility and number of units."""
    prompts = tables.read(tables.PROMPTS, folder / "prompts.parquet", ["prompt_id", "split"])
    drawn = tables.read(
        tables.CONTINUATIONS, folder / "continuations" / f"{name}.parquet", ["continuation_id", "units"]
    )
    scores = tables.read(tables.SCORES, folder / "scores" / f"{name}.parquet")
    pool = scores.join(prompts.filter(pl.col("split").is_in(SPLITS)), on="prompt_id")
    pool = pool.join(
        drawn.select("continuation_id", num_units=pl.col("units").list.len()), on="continuation_id", validate="1:1"
    )
    return utility(pool, experiment.params.weights)


def choosable(row: dict[str, object], selector: SelectorConfig, rules: JudgedPreferences) -> list[tuple[bool, str]]:
    """Return what must hold for a continuation to be chosen, each with whether it does."""
    if isinstance(selector, PythonSelectorConfig):
        return [(True, f"{selector.object} decides")]
    value, bleu = _number(row["utility"]), _number(row["auto_bleu"])
    words, units = _number(row["num_words"]) or 0, _number(row["num_units"]) or 0
    checks = [
        (value is not None, "has a utility"),
        (bleu is not None and bleu <= rules.max_auto_bleu, f"auto_bleu {_said(bleu)} <= {rules.max_auto_bleu:g}"),
        (words >= selector.min_words, f"num_words {words:g} >= {selector.min_words}"),
        (units > 0, f"num_units {units:g} > 0"),
    ]
    if isinstance(selector, ThresholdSelector):
        high = value is not None and value >= rules.min_chosen_score
        checks.append((high, f"utility {_said(value)} >= min_chosen_score {rules.min_chosen_score:g}"))
    return checks


def rejectable(row: dict[str, object], selector: SelectorConfig, rules: JudgedPreferences) -> list[tuple[bool, str]]:
    """Return what each suffices for a continuation to be rejected, with whether it holds."""
    if isinstance(selector, PythonSelectorConfig):
        return [(True, f"{selector.object} decides")]
    value, bleu = _number(row["utility"]), _number(row["auto_bleu"])
    empty = (row["status"] == "empty", "nothing was said")
    if not isinstance(selector, ThresholdSelector):
        return [empty, (value is not None, "has a utility")]
    vetoed = row["status"] == "ok" and bleu is not None and bleu > rules.max_auto_bleu
    low = value is not None and value <= rules.max_rejected_score
    return [
        empty,
        (vetoed, f"auto_bleu {_said(bleu)} > {rules.max_auto_bleu:g}"),
        (low, f"utility {_said(value)} <= max_rejected_score {rules.max_rejected_score:g}"),
    ]


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and value == value else None  # noqa: PLR0124 (NaN is none)


def _said(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _read_aloud(checks: list[tuple[bool, str]]) -> str:
    return "; ".join(f"{'yes' if holds else 'no'}: {what}" for holds, what in checks)


def _outcome(continuation_id: str, name: str, folder: Path) -> str:
    """Return in which pairs a continuation takes part, or why its prompt or it has none."""
    path = folder / "pairs" / f"{name}.parquet"
    if not path.exists():
        return "no pairs yet: run `dvc repro`"
    pairs = tables.read(tables.PAIRS, path, ["pair_id", "prompt_id", "chosen_id", "rejected_id", "margin"])
    for side, other in (("chosen", "rejected"), ("rejected", "chosen")):
        mine = pairs.filter(pl.col(f"{side}_id") == continuation_id)
        if len(mine):
            against = [
                f"{one} (margin {_said(margin)})" for one, margin in mine.select(f"{other}_id", "margin").iter_rows()
            ]
            return f"{side} against {', '.join(against)}"
    return "in no pair: " + _why_not(continuation_id, name, folder, pairs)


def _why_not(continuation_id: str, name: str, folder: Path, pairs: pl.DataFrame) -> str:
    drawn = tables.read(
        tables.CONTINUATIONS, folder / "continuations" / f"{name}.parquet", ["continuation_id", "prompt_id"]
    )
    prompt = drawn.filter(pl.col("continuation_id") == continuation_id)["prompt_id"][0]
    if prompt in set(pairs["prompt_id"]):
        return "other draws of this prompt made its pairs"
    rejected = tables.read(tables.REJECTIONS, folder / "rejections" / f"{name}.parquet")
    reasons = rejected.filter(pl.col("prompt_id") == prompt)["reason"].to_list()
    return f"its prompt gave none ({reasons[0]})" if reasons else "its prompt belongs to no split that gives pairs"
