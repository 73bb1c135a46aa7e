"""Thresholds that are quantiles of a round's own utilities."""

import polars as pl

from alignslm.config.curriculum import JudgedPreferences
from alignslm.config.feedback import QuantileSelector
from alignslm.pairs.own import Selector


def with_quantiles(rules: JudgedPreferences, selector: Selector, utilities: pl.Series) -> JudgedPreferences:
    """Return the rules of a round: for `quantiles`, with thresholds computed from its utilities.

    Continuations of train and valid prompts count alike; linear between two utilities. Null, not measured, counts not.
    """
    measured = utilities.drop_nulls()
    if not isinstance(selector, QuantileSelector) or measured.is_empty():
        return rules
    chosen, rejected = (
        measured.quantile(at, "linear") for at in (selector.chosen_quantile, selector.rejected_quantile)
    )
    return rules.model_copy(update={"min_chosen_score": chosen, "max_rejected_score": rejected})
