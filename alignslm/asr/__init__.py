"""ASR models: transcripts of speech, for the judges."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import numpy as np

from alignslm.config.own_code import PythonASRConfig
from alignslm.config.speech import AsrConfig, CharCTCASRConfig
from alignslm.config.whisper import FasterWhisperASRConfig, WhisperASRConfig
from alignslm.integrity import reading
from alignslm.own_code import FOLDER


class ASRError(ValueError):
    """An ASR model is missing, differs from its config, or cannot be trained on the given data."""


class Transcript(NamedTuple):
    """ASR output. `empty`: silence or no word; `failed`: no usable output. `text` is None unless `status` is ok.

    `confidence` is None only if nothing was decoded, so that thresholds can be tuned from the table.

    `text` is what judges and metrics read; `raw_text` is the model's own output if that may differ,
    kept even if the status is empty.
    Signs of hallucination, None if the model has none: `no_speech_prob`, the probability of no speech,
    and `compression_ratio`, bytes of raw text over bytes after zlib (repetition compresses: above about 2.4).
    """

    text: str | None
    status: Literal["ok", "empty", "failed"]
    confidence: float | None
    raw_text: str | None = None
    no_speech_prob: float | None = None
    compression_ratio: float | None = None


class ASRModel(Protocol):
    """Transcribes mono float32 waveforms at `sample_rate_hz`, in order; a text never depends on its batch."""

    sample_rate_hz: int

    def transcribe(self, waveforms: Sequence[np.ndarray]) -> list[Transcript]:
        """Return one transcript per waveform."""
        ...


def prepare_asr(
    config: AsrConfig,
    spoken: Sequence[tuple[np.ndarray, str]],
    folder: Path,
    *,
    device: str = "auto",
    code: Path = FOLDER,
) -> dict[str, float]:
    """Fit (or fetch) the ASR model on (waveform, text) into `folder`; return training figures for the log.

    The source of `kind: python`, which is tried on `device`, is in the folder `code`.
    """
    match config:
        case CharCTCASRConfig():
            from alignslm.asr import char_ctc

            return char_ctc.fit(config, spoken, folder)
        case WhisperASRConfig():
            from alignslm.asr import whisper_checkpoint

            return whisper_checkpoint.fetch(config, folder)
        case FasterWhisperASRConfig():
            from alignslm.asr import faster_whisper

            return faster_whisper.fetch(config, folder)
        case PythonASRConfig():
            from alignslm.asr import own

            return own.prepare(config, spoken, folder, code=code, device=device)


def load_asr(config: AsrConfig, folder: Path, *, device: str) -> ASRModel:
    """Load what `prepare_asr` left in `folder`, onto `device`: auto, cpu or cuda."""
    with reading(folder):
        match config:
            case CharCTCASRConfig():
                from alignslm.asr.char_ctc import CharCTCASR

                return CharCTCASR.load(folder)  # small enough to run on any CPU
            case WhisperASRConfig():
                from alignslm.asr.whisper import WhisperASR

                return WhisperASR.load(folder, device=device)
            case FasterWhisperASRConfig():
                from alignslm.asr.faster_whisper import FasterWhisperASR

                return FasterWhisperASR.load(folder, device=device)
            case PythonASRConfig():
                from alignslm.asr import own

                return own.load(config, folder, device=device)
