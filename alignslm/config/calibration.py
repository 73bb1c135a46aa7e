"""How a judge's log-probabilities become scores."""

from typing import Annotated

from pydantic import Field

from alignslm.config.model import Config


class Calibration(Config):
    """How a judge's mean log-probability per word becomes a score on 1..5.

    A sigmoid is placed between true continuations (mean score `ground_truth_score`) and continuations shuffled
    across prompts (mean score `shuffled_score`); each word's log-probability is clamped below first, so
    that one unheard word does not decide a whole continuation.
    """

    min_word_logprob: Annotated[float, Field(ge=-1000, lt=0)]
    ground_truth_score: Annotated[float, Field(gt=3, lt=5)]
    shuffled_score: Annotated[float, Field(gt=1, lt=3)]
