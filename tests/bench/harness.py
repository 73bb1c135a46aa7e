"""Times the paths of a case by turns, so that what else the machine does meets all of them alike."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

from tests.bench.case import OURS, Answer, Case, Implementation, num_parameters
from tests.bench.machine import Machine, synchronise
from tests.bench.memory import peak_bytes


@dataclass(frozen=True)
class Spread:
    """The least, the middle and the greatest of some figures."""

    least: float
    median: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Sum up at least one value."""
        return cls(min(values), statistics.median(values), max(values))


@dataclass(frozen=True)
class PathTiming:
    """One path. `ratio` is its time over ours of the same turn (1 for ours itself): how many times faster ours is."""

    path: str
    seconds: Spread
    ratio: Spread
    per_s: float
    peak_bytes: int | None
    difference: float


@dataclass(frozen=True)
class Result:
    """A case with its measured paths, ours first. Shares are of the machine's measured rates, by our median time."""

    stage: str
    shape: str
    size: str
    scale: int
    parameters: int
    counted: str
    amount: float
    repeats: int
    paths: list[PathTiming]
    flop_share: float
    bytes_share: float | None


def measure(case: Case, *, size: str, scale: int, repeats: int, machine: Machine) -> Result:
    """Compare the answers of all paths, then time them by turns. Raises MismatchError.

    The first, untimed call of each path is the one whose answer is compared and whose memory is measured.
    """
    memory, answers = {}, {}
    for name, path in case.paths.items():
        memory[name], answers[name] = _first(path, machine.device)
    differences = {
        name: case.require_equal(name, answers[OURS], answer) if name != OURS else 0.0
        for name, answer in answers.items()
    }
    turns = [{name: _timed(path, machine.device) for name, path in case.paths.items()} for _ in range(repeats)]
    paths = [
        PathTiming(
            name,
            seconds := Spread.of([turn[name] for turn in turns]),
            Spread.of([turn[name] / turn[OURS] for turn in turns]),
            case.amount / seconds.median,
            memory[name],
            differences[name],
        )
        for name in case.paths
    ]
    taken = paths[0].seconds.median
    moved = case.cost.num_bytes
    return Result(
        stage=case.stage,
        shape=case.shape,
        size=size,
        scale=scale,
        parameters=num_parameters(case.model),
        counted=case.counted,
        amount=case.amount,
        repeats=repeats,
        paths=paths,
        flop_share=case.cost.flop / taken / machine.flop_per_s,
        bytes_share=None if moved is None else moved / taken / machine.bytes_per_s,
    )


def _first(path: Implementation, device: str) -> tuple[int | None, Answer]:
    answers: list[Answer] = []
    peak = peak_bytes(lambda: answers.append(path()), device=device)
    return peak, answers[0]


def _timed(path: Implementation, device: str) -> float:
    synchronise(device)
    began = time.perf_counter()
    path()
    synchronise(device)
    return time.perf_counter() - began
