"""A sound file that is to be continued: read, measured, and refused with a reason where nothing can come of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alignslm import audio
from alignslm.provenance import content_id

SILENCE_RMS = 1e-3  # -60 dB full scale: below it no microphone has heard anybody


class PlayError(ValueError):
    """A model, a prompt or a place to write to cannot be used as asked."""


@dataclass(frozen=True)
class Prompt:
    """What a model is to continue.

    `waveform` is (samples,) float32 as recorded, `units` what the encoder makes of it. `prompt_id` is the key of its
    randomness: a prompt of the experiment has the id of its table, a file one made of its units, so that a copy
    under another name is continued alike. `text` is what the recogniser heard, None where it heard no word.
    """

    prompt_id: str
    name: str
    waveform: np.ndarray
    sample_rate_hz: int
    units: tuple[int, ...]
    text: str | None

    @property
    def seconds(self) -> float:
        """How long it sounds."""
        return len(self.waveform) / self.sample_rate_hz


def prompt_key(units: Sequence[int]) -> str:
    """Return the prompt_id of units that no prompts table holds."""
    return content_id("prompt", [int(unit) for unit in units])


def read_sound(file: Path, *, seconds: float | None, longest_s: float) -> tuple[np.ndarray, int]:
    """Read a prompt: (samples,) float32, channels averaged, and its rate in Hz.

    `seconds` takes so much of its beginning, less where there is less. Without it a file above `longest_s` is refused.
    PlayError names the file, what is wrong with it and what would help.
    """
    if not file.is_file():
        raise PlayError(f"{file} is no file. Name a sound file (wav, flac, ogg, mp3), or the id of a prompt.")
    try:
        waveform, rate_hz = audio.decode(file.read_bytes(), channels="mix")
    except audio.AudioError as error:
        raise PlayError(
            f"{file} is no sound file that can be read here: {error.__cause__ or error} "
            f"Wav, flac, ogg and mp3 can; `ffmpeg -i {file} prompt.wav` converts most others."
        ) from error
    if not np.isfinite(waveform).all():
        raise PlayError(f"{file} holds samples that are NaN or infinite: it is damaged. Export it again.")
    length_s = len(waveform) / rate_hz
    if seconds is None and length_s > longest_s:
        raise PlayError(
            f"{file} lasts {length_s:.1f} s; the model has learnt to continue prompts of up to {longest_s:g} s "
            f"(prompts.max_s). Take its beginning with --prompt-seconds {longest_s:g}, or cut it yourself."
        )
    return _audible(waveform if seconds is None else waveform[: round(seconds * rate_hz)], file), rate_hz


def _audible(waveform: np.ndarray, file: Path) -> np.ndarray:
    """Return the waveform, or raise PlayError where it is silence."""
    level = audio.rms(waveform)
    if level < SILENCE_RMS:
        told = "no samples" if not waveform.size else f"{20 * np.log10(max(level, 1e-9)):.0f} dB full scale"
        raise PlayError(
            f"{file} is silent ({told}; speech is above -60). Was the microphone off, or does speech begin "
            "later than the part that is used?"
        )
    return waveform
