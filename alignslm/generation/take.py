"""One continuation: units, audio and transcript."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import soundfile

from alignslm import audio
from alignslm.generation.prompt import PlayError, Prompt
from alignslm.storage import atomic_write

FORMATS = (".wav", ".flac", ".ogg", ".mp3")


@dataclass(frozen=True)
class Continuation:
    """One sample of one model for one prompt.

    `waveform` is (samples,) float32 of the continuation without its prompt, `text` its transcript (None unless `status`
    is ok), `finish_reason` why it ended, `seed` its own seed, `logprob` its log-likelihood under the model,
    `judge_score` from 1 to 5 (None if it was not judged).
    """

    model: str
    sample_index: int
    prompt: Prompt
    units: tuple[int, ...]
    finish_reason: Literal["eos", "length"]
    logprob: float
    seed: int
    waveform: np.ndarray
    sample_rate_hz: int
    text: str | None
    status: Literal["ok", "empty", "failed"]
    judge_score: float | None = None

    @property
    def seconds(self) -> float:
        """Duration of the continuation in seconds."""
        return len(self.waveform) / self.sample_rate_hz

    def with_prompt(self) -> np.ndarray:
        """Return the prompt followed by the continuation, (samples,) at the continuation's rate."""
        prompt = audio.resample(self.prompt.waveform, from_hz=self.prompt.sample_rate_hz, to_hz=self.sample_rate_hz)
        return np.concatenate([prompt, self.waveform])

    def save(self, path: Path | str, *, prompt: bool = False) -> None:
        """Write the continuation, with `prompt` after its prompt, in the format of the suffix (FORMATS)."""
        write_audio(self.with_prompt() if prompt else self.waveform, self.sample_rate_hz, Path(path))


def write_audio(waveform: np.ndarray, sample_rate_hz: int, path: Path) -> None:
    """Write (samples,) float32 in the format of the suffix; equal samples give equal bytes, except in ogg."""
    if path.suffix not in FORMATS:
        raise PlayError(f"{path} has no known suffix; use one of {', '.join(FORMATS)}")
    with atomic_write(path) as partial:
        if path.suffix == ".flac":
            partial.write_bytes(audio.encode_flac(waveform, sample_rate_hz))
        else:
            soundfile.write(partial, waveform, sample_rate_hz, format=path.suffix.removeprefix(".").upper())
