"""The log of a training run, as trainers fill it and reports read it."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class LogRow:
    """Metrics that the trainer logged at one optimizer step, by the trainer's own names."""

    step: int
    figures: dict[str, float]


@dataclass(frozen=True)
class BestCheckpoint:
    """The kept checkpoint: optimizer step, and reward accuracy and margin on the validation pairs there."""

    step: int
    reward_accuracy: float
    reward_margin: float


@dataclass(frozen=True)
class Change:
    """What training should improve, before its first step and for the kept weights; `worse` if it did not."""

    figure: str
    start: float
    end: float
    worse: bool


@dataclass(frozen=True)
class TrainingRun:
    """A row per logged step, and what training changed (None if nothing was trained)."""

    steps: int
    log: list[LogRow] = field(default_factory=list)
    change: Change | None = None
