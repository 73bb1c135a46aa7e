"""Speech to discrete units."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from alignslm.config.hubert import HubertEncoderConfig
from alignslm.config.own_code import PythonEncoderConfig
from alignslm.config.speech import EncoderConfig, MFCCKMeansConfig
from alignslm.config.speech_kmeans import SpeechKMeansConfig
from alignslm.integrity import reading
from alignslm.own_code import FOLDER
from alignslm.provenance import UnitContract


class Encoded(NamedTuple):
    """Deduplicated units and their durations in frames; sum(durations) is the utterance's frame count."""

    units: np.ndarray
    durations: np.ndarray


class Encoder(Protocol):
    """Turns mono float32 waveforms at `contract.sample_rate_hz` into units, one result per waveform, in order.

    An utterance's units are the same alone or in any batch.
    """

    contract: UnitContract

    def encode(self, waveforms: Sequence[np.ndarray]) -> list[Encoded]:
        """Return the units of every waveform."""
        ...


def prepare_encoder(
    config: EncoderConfig, waveforms: Iterable[np.ndarray], folder: Path, *, device: str = "auto", code: Path = FOLDER
) -> None:
    """Fit (or fetch) the encoder into `folder`, which is then all that `load_encoder` needs.

    The source of `kind: python`, which is tried on `device`, is in the folder `code`.
    """
    match config:
        case MFCCKMeansConfig():
            from alignslm.encoder import mfcc_kmeans

            mfcc_kmeans.fit(config, waveforms, folder)
        case HubertEncoderConfig():
            from alignslm.encoder import hubert

            hubert.prepare(config, folder)
        case SpeechKMeansConfig():
            from alignslm.encoder import speech_kmeans

            speech_kmeans.fit(config, waveforms, folder, device=device)
        case PythonEncoderConfig():
            from alignslm.encoder import own

            own.prepare(config, waveforms, folder, code=code, device=device)


def load_encoder(config: EncoderConfig, folder: Path, *, device: str) -> Encoder:
    """Load what `prepare_encoder` left in `folder`, onto `device`: auto, cpu or cuda."""
    with reading(folder):
        match config:
            case MFCCKMeansConfig():
                from alignslm.encoder.mfcc_kmeans import MfccKmeansEncoder

                return MfccKmeansEncoder.load(folder)
            case HubertEncoderConfig():
                from alignslm.encoder.hubert import HubertEncoder

                return HubertEncoder.load(folder, device=device)
            case SpeechKMeansConfig():
                from alignslm.encoder.speech_kmeans import SpeechKMeansEncoder

                return SpeechKMeansEncoder.load(folder, device=device)
            case PythonEncoderConfig():
                from alignslm.encoder import own

                return own.load(config, folder, device=device)
