"""Time of stages on this machine's device: a few timed steps of each kind, times their number."""

from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from io import StringIO
from pathlib import Path
from typing import NamedTuple

import torch

from alignslm.config.execution import Execution
from alignslm.config.experiment import Experiment
from alignslm.machine import cores, processor
from alignslm.pipeline import Stage
from alignslm.plan import lm_probe, speech_probe
from alignslm.plan.bench import Bench
from alignslm.plan.work import Amounts, amounts_of, seconds_of
from alignslm.plan.workload import Workload
from alignslm.progress import track
from alignslm.storage import temporary_folder

STEPS: dict[str, Callable[[Bench], float | None]] = {
    "story": speech_probe.story,
    "encode": speech_probe.encode,
    "vocoder step": speech_probe.vocoder_step,
    "synthesize": speech_probe.synthesize,
    "asr step": speech_probe.asr_step,
    "transcribe": speech_probe.transcribe,
    "base step": lm_probe.base_step,
    "draw": lm_probe.draw,
    "judge": partial(lm_probe.judge, key="judge"),
    "heldout_judge": partial(lm_probe.judge, key="heldout_judge"),
}


class Estimate(NamedTuple):
    """Seconds of stages on a device, None if a step cannot be timed without files; and seconds of each step."""

    device: str
    seconds: dict[str, float | None]
    steps: dict[str, float | None]


def estimate(experiment: Experiment, execution: Execution, volume: Workload, stages: list[Stage]) -> Estimate:
    """Time the steps that stages consist of; nothing of it is kept. A stage that is missing is not estimated."""
    amounts: dict[str, Amounts] = amounts_of(experiment, stages)
    steps = dict.fromkeys(step for named in amounts.values() for step, count in named.items() if count)
    with temporary_folder() as folder:
        bench = Bench(experiment, execution, volume, Path(folder))
        timed = {}
        for step in track(steps, total=len(steps), label="probe"):
            with redirect_stderr(StringIO()), redirect_stdout(StringIO()):
                timed[step] = _seconds(bench, step)
    name = torch.cuda.get_device_name() if bench.device.startswith("cuda") else f"{processor()}, {cores()} cores"
    return Estimate(name, {stage: seconds_of(named, timed) for stage, named in amounts.items()}, timed)


def _seconds(bench: Bench, step: str) -> float | None:
    if step.startswith("train "):
        return lm_probe.train_row(bench, step.removeprefix("train "))
    return STEPS[step](bench)
