"""Discrete units to speech."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from alignslm.config.own_code import PythonVocoderConfig
from alignslm.config.speech import ConvGriffinLimConfig, VocoderConfig
from alignslm.config.unit_hifigan import UnitHiFiGANConfig
from alignslm.integrity import reading
from alignslm.own_code import FOLDER
from alignslm.provenance import UnitContract


class VocoderError(ValueError):
    """Units, waveforms and settings of a vocoder do not belong together."""


class VocoderExample(NamedTuple):
    """One training utterance: deduplicated units, durations in frames, and the waveform they came from."""

    units: np.ndarray
    durations: np.ndarray
    waveform: np.ndarray


class Vocoder(Protocol):
    """Synthesizes deduplicated unit sequences: float32 mono waveforms at `sample_rate_hz`, in order.

    An empty unit sequence gives an empty waveform. A sequence's waveform does not depend on its batch.
    """

    contract: UnitContract
    sample_rate_hz: int

    def synthesize(self, units: Sequence[Sequence[int]]) -> list[np.ndarray]:
        """Return one waveform per unit sequence."""
        ...


def prepare_vocoder(
    config: VocoderConfig,
    utterances: Sequence[VocoderExample],
    contract: UnitContract,
    folder: Path,
    *,
    device: str = "auto",
    code: Path = FOLDER,
) -> dict[str, float]:
    """Fit (or fetch) the vocoder into `folder`; return training figures for the log (losses).

    The source of `kind: python`, which is tried on `device`, is in the folder `code`.
    """
    match config:
        case ConvGriffinLimConfig():
            from alignslm.vocoder import conv_griffinlim

            return conv_griffinlim.fit(config, utterances, contract, folder)
        case UnitHiFiGANConfig():
            from alignslm.vocoder import unit_hifigan

            return unit_hifigan.fetch(config, contract, folder)
        case PythonVocoderConfig():
            from alignslm.vocoder import own

            return own.prepare(config, utterances, contract, folder, code=code, device=device)


def load_vocoder(config: VocoderConfig, folder: Path, *, device: str) -> Vocoder:
    """Load what `prepare_vocoder` left in `folder`, onto `device`: auto, cpu or cuda."""
    with reading(folder):
        match config:
            case ConvGriffinLimConfig():
                from alignslm.vocoder.conv_griffinlim import ConvGriffinLimVocoder

                return ConvGriffinLimVocoder.load(folder)  # small enough to run on any CPU
            case UnitHiFiGANConfig():
                from alignslm.vocoder.unit_hifigan import UnitHifiganVocoder

                return UnitHifiganVocoder.load(folder, device=device)
            case PythonVocoderConfig():
                from alignslm.vocoder import own

                return own.load(config, folder, device=device)


def check_units(units: Sequence[int] | np.ndarray, contract: UnitContract, index: int) -> None:
    """Raise VocoderError unless every unit of sequence number `index` is one of the contract's."""
    array = np.asarray(units, np.int64)
    if array.size and not (array.min() >= 0 and array.max() < contract.num_units):
        wrong = array[(array < 0) | (array >= contract.num_units)]
        raise VocoderError(
            f"sequence {index} holds unit {wrong[0]}, outside [0, {contract.num_units}) of its contract; "
            "special tokens must be stripped and the id offset removed before speaking"
        )
