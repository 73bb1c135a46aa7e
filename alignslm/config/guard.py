"""A guard against reward hacking: a checkpoint that is the best saved step of another, inside limits."""

from typing import Annotated, Final, Literal, Self, get_args

from pydantic import Field, model_validator

from alignslm.config.model import Config, Few, Label

Measure = Literal[
    "judge_score",
    "heldout_judge_score",
    "heldout_less_judge",
    "unique_ratio",
    "distinct_1",
    "distinct_2",
    "auto_bleu",
    "num_words",
    "num_units",
    "duration_s",
    "silence_ratio",
    "unit_error_rate",
    "predicted_mos",
    "unit_entropy",
    "unit_repetition",
    "kl",
]
MEASURES: Final[tuple[Measure, ...]] = get_args(Measure)
Bound = Annotated[float, Field(ge=-1e6, le=1e6)] | None


class Limit(Config):
    """The lowest and the highest value of a measure that a step may have."""

    at_least: Bound = None
    at_most: Bound = None

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.at_least is None and self.at_most is None:
            raise ValueError("limits nothing: write at_least or at_most, or both")
        if None not in (self.at_least, self.at_most) and self.at_least > self.at_most:  # type: ignore[operator]
            raise ValueError(f"no value is at least {self.at_least:g} and at most {self.at_most:g}")
        return self


class Guard(Config):
    """Every saved step of a checkpoint is measured on continuations of the `valid` prompts, and one of them is kept.

    Measures are those of evaluation, and: `predicted_mos`, of as many clips as the config of `mos` says;
    `heldout_less_judge`, the difference of the judges' mean scores;
    `unit_entropy`, in bits, of the units of all continuations together; `unit_repetition`, the share of runs of four
    units that occur again in their continuation; `kl`, the mean log-probability of a continuation less that under the
    start, in nats.
    """

    init_from: Label = Field(description="checkpoint that training started from: step 0, kept if no step is inside")
    steps_of: Label = Field(description="checkpoint whose saved steps are measured; it has keep_steps: true")
    best: Literal["judge_score", "heldout_judge_score"] = Field(description="of the steps inside, the highest is kept")
    num_continuations: Few = Field(description="per prompt and step, each spoken and judged by both judges")
    limits: dict[Measure, Limit] = Field(min_length=1)
