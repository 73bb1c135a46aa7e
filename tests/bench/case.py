"""What is measured: one piece of work, and the ways to do it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch

from tests.bench import BenchError

Answer: TypeAlias = "list[np.ndarray]"  # one array a row of work
Implementation: TypeAlias = Callable[[], Answer]
OURS = "ours"
# Of log-probabilities in bfloat16, in nats per root of an item's tokens: roundings of single tokens are about
# independent, so their sum grows with the root. The largest seen on a GPU is 0.17 (7B: 1.2 nats in some 50 units).
BF16_NATS = 0.3


class MismatchError(BenchError):
    """Two ways to do the same work gave different answers, so their times cannot be compared."""


@dataclass(frozen=True)
class Cost:
    """What the work takes by its definition, padding and repetition not counted: products and bytes moved.

    `flop` counts a multiplication and an addition as two; `num_bytes` is None where products bound the work.
    """

    flop: float
    num_bytes: float | None


@dataclass(frozen=True)
class Case:
    """Work of one stage: `paths` maps `ours` and the names of reference paths to functions that do all of it.

    `amount` is how many of `counted` (units, pairs, seconds of audio) one call gets through, `shape` says it in
    words. `difference(ours, theirs)` must not exceed `tolerance`, both in `unit`. Where only the answer tells how much
    work it was, `done` returns amount and cost of ours.
    """

    stage: str
    shape: str
    model: torch.nn.Module
    counted: str
    amount: float
    paths: Mapping[str, Implementation]
    difference: Callable[[Answer, Answer], float]
    tolerance: float
    cost: Cost
    unit: str = ""
    done: Callable[[Answer], tuple[float, Cost]] | None = None

    def require_equal(self, name: str, ours: Answer, theirs: Answer) -> float:
        """Return how far two answers are apart. Raises MismatchError where that is too far."""
        found = self.difference(ours, theirs)
        if not found <= self.tolerance:  # NaN is unequal too
            allowed = f"{self.tolerance:g} {self.unit}".rstrip()
            raise MismatchError(
                f"bench {self.stage}: {name} and {OURS} differ by {found:g}, which is more than {allowed}; "
                "their times say nothing"
            )
        return found


def max_abs_difference(ours: Answer, theirs: Answer) -> float:
    """Return the largest absolute difference of any value; infinite where shapes differ."""
    if [row.shape for row in ours] != [row.shape for row in theirs]:
        return float("inf")
    return max((float(np.abs(a - b).max()) for a, b in zip(ours, theirs, strict=True) if a.size), default=0.0)


def rms_difference(ours: Answer, theirs: Answer) -> float:
    """Return the root of the mean squared difference of all values; infinite where shapes differ."""
    if [row.shape for row in ours] != [row.shape for row in theirs]:
        return float("inf")
    return float(np.sqrt(np.mean((np.concatenate(ours) - np.concatenate(theirs)) ** 2)))


def scaled_difference(scales: Sequence[float]) -> Callable[[Answer, Answer], float]:
    """Return `max_abs_difference` of answers whose rows are multiplied by `scales` first."""

    def difference(ours: Answer, theirs: Answer) -> float:
        """Compare row by row; infinite where shapes differ."""
        if not len(ours) == len(theirs) == len(scales):
            return float("inf")
        found = ([row * scale for row, scale in zip(rows, scales, strict=True)] for rows in (ours, theirs))
        return max_abs_difference(*found)

    return difference


def mismatch_rate(ours: Answer, theirs: Answer) -> float:
    """Return which share of the rows is not the same, value by value; 1 where their number differs."""
    if len(ours) != len(theirs):
        return 1.0
    return float(np.mean([not np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True)]))


def num_parameters(model: torch.nn.Module) -> int:
    """Return how many weights a model has."""
    return sum(weight.numel() for weight in model.parameters())


def scaled(items: Sequence[int], scale: int) -> list[int]:
    """Return the numbers `scale` times over."""
    return [item for _ in range(scale) for item in items]
