"""Predicted mean opinion scores: how listeners would rate the sound, said by a network (the paper watches MOSNet)."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from alignslm.config.mos import DNSMOSConfig, MosConfig, TorchScriptMOSConfig


class MOSPrediction(NamedTuple):
    """Status ok, empty (no samples) or failed (NaN or infinite samples), and one value a metric unless not ok."""

    status: str
    values: tuple[float, ...] | None


class MOSPredictor(Protocol):
    """Rates mono float32 waveforms at `sample_rate_hz`, one opinion a waveform, in order; higher is better.

    An opinion is the same alone or among others.
    """

    sample_rate_hz: int
    metrics: tuple[str, ...]

    def predict(self, waveforms: Sequence[np.ndarray]) -> list[MOSPrediction]:
        """Return one opinion a waveform."""
        ...


class MosError(ValueError):
    """A predictor's files are missing, or not what its choice says."""


def invalid_prediction(waveform: np.ndarray) -> MOSPrediction | None:
    """Return the opinion on what no network can hear: no samples at all, or samples that are no numbers."""
    if not waveform.size:
        return MOSPrediction("empty", None)
    return None if np.isfinite(waveform).all() else MOSPrediction("failed", None)


def prepare_mos(config: MosConfig, folder: Path) -> None:
    """Fetch and verify the networks and write `folder`/source.json, by which `load_mos` finds the same ones again."""
    match config:
        case DNSMOSConfig():
            from alignslm.mos import dnsmos

            dnsmos.prepare(config, folder)
        case TorchScriptMOSConfig():
            from alignslm.mos import torchscript

            torchscript.prepare(config, folder)


def load_mos(config: MosConfig, folder: Path, *, workers: int, device: str) -> MOSPredictor:
    """Load what `prepare_mos` left in `folder`. `workers` (threads) and `device` change no value."""
    match config:
        case DNSMOSConfig():
            from alignslm.mos.dnsmos import DnsmosPredictor

            return DnsmosPredictor(config, folder, workers=workers)
        case TorchScriptMOSConfig():
            from alignslm.mos.torchscript import TorchscriptPredictor

            return TorchscriptPredictor(config, folder, device=device)
