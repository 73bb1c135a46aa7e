"""The nouns of an experiment: preferences were judged, checkpoints were trained, systems are evaluated."""

from typing import Annotated

from pydantic import Field, model_validator

from alignslm.config.model import Config, Count, Fraction, Label, Name

PAIRS, SCORES, REWARDS = "pairs/", "scores/", "rewards/"
CHECKPOINTS, REWARD_MODELS, BEST_OF = "checkpoints/", "reward_models/", "best_of/"
UNITS, CORPUS = "units", "corpus/utterances"
_LABEL = r"[a-z0-9][a-z0-9_-]{0,39}"
Score = Annotated[float, Field(ge=1, le=5)]


class JudgedPreferences(Config):
    """Continuations of one checkpoint, judged and paired under thresholds.

    The paper's symbols: min_chosen_score = s_c, max_rejected_score = s_r, max_auto_bleu = delta.
    """

    sampled_from: Label = Field(description="checkpoint that the continuations are sampled from")
    min_chosen_score: Score
    max_rejected_score: Score
    min_margin: Annotated[float, Field(ge=0, le=4)]
    max_auto_bleu: Fraction

    @model_validator(mode="after")
    def _ordered(self) -> "JudgedPreferences":
        if self.min_chosen_score <= self.max_rejected_score:
            raise ValueError(
                f"min_chosen_score ({self.min_chosen_score}) must be above max_rejected_score "
                f"({self.max_rejected_score}), else one continuation could be both chosen and rejected"
            )
        return self


class Checkpoint(Config):
    """A checkpoint: what it is trained from, on which data, with which trainer."""

    init_from: Label = Field(description="checkpoint that training starts from; preference training's reference, too")
    train_on: Annotated[str, Field(pattern=f"^({UNITS}|({PAIRS}|{SCORES}|{REWARDS}){_LABEL})$")] = Field(
        description="what below artifacts/ it is trained on: pairs/NAME; units, the corpus's own speech; scores/NAME, "
        "whose prompts it continues anew, to learn from the same judge; or rewards/NAME, to learn from that reward "
        "model instead of a judge"
    )
    trainer: Name
    warmup_steps: Count | None = Field(default=None, description="of preference training; other trainers say their own")
    keep_steps: bool = Field(
        default=False, description="keep the adapter of every saved step, for a guard to choose from"
    )

    @model_validator(mode="after")
    def _one_warmup(self) -> "Checkpoint":
        if self.pairs is not None and self.warmup_steps is None:
            raise ValueError("training on pairs needs warmup_steps: add it, 0 for none")
        if self.pairs is None and self.warmup_steps is not None:
            kind = self.train_on.partition("/")[0]
            raise ValueError(f"warmup_steps of training on {kind} belongs in the trainer's file; remove it here")
        return self

    @property
    def pairs(self) -> str | None:
        """The preferences whose pairs it is trained on; None if it is trained on something else."""
        return self.train_on.removeprefix(PAIRS) if self.train_on.startswith(PAIRS) else None

    @property
    def scores(self) -> str | None:
        """The preferences whose prompts and judge it learns from online; None where it does otherwise."""
        return self.train_on.removeprefix(SCORES) if self.train_on.startswith(SCORES) else None

    @property
    def rewards(self) -> str | None:
        """The reward model that it learns from online; None where it does otherwise."""
        return self.train_on.removeprefix(REWARDS) if self.train_on.startswith(REWARDS) else None

    @property
    def online(self) -> bool:
        """Whether it learns from continuations that it draws in training."""
        return self.train_on.startswith((SCORES, REWARDS))


class RewardModel(Config):
    """A reward model of units: what it is trained from, on whose pairs, with which trainer."""

    init_from: Label = Field(description="checkpoint whose weights it starts from")
    preferences: Label = Field(description="judged preferences whose pairs it is trained on; it ranks the same model's")
    trainer: Name


class BestOf(Config):
    """Best-of-N by the training judge: what choosing gives without training, at N judge calls a continuation."""

    sampled_from: Label = Field(description="checkpoint that the continuations are sampled from")
    num_continuations: Annotated[int, Field(ge=2, le=10_000)] = Field(
        description="N: so many are judged for each continuation that is kept"
    )


class System(Config):
    """What is evaluated: continuations of a checkpoint, or the ground truth as the topline of every judge."""

    source: Annotated[str, Field(pattern=f"^({CORPUS}|({CHECKPOINTS}|{REWARD_MODELS}|{BEST_OF}){_LABEL})$")] = Field(
        description="checkpoints/NAME; reward_models/NAME: what it ranks highest of the continuations of the model "
        "that its preferences were sampled from; best_of/NAME: what the judge scores highest; or corpus: the real "
        "continuations through the same vocoder and ASR"
    )
    temperature_scale: float = Field(default=1.0, ge=0.01, le=100, description="factor on sampling.temperature")
    best_of: Annotated[int, Field(ge=2, le=10_000)] | None = Field(
        default=None, description="draws of which a reward model takes one"
    )

    @model_validator(mode="after")
    def _nothing_sampled(self) -> "System":
        if (self.source == CORPUS or self.judged_best) and self.temperature_scale != 1.0:
            raise ValueError(f"temperature_scale has no meaning for source: {self.source}; remove it")
        if (self.reward_model is None) != (self.best_of is None):
            raise ValueError("best_of belongs to source: reward_models/NAME; write both, or neither")
        return self

    @property
    def checkpoint(self) -> str | None:
        """The checkpoint that it is; None for the corpus, and for the best of several draws."""
        return self.source.removeprefix(CHECKPOINTS) if self.source.startswith(CHECKPOINTS) else None

    @property
    def reward_model(self) -> str | None:
        """The reward model that chooses its continuations; None where they are taken as drawn."""
        return self.source.removeprefix(REWARD_MODELS) if self.source.startswith(REWARD_MODELS) else None

    @property
    def judged_best(self) -> str | None:
        """The best-of-N by the judge that it is; None where the judge chooses nothing."""
        return self.source.removeprefix(BEST_OF) if self.source.startswith(BEST_OF) else None
