"""Choices on the feedback side: judge, metric weights, selector."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from alignslm.config.calibration import Calibration
from alignslm.config.llm_judges import CausalLMJudgeConfig, OpenAIJudgeConfig
from alignslm.config.model import (
    Config,
    Count,
    Few,
    NotNegative,
    Positive,
    PositiveCount,
    Seed,
    Size,
    Temperature,
    TopP,
)
from alignslm.config.own_code import PythonJudgeConfig, PythonSelectorConfig


class NgramJudgeConfig(Config):
    """Interpolated word n-gram, tilted towards the words that the prompt's words announce."""

    kind: Literal["ngram"]
    order: Annotated[int, Field(ge=2, le=6)]
    discount: Annotated[float, Field(gt=0, lt=1)]
    calibration: Calibration


class StoryLMJudgeConfig(Config):
    """A small word-level LSTM trained on clean story texts."""

    kind: Literal["story-lm"]
    seed: Seed
    hidden_size: Size
    layers: Few
    steps: PositiveCount
    batch_size: PositiveCount
    learning_rate: Positive
    word_dropout: Annotated[float, Field(gt=0, lt=0.5)] = Field(
        description="fraction of training words replaced by <unk>, so that misrecognized words get a probability"
    )
    calibration: Calibration


JudgeConfig = Annotated[
    NgramJudgeConfig | StoryLMJudgeConfig | CausalLMJudgeConfig | OpenAIJudgeConfig | PythonJudgeConfig,
    Field(discriminator="kind"),
]


AutoBleu = Annotated[
    Literal["gslm", "gslm-script", "slamkit"],
    Field(description="definition of self-repetition; docs/benchmarks.md compares them"),
]


class Weights(Config):
    """Weight of every raw metric in the utility that ranks the continuations of a prompt.

    Metrics are first put on the judge's 1..5 scale, higher better (`alignslm.pairs.utility`), and the
    weights are normalised to sum to one, so thresholds keep their meaning whatever the weights.
    Only `judge_score` is the paper's LLM-score feedback, only `ppl` its perplexity feedback.
    """

    judge_score: NotNegative
    ppl: NotNegative
    auto_bleu: NotNegative
    num_words: NotNegative

    @model_validator(mode="after")
    def _some_weight(self) -> "Weights":
        if self.judge_score + self.ppl + self.auto_bleu + self.num_words <= 0:
            raise ValueError("every metric weight is 0; give at least one a positive weight, e.g. judge_score: 1.0")
        return self


class ThresholdSelector(Config):
    """The paper's LLM-score rule: chosen at or above s_c, rejected at or below s_r, auto-BLEU veto."""

    kind: Literal["thresholds"]
    max_chosen_per_prompt: Few
    max_rejected_per_prompt: Few
    min_words: Count = Field(description="fewer words than this can never be chosen")


class QuantileSelector(ThresholdSelector):
    """The LLM-score rule with thresholds that are quantiles of the round's own utilities, whatever the judge's scale.

    They take the places of `min_chosen_score` and `max_rejected_score`, which are not used.
    """

    kind: Literal["quantiles"]  # type: ignore[assignment]
    chosen_quantile: Annotated[float, Field(gt=0, lt=1)]
    rejected_quantile: Annotated[float, Field(gt=0, lt=1)]

    @model_validator(mode="after")
    def _ordered(self) -> "QuantileSelector":
        if self.chosen_quantile <= self.rejected_quantile:
            raise ValueError(
                f"chosen_quantile ({self.chosen_quantile}) must be above rejected_quantile "
                f"({self.rejected_quantile}), else one continuation could be both chosen and rejected"
            )
        return self


class BestWorstSelector(Config):
    """The paper's perplexity rule: best against worst utility of a prompt, auto-BLEU veto on the best."""

    kind: Literal["best-worst"]
    min_words: Count


SelectorConfig = Annotated[
    ThresholdSelector | QuantileSelector | BestWorstSelector | PythonSelectorConfig, Field(discriminator="kind")
]


class Sampling(Config):
    """Nucleus sampling of continuations (paper: N = 5)."""

    num_continuations: Annotated[int, Field(ge=2, le=10_000)]
    temperature: Temperature
    top_p: TopP
    max_new_units: Size = Field(description="longest continuation, in deduplicated units, prompt not counted")
