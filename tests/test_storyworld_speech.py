"""espeak-ng through ctypes: reproducible samples, and errors that name close voices."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignslm.storyworld import StoryWorldError, espeak
from alignslm.storyworld.narration import GRID_S, PAUSE_S, synthesize_stories, synthesize_story
from tests.messages import names

HOW = {"voice": "en-us", "words_per_minute": 170, "sample_rate_hz": 16000}
TEXTS = ["anna feeds some red ducks", "she brushes them", "soon she picks ripe corn again"]


def digest(text: str) -> str:
    return hashlib.sha256(espeak.synthesize(text, **HOW).tobytes()).hexdigest()


def test_samples_do_not_depend_on_what_was_spoken_before_or_on_the_process() -> None:
    forward = {text: digest(text) for text in TEXTS}
    backward = {text: digest(text) for text in reversed(TEXTS)}
    script = (
        "import hashlib; from alignslm.storyworld.espeak import synthesize;"
        f"print(hashlib.sha256(synthesize({TEXTS[1]!r}, **{HOW!r}).tobytes()).hexdigest())"
    )
    elsewhere = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert forward == backward
    assert len(set(forward.values())) == len(TEXTS)
    assert elsewhere.strip() == forward[TEXTS[1]]


def test_speech_is_mono_float32_trimmed_and_of_plausible_length() -> None:
    waveform = espeak.synthesize("she brushes the ducks through the gate", **HOW)
    assert (waveform.dtype, waveform.ndim) == (np.float32, 1)
    assert 1.2 < len(waveform) / 16000 < 2.5
    assert 0.05 < np.sqrt(np.mean(waveform**2)) < 0.5
    # The resampling filter rings for a few samples before the first loud one.
    assert np.abs(waveform[:80]).max() > 0.001
    assert np.abs(waveform[-80:]).max() > 0.001


def test_faster_speech_is_shorter_and_twice_the_rate_gives_twice_the_samples() -> None:
    slow, fast = (espeak.synthesize(TEXTS[0], **{**HOW, "words_per_minute": wpm}) for wpm in (120, 240))
    assert len(fast) < 0.7 * len(slow)
    half = espeak.synthesize(TEXTS[0], **{**HOW, "words_per_minute": 120, "sample_rate_hz": 8000})
    assert abs(2 * len(half) - len(slow)) <= 2


def test_phoneme_input_says_the_word_and_bars_change_nothing() -> None:
    word = espeak.synthesize("boat", **HOW)
    for text in ("[[b'oUt]]", "[[b|'oU|t]]"):
        np.testing.assert_array_equal(espeak.synthesize(text, **HOW), word)


@pytest.mark.parametrize("voice", [*sorted(espeak.voices())[::7], "en", "en-us", "en-us+m3", "nb"])
def test_every_voice_that_is_offered_speaks(voice) -> None:
    assert espeak.synthesize("da", **{**HOW, "voice": voice}).size > 1000


def test_phonemes_keep_stress_before_the_vowel() -> None:
    assert espeak.phonemes(("boat", "teacher"), voice="en-us") == [("b", "'oU", "t"), ("t", "'i:", "tS", "3")]


@pytest.mark.parametrize(
    ("voice", "message"),
    [
        ("en-uk", ("'en-uk'", "espeak-ng", "en-us, uk, eu, en-us-nyc", "voice")),
        ("en-us+zz", ("'zz'", "espeak-ng")),
    ],
)
def test_an_unknown_voice_is_told_with_close_ones(voice: str, message: str) -> None:
    with pytest.raises(StoryWorldError) as error:
        espeak.synthesize("hello", **{**HOW, "voice": voice})
    names(error.value, *message)


def test_a_text_without_words_is_an_error() -> None:
    with pytest.raises(StoryWorldError, match=r"made no sound of '' with voice 'en-us'"):
        espeak.synthesize("", **HOW)


def test_a_library_held_by_somebody_else_is_found_out() -> None:
    import _ctypes
    import ctypes

    import espeakng_loader

    held = ctypes.CDLL(str(espeakng_loader.get_library_path()))
    try:
        with pytest.raises(StoryWorldError, match="stays loaded"):
            espeak.synthesize("hello", **HOW)
    finally:
        _ctypes.dlclose(held._handle)
    assert digest(TEXTS[0]) == digest(TEXTS[0])


@given(st.lists(st.sampled_from([0.0, 0.001, -0.0019, 0.002, -0.5, 0.3]), max_size=30))
def test_trim_cuts_quiet_ends_alone(samples: list[float]) -> None:
    wave = np.array(samples, np.float32)
    expected = list(wave)
    for end in (0, -1):
        while expected and abs(expected[end]) < np.float32(0.002):
            expected.pop(end)
    assert espeak.trim(wave).tolist() == expected


def test_sentences_start_on_the_grid_after_a_pause_and_the_prompt_ends_in_the_first() -> None:
    waveform, end_s = synthesize_story(TEXTS, **HOW)
    parts = [espeak.synthesize(text, **HOW) for text in TEXTS]
    pause, grid = round(PAUSE_S * 16000), round(GRID_S * 16000)
    expected: list[float] = []
    for part in parts:
        if expected:
            expected += [0.0] * pause
        while len(expected) % grid:
            expected.append(0.0)
        expected += part.tolist()
    np.testing.assert_array_equal(waveform, np.array(expected, np.float32))
    assert end_s == pytest.approx(len(parts[0]) / 16000 + PAUSE_S / 2)
    alone, alone_end_s = synthesize_story(TEXTS[:1], **HOW)
    assert alone_end_s == len(alone) / 16000


def test_narration_is_the_same_alone_and_among_others() -> None:
    stories = [TEXTS, TEXTS[::-1]]
    assert synthesize_stories(stories, **HOW) == [synthesize_stories([story], **HOW)[0] for story in stories]
