"""Discrete units to speech."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from alignslm.config.own_code import PythonVocoderConfig
from alignslm.config.speech import ConvGriffinLimConfig, VocoderConfig
from alignslm.config.unit_hifigan import ScratchUnitHiFiGANConfig, UnitHiFiGANConfig
from alignslm.integrity import reading
from alignslm.own_code import FOLDER
from alignslm.provenance import UnitContract


class VocoderError(ValueError):
    """Units, waveforms and settings of a vocoder do not belong together."""


MAX_DRIFT_FRAMES = 3
"""Encoders pad differently: units may cover this many frames more or less than the waveform."""


class VocoderExample(NamedTuple):
    """One training utterance: deduplicated units, durations in frames, the waveform they came from, its speaker."""

    units: np.ndarray
    durations: np.ndarray
    waveform: np.ndarray
    speaker: str = ""


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
    work: Path | None = None,
    device: str = "auto",
    code: Path = FOLDER,
) -> dict[str, float]:
    """Fit (or fetch) the vocoder into `folder`; return training figures for the log (losses).

    A long training resumes from the checkpoints it keeps in `work`. The source of `kind: python`, which is tried
    on `device`, is in the folder `code`.
    """
    match config:
        case ConvGriffinLimConfig():
            from alignslm.vocoder import conv_griffinlim

            return conv_griffinlim.fit(config, utterances, contract, folder)
        case UnitHiFiGANConfig():
            from alignslm.vocoder import unit_hifigan

            return unit_hifigan.fetch(config, contract, folder)
        case ScratchUnitHiFiGANConfig():
            from alignslm.vocoder import hifigan_training

            return hifigan_training.fit(config, utterances, contract, folder, work=work, device=device)
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
            case UnitHiFiGANConfig() | ScratchUnitHiFiGANConfig():
                from alignslm.vocoder.unit_hifigan import UnitHifiganVocoder

                return UnitHifiganVocoder.load(folder, device=device, dtype=config.dtype)
            case PythonVocoderConfig():
                from alignslm.vocoder import own

                return own.load(config, folder, device=device)


def check_units(units: Sequence[int] | np.ndarray, contract: UnitContract, index: int) -> None:
    """Raise VocoderError unless every unit of sequence number `index` is one of the contract's."""
    array = np.asarray(units, np.int64)
    if array.size and not (array.min() >= 0 and array.max() < contract.num_units):
        wrong = array[(array < 0) | (array >= contract.num_units)]
        raise VocoderError(
            f"sequence {index} contains unit {wrong[0]}, outside [0, {contract.num_units}) of its contract; "
            "special tokens must be stripped and the id offset removed before synthesis"
        )


def check_examples(utterances: Sequence[VocoderExample], contract: UnitContract, *, sample_rate_hz: int) -> None:
    """Raise VocoderError unless there are training utterances, and units and audio of each cover the same time."""
    if not utterances:
        raise VocoderError("no utterance to fit the vocoder on; is the train split empty?")
    for index, row in enumerate(utterances):
        _check_example(row, contract, index, sample_rate_hz)


def _check_example(row: VocoderExample, contract: UnitContract, index: int, sample_rate_hz: int) -> None:
    if not len(row.units) or len(row.units) != len(row.durations):
        raise VocoderError(
            f"training utterance {index} has {len(row.units)} units and {len(row.durations)} durations; "
            "they must match and not be empty. Remake the units: `dvc repro units`."
        )
    check_units(row.units, contract, index)
    covered, heard = int(np.sum(row.durations)), len(row.waveform) / sample_rate_hz * contract.frame_rate_hz
    if abs(covered - heard) > MAX_DRIFT_FRAMES:
        raise VocoderError(
            f"training utterance {index} has units for {covered} frames but audio for {heard:.1f} frames of "
            f"{contract.frame_rate_hz:g} Hz; the waveform is not at {sample_rate_hz} Hz, or the units are "
            "of another utterance"
        )
