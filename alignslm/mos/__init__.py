"""Mean opinion scores of the sound, predicted by a network (the paper reports MOSNet)."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from alignslm.config.mos import DNSMOSConfig, MosConfig, TorchScriptMOSConfig
from alignslm.integrity import reading


class MOSPrediction(NamedTuple):
    """Status ok, empty (no samples) or failed (NaN or infinite samples), and one value per metric if ok."""

    status: str
    values: tuple[float, ...] | None


class MOSPredictor(Protocol):
    """Rates mono float32 waveforms at `sample_rate_hz`, one opinion per waveform, in order; higher is better.

    An opinion does not depend on the batch.
    """

    sample_rate_hz: int
    metrics: tuple[str, ...]

    def predict(self, waveforms: Sequence[np.ndarray]) -> list[MOSPrediction]:
        """Return one opinion per waveform."""
        ...


HEADLINE_MOS = "dnsmos_ovrl"  # the quality of voice and background together


def headline_metric(metrics: Iterable[str]) -> str:
    """Return the metric that stands for a predictor."""
    return min(metrics, key=lambda metric: (metric != HEADLINE_MOS, metric))


class MosError(ValueError):
    """A predictor's files are missing, or differ from its config."""


def invalid_prediction(waveform: np.ndarray) -> MOSPrediction | None:
    """Return the opinion on an invalid waveform: no samples, or samples that are NaN or infinite."""
    if not waveform.size:
        return MOSPrediction("empty", None)
    return None if np.isfinite(waveform).all() else MOSPrediction("failed", None)


def prepare_mos(config: MosConfig, folder: Path) -> None:
    """Fetch and verify the networks and write `folder`/source.json, by which `load_mos` finds the same files."""
    match config:
        case DNSMOSConfig():
            from alignslm.mos import dnsmos

            dnsmos.prepare(config, folder)
        case TorchScriptMOSConfig():
            from alignslm.mos import torchscript

            torchscript.prepare(config, folder)


def load_mos(config: MosConfig, folder: Path, *, workers: int, device: str) -> MOSPredictor:
    """Load what `prepare_mos` left in `folder`. `workers` (threads) and `device` change no value."""
    with reading(folder):
        match config:
            case DNSMOSConfig():
                from alignslm.mos.dnsmos import DnsmosPredictor

                return DnsmosPredictor(config, folder, workers=workers)
            case TorchScriptMOSConfig():
                from alignslm.mos.torchscript import TorchscriptPredictor

                return TorchscriptPredictor(config, folder, device=device)
