"""The spoken prompt of a continuation: read, and rejected with a reason if no model can continue it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alignslm import audio
from alignslm.provenance import content_id

SILENCE_RMS = 1e-3  # -60 dB full scale; below it there is no speech


class PlayError(ValueError):
    """A model, a prompt or an output path cannot be used."""


@dataclass(frozen=True)
class Prompt:
    """A spoken prompt.

    `waveform` is (samples,) float32 as recorded, `units` its encoding. `prompt_id` is the key of its randomness: a
    prompt of the experiment has the id in its table, a file an id made of its units, so that a copy under another name
    has the same continuations. `text` is the transcript, None if there are no words.
    """

    prompt_id: str
    name: str
    waveform: np.ndarray
    sample_rate_hz: int
    units: tuple[int, ...]
    text: str | None

    @property
    def seconds(self) -> float:
        """Duration in seconds."""
        return len(self.waveform) / self.sample_rate_hz


def prompt_key(units: Sequence[int]) -> str:
    """Return the prompt_id of units that are not in a prompts table."""
    return content_id("prompt", [int(unit) for unit in units])


def read_audio(file: Path, *, seconds: float | None, max_duration_s: float) -> tuple[np.ndarray, int]:
    """Read a prompt: (samples,) float32, channels averaged, and its rate in Hz.

    `seconds` keeps only the beginning. Without it, a file longer than `max_duration_s` is rejected. PlayError says
    what is wrong with the file and what would help.
    """
    if not file.is_file():
        raise PlayError(f"{file} does not exist. Pass an audio file (wav, flac, ogg, mp3) or a prompt id.")
    try:
        waveform, rate_hz = audio.decode(file.read_bytes(), channels="mix")
    except audio.AudioError as error:
        raise PlayError(
            f"{file} is not a readable audio file: {error.__cause__ or error} "
            f"Wav, flac, ogg and mp3 are supported; `ffmpeg -i {file} prompt.wav` converts most others."
        ) from error
    if not np.isfinite(waveform).all():
        raise PlayError(f"{file} has samples that are NaN or infinite: it is damaged. Export it again.")
    length_s = len(waveform) / rate_hz
    if seconds is None and length_s > max_duration_s:
        raise PlayError(
            f"{file} lasts {length_s:.1f} s; the model was trained on at most {max_duration_s:g} s "
            f"(prompts.max_duration_s). Use its beginning with --prompt-seconds {max_duration_s:g}, or cut it."
        )
    return _audible(waveform if seconds is None else waveform[: round(seconds * rate_hz)], file), rate_hz


def _audible(waveform: np.ndarray, file: Path) -> np.ndarray:
    """Return the waveform, or raise PlayError if it is silent."""
    level = audio.rms(waveform)
    if level < SILENCE_RMS:
        level_text = "no samples" if not waveform.size else f"{20 * np.log10(max(level, 1e-9)):.0f} dB full scale"
        raise PlayError(
            f"{file} is silent ({level_text}; speech is above -60). Was the microphone off, or does speech begin "
            "after the part that is used?"
        )
    return waveform
