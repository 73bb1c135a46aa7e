"""Any network that is one TorchScript file: a waveform in, a number out (UTMOS as published on the Hub)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from alignslm.config.mos import TorchScriptMOSConfig
from alignslm.device import resolve_device
from alignslm.fetching import download, download_recorded
from alignslm.mos import MosError, MOSPrediction, invalid_prediction
from alignslm.mos.source import read_identity, write_source

DECIMALS = 3  # of a stored score: devices differ below that


def prepare(config: TorchScriptMOSConfig, folder: Path) -> None:
    """Fetch the file, see that it can be read, and write down which it is."""
    fetched = download(config.weights, patterns=[config.file])
    _network(_inside(fetched.path, config), "cpu")
    write_source(config, fetched.identity, folder)


def _inside(path: Path, config: TorchScriptMOSConfig) -> Path:
    return path / config.file if path.is_dir() else path


def _network(path: Path, device: str) -> Any:
    try:
        return torch.jit.load(str(path), map_location=device).eval()
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise MosError(
            f"{path} is not a TorchScript file that torch {torch.__version__} can read ({reason}). "
            "A state dict or a pickled module does not fit: export it with torch.jit.trace or torch.jit.script."
        ) from error


class TorchscriptPredictor:
    """Rates each clip separately: such networks normalize over time, so padding would change their scores."""

    def __init__(self, config: TorchScriptMOSConfig, folder: Path, *, device: str) -> None:
        """Load the file that `folder` was prepared with; `device` is auto, cpu or cuda."""
        path = download_recorded(config.weights, read_identity(config, folder), patterns=[config.file])
        self._device = resolve_device(device)
        self._network = _network(_inside(path, config), self._device)
        self._config = config
        self.sample_rate_hz = config.sample_rate_hz
        self.metrics: tuple[str, ...] = (config.metric,)

    def predict(self, waveforms: Sequence[np.ndarray]) -> list[MOSPrediction]:
        """Return one score per waveform. MosError if the network returns anything but one finite number."""
        return [invalid_prediction(waveform) or self._rate(waveform) for waveform in waveforms]

    @torch.inference_mode()
    def _rate(self, waveform: np.ndarray) -> MOSPrediction:
        output = self._network(self._input(waveform)[None].to(self._device))
        if not isinstance(output, torch.Tensor) or output.numel() != 1 or not torch.isfinite(output).all():
            shape = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
            raise MosError(
                f"{self._config.file} answers a waveform of {waveform.size} samples with {shape}, expected one finite "
                f"number. Check `samples` ({self._config.samples}) and `sample_rate_hz` in the config."
            )
        return MOSPrediction("ok", (round(float(output.item()), DECIMALS),))

    def _input(self, waveform: np.ndarray) -> torch.Tensor:
        sound = torch.from_numpy(np.ascontiguousarray(waveform.clip(-1, 1), np.float32))
        return sound if self._config.samples == "float32" else (sound * 32767).round().to(torch.int16)
