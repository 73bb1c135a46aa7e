"""What to measure on a GPU that is rented for some minutes: everything, the most important first, within a budget.

A case that fails or does not end in time is told as not measured, and the next one begins. A signal ends it, so the
suite runs in the main thread of a Unix process.
"""

import gc
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import torch

from tests.bench.harness import Result, measure
from tests.bench.machine import Machine
from tests.bench.models import Size
from tests.bench.stages import STAGES, require_stages

CASE_SHARE = 1 / 5  # of the budget, which one case may take
TURNS_SHARE = 1 / 18  # of the budget, after which no third turn of a case begins
PASS_TOKENS = 65_536  # of the padded plain path of likelihoods


@dataclass(frozen=True)
class SuiteCase:
    """A benchmark at a size; `work` are options of its `case`."""

    stage: str
    size: Size
    work: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in self.work.items()) or "as usual"


@dataclass(frozen=True)
class NotMeasured:
    """A case without figures, and why."""

    stage: str
    size: str
    work: str
    not_measured: str


class OutOfTimeError(BaseException):
    """A case did not end in its time. No `except Exception` of a library may take it for its own."""


_PADDED: dict[str, Any] = {"padded": PASS_TOKENS}
# By importance. Memory at most, as far as it is known: 64 pairs at 1.3B about 64 GB, 16 at 7B about 62 GB and another
# model of 14 GB; 1025 rows at 1.3B 50 GB. 1025 rows at 7B would take 121 GB of keys and values alone.
SUITE = (
    SuiteCase("sampling", "twist-1.3b", {"rows": 255}),
    SuiteCase("storycloze", "twist-1.3b", {"scale": 4, **_PADDED}),
    SuiteCase("preference", "twist-1.3b", {"pairs_at_once": 32}),
    SuiteCase("sampling", "twist-7b", {"rows": 255}),
    SuiteCase("preference", "twist-7b", {"pairs_at_once": 16}),
    SuiteCase("storycloze", "twist-7b", {"scale": 2, **_PADDED}),
    SuiteCase("sblimp", "twist-1.3b", {"scale": 8, **_PADDED}),
    SuiteCase("vocoder", "twist-1.3b"),
    SuiteCase("vocoder", "twist-1.3b", {"dtype": "float16"}),
    SuiteCase("hubert", "twist-1.3b"),
    SuiteCase("judge", "twist-7b", {"prompts": 4, "write": False}),
    SuiteCase("sampling", "twist-1.3b", {"rows": 1025}),
    SuiteCase("sampling", "twist-1.3b", {"rows": 65}),
    SuiteCase("sblimp", "twist-7b", {"scale": 4, **_PADDED}),
    SuiteCase("sampling", "twist-7b", {"rows": 65}),
    SuiteCase("preference", "twist-1.3b", {"pairs_at_once": 64}),
    SuiteCase("preference", "twist-1.3b", {"pairs_at_once": 8}),
    SuiteCase("preference", "twist-7b", {"pairs_at_once": 8}),
    SuiteCase("perplexity", "twist-7b", {"prompts": 8}),
    SuiteCase("judge", "twist-1.3b", {"prompts": 4, "write": False}),
    SuiteCase("perplexity", "twist-1.3b", {"prompts": 8}),
)


def cases(stages: Sequence[str], size: Size | None) -> list[SuiteCase]:
    """Return the suite's cases of these stages; at one `size`, each piece of work once. Raises UnknownStageError."""
    require_stages(stages)
    chosen = [case for case in SUITE if case.stage in stages]
    if size is None:
        return chosen
    unique = {(case.stage, str(case)): SuiteCase(case.stage, size, case.work) for case in chosen}
    return list(unique.values())


def run(
    chosen: Sequence[SuiteCase], *, repeats: int, machine: Machine, budget_s: float, began: float
) -> Iterator[Result | NotMeasured]:
    """Measure the cases in order, within `budget_s` of `began` (time.perf_counter) together."""
    for case in chosen:
        left = budget_s - (time.perf_counter() - began)
        reason, result = f"the budget of {budget_s:g} s was used up before it began", None
        if left > 0:
            limit = min(left, max(budget_s * CASE_SHARE, 1.0))
            result, reason = _result(case, repeats=repeats, machine=machine, limit_s=limit, budget_s=budget_s)
            _free(machine.device)
        yield result or NotMeasured(case.stage, case.size, str(case), reason)


def _result(
    case: SuiteCase, *, repeats: int, machine: Machine, limit_s: float, budget_s: float
) -> tuple[Result | None, str]:
    """Return a result, or why there is none. No exception is kept: its traceback would hold the models."""
    work = {"scale": 1, **case.work}
    try:
        with _ended_after(limit_s):
            torch.manual_seed(0)
            built = STAGES[case.stage](case.size, device=machine.device, **work)
            scale, patience_s = work["scale"], budget_s * TURNS_SHARE
            options = {"size": case.size, "scale": scale, "repeats": repeats, "machine": machine}
            return measure(built, **options, patience_s=patience_s), ""
    except OutOfTimeError:
        return None, f"it did not end within {limit_s:.0f} s"
    except Exception as error:  # noqa: BLE001 - whatever it is, the other cases are measured
        return None, f"{type(error).__name__}: {error}"[:500]


@contextmanager
def _ended_after(seconds: float) -> Iterator[None]:
    """Raise OutOfTimeError in what runs inside, once it returns to Python after so many seconds."""

    def end(_signal: int, _frame: FrameType | None) -> None:
        raise OutOfTimeError

    before: Callable[[int, FrameType | None], Any] | int | None = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _free(device: str) -> None:
    gc.collect()
    if torch.device(device).type == "cuda":
        torch.cuda.empty_cache()
