"""Discrete units to speech."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from alignslm.config.speech import ConvGriffinLim, VocoderConfig
from alignslm.provenance import UnitContract


class SpokenUnits(NamedTuple):
    """One training utterance: deduplicated units, durations in frames, and the waveform they came from."""

    units: np.ndarray
    durations: np.ndarray
    waveform: np.ndarray


class Vocoder(Protocol):
    """Speaks deduplicated unit sequences: float32 mono waveforms at `sample_rate_hz`, in order.

    An empty unit sequence gives an empty waveform. A sequence's waveform does not depend on its batch.
    """

    contract: UnitContract
    sample_rate_hz: int

    def synthesize(self, units: Sequence[Sequence[int]]) -> list[np.ndarray]:
        """Return one waveform a unit sequence."""
        ...


def prepare_vocoder(
    config: VocoderConfig, utterances: Sequence[SpokenUnits], contract: UnitContract, folder: Path
) -> dict[str, float]:
    """Fit (or fetch) the vocoder into `folder`; return training figures for the log (losses)."""
    match config:
        case ConvGriffinLim():
            from alignslm.vocoder import conv_griffinlim

            return conv_griffinlim.fit(config, utterances, contract, folder)


def load_vocoder(config: VocoderConfig, folder: Path) -> Vocoder:
    """Load what `prepare_vocoder` left in `folder`."""
    match config:
        case ConvGriffinLim():
            from alignslm.vocoder.conv_griffinlim import ConvGriffinLimVocoder

            return ConvGriffinLimVocoder.load(folder)
