"""Choices on the model side: unit language model and trainer."""

from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from alignslm.config.model import (
    Autocast,
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
from alignslm.config.pretrained_lm import HFLMConfig, SlamLMConfig, TwistInitConfig, TwistLMConfig


class LlamaScratchConfig(Config):
    """A Llama over units, trained from scratch by next-unit prediction on the corpus."""

    kind: Literal["llama-scratch"]
    hidden_size: Size
    num_hidden_layers: Few
    num_attention_heads: Few
    max_position_embeddings: Size
    max_steps: PositiveCount
    batch_size: PositiveCount
    learning_rate: Positive
    warmup_steps: Count
    weight_decay: NotNegative
    autocast: Autocast


LmConfig = Annotated[
    LlamaScratchConfig | TwistLMConfig | SlamLMConfig | HFLMConfig | TwistInitConfig, Field(discriminator="kind")
]


ALL_LINEAR: Final = "all-linear"


class Lora(Config):
    """Low-rank adapter (paper: r = 32, alpha = 8)."""

    r: Size
    alpha: Positive
    target_modules: Literal["all-linear"] | Annotated[tuple[str, ...], Field(min_length=1)]


MICRO_BATCH = Field(
    description="rows per forward pass, with gradient accumulation up to batch_size; null: all of them, or the "
    "largest equal parts that memory holds"
)
LossName = Literal["sigmoid", "hinge", "ipo", "robust", "apo_zero", "apo_down", "sigmoid_norm", "sft", "kto"]


class PreferenceTrainerConfig(Config):
    """DPO and its relatives through TRL: a weighted mixture of losses on (prompt, chosen, rejected).

    `loss_weights` maps TRL's loss names to weights: {sigmoid: 1} is the paper's DPO, {sft: 1} is fine-tuning on the
    chosen samples alone; {kto: 1} learns from single continuations, desirable or undesirable, and from no pairs.
    Optimiser steps follow from epochs or are given by max_steps.
    """

    kind: Literal["preference"]
    loss_weights: dict[LossName, Positive] = Field(min_length=1)
    label_smoothing: Annotated[float, Field(gt=0, lt=0.5)] | None = Field(
        default=None, description="fraction of pairs with swapped sides that the loss robust assumes; null without it"
    )
    reference_free: bool = Field(
        default=False, description="compare log-probabilities themselves, not what they are above the start's"
    )
    target_margin: NotNegative = Field(
        default=0.0, description="SimPO's gamma: by how much a chosen side's reward must exceed; 0 without it"
    )
    margin_weights: bool = Field(
        default=False, description="multiply each pair's loss by its margin over the mean margin; sft stays as it is"
    )
    pack_pairs: bool = Field(
        default=False, description="read what both sides of a pair begin with, the prompt, once; results do not change"
    )
    class_balance: Annotated[float, Field(ge=0.1, le=10)] | None = Field(
        default=None,
        description="weight of all desirable continuations over that of all undesirable ones; null without loss kto",
    )
    beta: Positive
    lora: Lora
    learning_rate: Positive
    lr_scheduler_type: Literal["linear", "cosine", "constant"]
    num_train_epochs: Positive
    max_steps: PositiveCount | None
    batch_size: PositiveCount = Field(
        description="pairs (kto: continuations) per optimiser step, whatever the device count"
    )
    micro_batch_size: PositiveCount | None = MICRO_BATCH
    weight_decay: NotNegative
    max_grad_norm: Positive
    num_evals: PositiveCount = Field(description="times the validation pairs are scored; the best is kept")
    min_pairs: PositiveCount = Field(description="training on fewer pairs (kto: labeled continuations) is an error")
    autocast: Autocast

    @model_validator(mode="after")
    def _read_by_a_loss(self) -> Self:
        if ("robust" in self.loss_weights) != (self.label_smoothing is not None):
            raise ValueError(
                "label_smoothing belongs to the loss robust, which without it is sigmoid: set both, or neither"
            )
        if self.target_margin and not (self.reference_free and set(self.loss_weights) <= {"sigmoid_norm", "sft"}):
            raise ValueError("target_margin needs the loss sigmoid_norm and reference_free: true, which make it SimPO")
        pairwise = self.reference_free or self.margin_weights or self.pack_pairs
        if pairwise and set(self.loss_weights) == {"sft"}:
            raise ValueError(
                "reference_free, margin_weights and pack_pairs need a loss of pairs, and sft reads chosen sides only"
            )
        return self

    @model_validator(mode="after")
    def _alone(self) -> Self:
        if self.unpaired != (self.class_balance is not None):
            raise ValueError("class_balance belongs to the loss kto: set both, or neither")
        pairwise = self.reference_free or self.margin_weights or self.pack_pairs
        if self.unpaired and (len(self.loss_weights) > 1 or pairwise):
            raise ValueError(
                "kto reads no pairs: remove the other loss_weights, reference_free, margin_weights and pack_pairs"
            )
        if self.unpaired and min(self.batch_size, self.micro_batch_size or self.batch_size) < 2:
            raise ValueError(
                "kto estimates a divergence from prompts with each other's continuations, so batch_size and "
                "micro_batch_size must be at least 2"
            )
        return self

    @property
    def unpaired(self) -> bool:
        """Whether it learns from single continuations: desirable ones and undesirable ones."""
        return "kto" in self.loss_weights


class NextUnitTrainerConfig(Config):
    """Continued next-unit training on the corpus's own speech: the paper's ablation baseline."""

    kind: Literal["next-unit"]
    lora: Lora
    learning_rate: Positive
    lr_scheduler_type: Literal["linear", "cosine", "constant"]
    max_steps: PositiveCount
    batch_size: PositiveCount
    micro_batch_size: PositiveCount | None = MICRO_BATCH
    weight_decay: NotNegative
    warmup_steps: Count
    autocast: Autocast


class OnlineTrainerConfig(Config):
    """Group-relative policy optimisation through TRL: the model learns from its own continuations, judged as it trains.

    A rollout is `num_continuations` draws of each of `prompts_per_rollout` prompts; `num_iterations` optimiser steps
    learn from it. Fields with TRL's names mean what they mean there.
    """

    kind: Literal["online"]
    num_rollouts: PositiveCount
    prompts_per_rollout: Few
    num_continuations: Annotated[int, Field(ge=2, le=10_000)] = Field(description="draws a prompt, compared in a group")
    temperature: Temperature = Field(description="of sampling, and of the probabilities that are trained")
    top_p: TopP = Field(description="of sampling; only at 1 do draws have the probabilities that are trained")
    max_new_units: Size = Field(description="longest continuation, in deduplicated units, prompt not counted")
    repeated_text_penalty: NotNegative = Field(
        description="taken off the judge's score for every other continuation of the rollout with the same transcript"
    )
    loss_type: Literal["dapo", "grpo", "dr_grpo"]
    scale_rewards: Literal["group", "batch", "none"] = Field(description="whose standard deviation divides advantages")
    beta: NotNegative = Field(description="weight of the KL divergence from the model that training starts from")
    epsilon: Annotated[float, Field(gt=0, lt=1)] = Field(description="clipping of the probability ratio")
    num_iterations: Few
    lora: Lora
    learning_rate: Positive
    lr_scheduler_type: Literal["linear", "cosine", "constant"]
    warmup_steps: Count
    micro_batch_size: PositiveCount | None = Field(
        description="continuations a device holds at once in training; null: all of a rollout"
    )
    weight_decay: NotNegative
    max_grad_norm: Positive
    autocast: Autocast

    @property
    def batch_size(self) -> int:
        """Continuations of a rollout."""
        return self.prompts_per_rollout * self.num_continuations

    @property
    def max_steps(self) -> int:
        """Optimiser steps."""
        return self.num_rollouts * self.num_iterations


class RewardTrainerConfig(Config):
    """A reward model through TRL: a unit language model with a scalar head, trained on pairs (Bradley-Terry).

    Its loss is -log sigmoid(reward of the chosen side less that of the rejected one).
    """

    kind: Literal["reward"]
    center_rewards: NotNegative = Field(
        description="weight of the squared sum of a pair's rewards, which keeps their mean near zero"
    )
    lora: Lora
    learning_rate: Positive
    lr_scheduler_type: Literal["linear", "cosine", "constant"]
    warmup_steps: Count
    num_train_epochs: Positive
    max_steps: PositiveCount | None
    batch_size: PositiveCount = Field(description="pairs per optimiser step")
    micro_batch_size: PositiveCount | None = MICRO_BATCH
    weight_decay: NotNegative
    max_grad_norm: Positive
    num_evals: PositiveCount = Field(description="times the validation pairs are scored; the best is kept")
    min_pairs: PositiveCount = Field(description="training on fewer pairs is an error")
    autocast: Autocast


def has_preference_term(trainer: "TrainerConfig") -> bool:
    """Return whether a trainer compares chosen with rejected, instead of using only the chosen side."""
    return isinstance(trainer, PreferenceTrainerConfig) and set(trainer.loss_weights) != {"sft"}


TrainerConfig = Annotated[
    PreferenceTrainerConfig | NextUnitTrainerConfig | OnlineTrainerConfig | RewardTrainerConfig,
    Field(discriminator="kind"),
]


class Prompts(Config):
    """How many prompts each part of the method uses and where an utterance is cut into prompt and continuation.

    `train` prompts give preference pairs, `valid` prompts the pairs that choose the best checkpoint, `dev`
    prompts are for tuning by hand, `test` prompts are only ever reported on.
    """

    train: PositiveCount
    valid: PositiveCount
    dev: Count
    test: PositiveCount
    cut_at: Literal["sentence", "time", "word"]
    max_duration_s: Positive
    min_units: PositiveCount


class Seeds(Config):
    """One seed a source of chance, so that one can vary alone."""

    base: Seed
    sampling: Seed
    training: Seed
    evaluation: Seed
