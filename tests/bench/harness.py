"""Times the paths of a case by turns, so that what else the machine does meets all of them alike."""

import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from tests.bench.case import OURS, Answer, Case, Implementation, num_parameters
from tests.bench.machine import Machine, name_of, synchronise
from tests.bench.memory import peak_bytes

LEAST_TURNS = 2


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
    """One path. `ratio` is its time over ours of the same turn (1 for ours itself): how many times faster ours is.

    `first_call_s` is the call before the timed ones, with shapes that are new to the process where the paths before it
    had none of them; ours comes first. `shapes` is how many shapes of attention it had (each is planned anew on a GPU).
    """

    path: str
    first_call_s: float
    shapes: int
    seconds: Spread
    ratio: Spread
    per_s: float
    peak_bytes: int | None
    difference: float


@dataclass(frozen=True)
class Result:
    """A case with its measured paths, ours first. Shares are of the machine's measured rates, by our median time.

    `flop_share` is of the rate of the model's own `dtype`. `difference` of a path is in `unit`.
    """

    stage: str
    shape: str
    size: str
    scale: int
    parameters: int
    counted: str
    amount: float
    repeats: int
    paths: list[PathTiming]
    dtype: str
    unit: str
    flop_share: float
    bytes_share: float | None


def measure(
    case: Case, *, size: str, scale: int, repeats: int, machine: Machine, patience_s: float = math.inf
) -> Result:
    """Compare the answers of all paths, then time them by turns. Raises MismatchError.

    The first call of each path is the one whose answer is compared and whose memory is measured. After two turns
    none begins later than `patience_s` after the first.
    """
    first = {name: _first(path, machine.device) for name, path in case.paths.items()}
    ours = first[OURS].answer
    differences = {
        name: case.require_equal(name, ours, one.answer) if name != OURS else 0.0 for name, one in first.items()
    }
    amount, cost = case.done(ours) if case.done else (case.amount, case.cost)
    turns: list[dict[str, float]] = []
    began = time.perf_counter()
    while len(turns) < repeats and (len(turns) < LEAST_TURNS or time.perf_counter() - began < patience_s):
        turns.append({name: _timed(path, machine.device) for name, path in case.paths.items()})
    paths = [
        PathTiming(
            name,
            first[name].seconds,
            first[name].shapes,
            seconds := Spread.of([turn[name] for turn in turns]),
            Spread.of([turn[name] / turn[OURS] for turn in turns]),
            amount / seconds.median,
            first[name].peak_bytes,
            differences[name],
        )
        for name in case.paths
    ]
    taken = paths[0].seconds.median
    dtype = name_of(next(case.model.parameters()).dtype)
    return Result(
        stage=case.stage,
        shape=case.shape,
        size=size,
        scale=scale,
        parameters=num_parameters(case.model),
        counted=case.counted,
        amount=amount,
        repeats=len(turns),
        paths=paths,
        dtype=dtype,
        unit=case.unit,
        flop_share=cost.flop / taken / machine.flop_per_s[dtype],
        bytes_share=None if cost.num_bytes is None else cost.num_bytes / taken / machine.bytes_per_s,
    )


@dataclass(frozen=True)
class _First:
    answer: Answer
    seconds: float
    shapes: int
    peak_bytes: int | None


def _first(path: Implementation, device: str) -> _First:
    answers: list[Answer] = []
    seconds: list[float] = []
    with attention_shapes() as shapes:
        peak = peak_bytes(lambda: seconds.append(_timed(lambda: answers.append(path()), device)), device=device)
    return _First(answers[0], seconds[0], len(shapes), peak)


@contextmanager
def attention_shapes() -> Iterator[set[object]]:
    """Collect the sizes and strides of what torch's attention is given inside: cuDNN plans each combination once."""
    found: set[object] = set()
    plain = torch.nn.functional.scaled_dot_product_attention

    def counted(*given: object, **options: object) -> torch.Tensor:
        """Compute it as it is."""
        tensors = [one for one in (*given, *options.values()) if isinstance(one, torch.Tensor)]
        found.add(tuple((one.shape, one.stride(), one.dtype) for one in tensors))
        return plain(*given, **options)

    torch.nn.functional.scaled_dot_product_attention = counted
    try:
        yield found
    finally:
        torch.nn.functional.scaled_dot_product_attention = plain


def _timed(path: Callable[[], object], device: str) -> float:
    synchronise(device)
    began = time.perf_counter()
    path()
    synchronise(device)
    return time.perf_counter() - began
