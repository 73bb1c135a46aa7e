"""Why a continuation was chosen, rejected or neither: the selection rule, checked for one row."""

from pathlib import Path

import polars as pl

from alignslm import tables
from alignslm.artifacts import Artifacts
from alignslm.config.curriculum import JudgedPreferences
from alignslm.config.experiment import Experiment
from alignslm.config.own_code import PythonSelectorConfig
from alignslm.pairs.labels import judged_pool
from alignslm.pairs.selection import conditions
from alignslm.pairs.streaming import Sources


def explain_selection(continuation_id: str, name: str, folder: Path, experiment: Experiment) -> dict[str, object]:
    """Return utility, the checks of both sides, and the outcome, for a continuation of round `name`.

    The outcome is read from the pairs and skipped prompts; utility and checks follow params.yaml as it is now.
    """
    params, made = experiment.params, Artifacts(folder)
    sources = Sources(made.table("scores", name), made.table("continuations", name), made.prompts)
    pool, rules = judged_pool(
        sources, weights=params.weights, selector=experiment.selector, rules=params.preferences[name]
    )
    row = pool.filter(pl.col("continuation_id") == continuation_id)
    facts: dict[str, object] = {}
    if len(row):
        facts["utility"] = row["utility"][0]
        facts |= _checks(row, rules, experiment)
    return facts | {"outcome": _outcome(continuation_id, name, folder)}


def _checks(row: pl.DataFrame, rules: JudgedPreferences, experiment: Experiment) -> dict[str, str]:
    """Return each condition of either side with whether it holds, and the value that decided it."""
    selector = experiment.selector
    if isinstance(selector, PythonSelectorConfig):
        return dict.fromkeys(("may be chosen", "may be rejected"), f"{selector.object} decides")
    values = {column: _format(value) for column, value in row.row(0, named=True).items()}
    sides = zip(("may be chosen", "may be rejected"), conditions(selector, rules), strict=True)
    return {
        side: "; ".join(
            f"{'yes' if row.select(holds.fill_null(value=False)).item() else 'no'}: {text.format_map(values)}"
            for text, holds in named.items()
        )
        for side, named in sides
    }


def _format(value: object) -> str:
    """Return a number with four digits, and a dash if it was not measured."""
    return f"{value:.4g}" if isinstance(value, int | float) and value == value else "-"  # noqa: PLR0124 (NaN)


def _outcome(continuation_id: str, name: str, folder: Path) -> str:
    """Return the pairs that contain a continuation, or why there is none."""
    path = Artifacts(folder).table("pairs", name)
    if not path.exists():
        return "no pairs yet: run `dvc repro`"
    pairs = tables.read(tables.PAIRS, path, ["pair_id", "prompt_id", "chosen_id", "rejected_id", "margin"])
    for side, other in (("chosen", "rejected"), ("rejected", "chosen")):
        found = pairs.filter(pl.col(f"{side}_id") == continuation_id)
        if len(found):
            rows = found.select(f"{other}_id", "margin").iter_rows()
            against = [f"{identity} (margin {_format(margin)})" for identity, margin in rows]
            return f"{side} against {', '.join(against)}"
    return "in no pair: " + _no_pair_reason(continuation_id, name, folder, pairs)


def _no_pair_reason(continuation_id: str, name: str, folder: Path, pairs: pl.DataFrame) -> str:
    drawn = tables.read(
        tables.CONTINUATIONS, Artifacts(folder).table("continuations", name), ["continuation_id", "prompt_id"]
    )
    prompt = drawn.filter(pl.col("continuation_id") == continuation_id)["prompt_id"][0]
    if prompt in set(pairs["prompt_id"]):
        return "its pairs are of other continuations of this prompt"
    rejected = tables.read(tables.SKIPPED_PROMPTS, Artifacts(folder).table("skipped_prompts", name))
    reasons = rejected.filter(pl.col("prompt_id") == prompt)["reason"].to_list()
    return f"its prompt has none ({reasons[0]})" if reasons else "its prompt is not in a split with pairs"
