"""Every judged continuation as desirable, undesirable or neither: what KTO learns from, whether it is in a pair or not.

The rule is the one of pairs: desirable is what may be chosen, undesirable what may be rejected, under the selector and
the thresholds of the preferences. Limits per prompt and the least margin are about pairs, and are not used.
"""

import polars as pl

from alignslm import tables
from alignslm.config.curriculum import JudgedPreferences
from alignslm.config.feedback import SelectorConfig, ThresholdSelector, Weights
from alignslm.pairs.selection import candidate_pool, conditions
from alignslm.pairs.streaming import Sources
from alignslm.pairs.thresholds import with_quantiles
from alignslm.pairs.utility import utility

DESIRABLE, UNDESIRABLE, NEITHER = "desirable", "undesirable", "neither"
LABELED = ("split", "label", "prompt_units", "units", "finish_reason")


def judged_pool(
    sources: Sources, *, weights: Weights, selector: SelectorConfig, rules: JudgedPreferences
) -> tuple[pl.DataFrame, JudgedPreferences]:
    """Return the scored continuations as selection sees them, with their utility, and the rules that hold."""
    prompts = tables.read(tables.PROMPTS, sources.prompts, ["prompt_id", "split"])
    columns = ["continuation_id", "prompt_id", "finish_reason", "units"]
    drawn = tables.read(tables.CONTINUATIONS, sources.continuations, columns)
    pool = utility(candidate_pool(tables.read(tables.SCORES, sources.scores), drawn, prompts, rules), weights)
    return pool, with_quantiles(rules, selector, pool["utility"])


def label_continuations(
    sources: Sources, *, weights: Weights, selector: ThresholdSelector, rules: JudgedPreferences
) -> pl.DataFrame:
    """Return LABELS: a row per continuation of the train and valid prompts."""
    pool, rules = judged_pool(sources, weights=weights, selector=selector, rules=rules)
    must, may = conditions(selector, rules)
    found = pl.when(*must.values()).then(pl.lit(DESIRABLE)).when(pl.any_horizontal(may.values()))
    label = found.then(pl.lit(UNDESIRABLE)).otherwise(pl.lit(NEITHER))
    return tables.conform(pool.with_columns(label=label), tables.LABELS)


def labeled_continuations(labels: pl.DataFrame, sources: Sources) -> pl.DataFrame:
    """Return split, label, prompt_units, units and finish_reason of what is desirable or undesirable."""
    drawn = tables.read(tables.CONTINUATIONS, sources.continuations, ["continuation_id", "units", "finish_reason"])
    prompts = tables.read(tables.PROMPTS, sources.prompts, ["prompt_id", "units"]).rename({"units": "prompt_units"})
    rows = labels.filter(pl.col("label") != NEITHER).join(drawn, on="continuation_id", maintain_order="left")
    return rows.join(prompts, on="prompt_id", maintain_order="left").select(LABELED)


def unpaired(pairs: pl.DataFrame) -> pl.DataFrame:
    """Return the sides of pairs as `labeled_continuations` does, each once: for preferences without judged samples."""
    sides = [
        pairs.select(
            "split",
            "prompt_units",
            label=pl.lit(label),
            units=f"{side}_units",
            finish_reason=f"{side}_finish_reason",
        )
        for side, label in (("chosen", DESIRABLE), ("rejected", UNDESIRABLE))
    ]
    return pl.concat(sides).select(LABELED).unique(maintain_order=True)
