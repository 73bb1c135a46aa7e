"""Inputs and timer of a probe: noise as long as an experiment's speech, random units, on this machine's device."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from alignslm.config.execution import Execution
from alignslm.config.experiment import Experiment
from alignslm.device import resolve_device
from alignslm.plan.work import Lengths, lengths_of
from alignslm.plan.workload import Workload
from alignslm.provenance import UnitContract

CLIPS = 8


class Bench:
    """One experiment's sizes on one device, with a folder for fitted models."""

    def __init__(self, experiment: Experiment, execution: Execution, volume: Workload, folder: Path) -> None:
        self.experiment, self.execution, self.volume, self.folder = experiment, execution, volume, folder
        self.device = resolve_device(execution.device)
        self.sizes: Lengths = lengths_of(experiment)
        self.rng = np.random.default_rng(0)
        encoder = experiment.encoder
        self.contract = UnitContract(
            encoder=encoder.kind,
            revision="probe",
            sample_rate_hz=encoder.sample_rate_hz,
            frame_rate_hz=encoder.frame_rate_hz,
            layer=None,
            padding="none",
            codebook_sha256="0" * 64,
            num_units=encoder.num_units,
            deduplicated=True,
        )

    def time(self, run: Callable[[int], object], few: int, many: int) -> float:
        """Return the seconds per item of `run(count)` after warm-up, from the best of two runs each."""
        run(few)
        taken = []
        for count in (few, many, few, many):
            start = time.perf_counter()
            run(count)
            if self.device.startswith("cuda"):
                torch.cuda.synchronize()
            taken.append(time.perf_counter() - start)
        gained = min(taken[1], taken[3]) - min(taken[0], taken[2])
        return max(gained, 0.1 * min(taken[1], taken[3])) / (many - few)

    def by_layers(self, of: Callable[[int], float], layers: int) -> float:
        """Time one layer and two, and count their difference for each further one."""
        one, two = of(1), of(2)
        return one + (layers - 1) * max(two - one, 0.0)

    def speech(self, seconds: float, rate_hz: int, count: int = CLIPS) -> list[np.ndarray]:
        """Return noise, as long as that each."""
        return [self.rng.normal(0, 0.1, round(seconds * rate_hz)).astype(np.float32) for _ in range(count)]

    def units(self, length: int, count: int) -> list[list[int]]:
        """Return random units."""
        return self.rng.integers(0, self.contract.num_units, (count, length)).tolist()

    def fresh(self) -> Path:
        """Return an empty folder."""
        folder = self.folder / str(len(list(self.folder.iterdir())))
        folder.mkdir()
        return folder

    @property
    def on_gpu(self) -> bool:
        """Return whether models compute on a GPU."""
        return self.device.startswith("cuda")


def quiet(run: Callable[[int], object]) -> Callable[[int], object]:
    """Return the function without gradients."""
    return torch.inference_mode()(run)


def decoding(model: torch.nn.Module, device: str, rows: int, **inputs: torch.Tensor) -> Callable[[int], object]:
    """Return a function that decodes a number of tokens, one by one, with a cache."""
    ids = torch.zeros((rows, 1), dtype=torch.long, device=device)

    def run(count: int) -> None:
        cache = None
        for _ in range(count):
            cache = model(input_ids=ids, past_key_values=cache, use_cache=True, **inputs).past_key_values

    return quiet(run)
