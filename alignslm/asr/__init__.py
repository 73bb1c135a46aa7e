"""Speech to text: what the judge will read."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import numpy as np

from alignslm.config.speech import AsrConfig, CharCtc


class Transcript(NamedTuple):
    """What was heard. `empty`: silence or no word; `failed`: the recogniser gave up. Text is None unless ok."""

    text: str | None
    status: Literal["ok", "empty", "failed"]
    confidence: float | None


class Recogniser(Protocol):
    """Transcribes mono float32 waveforms at `sample_rate_hz`, in order; a text never depends on its batch."""

    sample_rate_hz: int

    def transcribe(self, waveforms: Sequence[np.ndarray]) -> list[Transcript]:
        """Return one transcript a waveform."""
        ...


def prepare_asr(config: AsrConfig, spoken: Sequence[tuple[np.ndarray, str]], folder: Path) -> dict[str, float]:
    """Fit (or fetch) the recogniser on (waveform, text) into `folder`; return training figures for the log."""
    match config:
        case CharCtc():
            from alignslm.asr import char_ctc

            return char_ctc.fit(config, spoken, folder)


def load_asr(config: AsrConfig, folder: Path) -> Recogniser:
    """Load what `prepare_asr` left in `folder`."""
    match config:
        case CharCtc():
            from alignslm.asr.char_ctc import CharCtcRecogniser

            return CharCtcRecogniser.load(folder)
