"""Sentences as one waveform: each synthesized separately, with a fixed pause between. Imported by worker processes."""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from alignslm.audio import encode_flac
from alignslm.storyworld.espeak import synthesize

PAUSE_S = 0.2
"""Silence between two sentences, about what espeak-ng makes of a full stop at this speaking rate."""


GRID_S = 0.04
"""Every sentence starts on a multiple of this. A unit encoder of that frame period (or a divisor of it) then hears a
sentence in one phase only; at random phases nearly a third of the units change, and a model as small as the embedded
one spends its few steps on learning that."""


class SynthesizedStory(NamedTuple):
    """One spoken story, as it goes into a table. The prompt ends in the middle of the first pause."""

    flac: bytes
    num_samples: int
    prompt_end_s: float


@lru_cache(maxsize=2048)
def _sentence(text: str, voice: str, words_per_minute: int, sample_rate_hz: int) -> np.ndarray:
    waveform = synthesize(text, voice=voice, words_per_minute=words_per_minute, sample_rate_hz=sample_rate_hz)
    waveform.setflags(write=False)
    return waveform


def synthesize_story(
    sentences: Sequence[str], *, voice: str, words_per_minute: int, sample_rate_hz: int
) -> tuple[np.ndarray, float]:
    """Return (samples,) float32 of the sentences and the time in s where the first one ends.

    That time is in the middle of the pause after it; of a single sentence it is the end of the waveform.
    """
    pause, grid = round(PAUSE_S * sample_rate_hz), round(GRID_S * sample_rate_hz)
    parts: list[np.ndarray] = []
    for sentence in sentences:
        spoken = _sentence(sentence, voice, words_per_minute, sample_rate_hz)
        parts += [spoken, np.zeros(pause + -(len(spoken) + pause) % grid, np.float32)]
    waveform = np.concatenate(parts[:-1])
    first_end = min(len(parts[0]) + pause // 2, len(waveform))
    return waveform, first_end / sample_rate_hz


def synthesize_stories(
    stories: Sequence[Sequence[str]], *, voice: str, words_per_minute: int, sample_rate_hz: int
) -> list[SynthesizedStory]:
    """Speak every story, given as its sentences, into FLAC."""
    synthesized = []
    for sentences in stories:
        waveform, end_s = synthesize_story(
            sentences, voice=voice, words_per_minute=words_per_minute, sample_rate_hz=sample_rate_hz
        )
        synthesized.append(SynthesizedStory(encode_flac(waveform, sample_rate_hz), len(waveform), end_s))
    return synthesized
