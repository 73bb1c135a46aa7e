"""The benchmarks by name."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch

from tests.bench import BenchError, hubert, judge, likelihood, preference, sampling, vocoder
from tests.bench.case import OURS, Case
from tests.bench.harness import Result, measure
from tests.bench.machine import Machine
from tests.bench.models import Size


class Build(Protocol):
    """Builds the work of a stage at `scale` times its usual amount; `work` are options of single stages."""

    def __call__(self, size: Size, *, scale: int, device: str, **work: Any) -> Case:
        """Return the case; models are on `device`."""
        ...


STAGES: dict[str, Build] = {
    "sampling": sampling.case,
    "storycloze": likelihood.storycloze,
    "sblimp": likelihood.sblimp,
    "vocoder": vocoder.case,
    "judge": judge.case,
    "perplexity": judge.perplexity_case,
    "hubert": hubert.case,
    "preference": preference.case,
}


class UnknownStageError(BenchError):
    """No benchmark has this name."""


def require_stages(stages: Sequence[str]) -> None:
    """Raise UnknownStageError unless all are benchmarks."""
    if unknown := [stage for stage in stages if stage not in STAGES]:
        raise UnknownStageError(f"no benchmark {unknown[0]!r}; there are {', '.join(STAGES)}, pairs")


def run(
    stages: Sequence[str],
    *,
    size: Size,
    scales: Sequence[int],
    repeats: int,
    machine: Machine,
    told: Callable[[Result], None],
) -> list[Result]:
    """Measure stages, each at every scale; `told` hears of each as it is done. Raises UnknownStageError first.

    The plain paths run at the first scale alone: how our own time and memory grow is seen without them.
    """
    require_stages(stages)
    results = []
    for stage in stages:
        for scale in scales:
            torch.manual_seed(0)
            case = STAGES[stage](size, scale=scale, device=machine.device)
            if scale != scales[0]:
                case = replace(case, paths={OURS: case.paths[OURS]})
            results.append(measure(case, size=size, scale=scale, repeats=repeats, machine=machine))
            told(results[-1])
    return results
