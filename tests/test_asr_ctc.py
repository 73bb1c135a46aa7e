"""The embedded recogniser on real tones: each letter is a pitch, so what it should hear is known."""

import itertools
import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from alignslm.asr import Transcript, load_asr, prepare_asr
from alignslm.asr.char_ctc import (
    ASRError,
    CharCTCASR,
    MelToCharacters,
    collapse,
    fit,
    needed_frames,
)
from alignslm.config.speech import CharCTCASRConfig
from alignslm.convnet import DivergedError
from tests.messages import names

RATE_HZ = 16000
PITCHES_HZ = {"a": 400.0, "b": 900.0, "c": 2000.0, " ": 4500.0}
CONFIG = CharCTCASRConfig(
    kind="char-ctc",
    seed=1,
    fit_utterances=24,
    sample_rate_hz=RATE_HZ,
    num_mels=24,
    hop_samples=160,
    window_samples=400,
    channels=32,
    layers=2,
    steps=120,
    batch_size=8,
    learning_rate=0.01,
    resynthesized_fraction=0.0,
    silence_rms=0.001,
)


def say(text: str) -> np.ndarray:
    """80 ms of a letter's tone and 40 ms of near silence, letter after letter."""
    time = np.arange(round(0.08 * RATE_HZ)) / RATE_HZ
    gap = np.zeros(round(0.04 * RATE_HZ))
    tones = [[0.3 * np.sin(2 * np.pi * PITCHES_HZ[letter] * time), gap] for letter in text]
    return np.concatenate(list(itertools.chain.from_iterable(tones))).astype(np.float32)


def words(seed: int) -> str:
    rng = np.random.default_rng(seed)
    return " ".join("".join(rng.choice(list("abc"), size=rng.integers(1, 5))) for _ in range(3))


SPOKEN = [(say(words(seed)), words(seed)) for seed in range(24)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("asr")
    figures = prepare_asr(CONFIG, [*SPOKEN, (say("a"), "abcabcabc")], folder)
    assert figures["unalignable"] == 1.0
    assert figures["loss_nats"] < 0.2
    return folder


@pytest.fixture(scope="module")
def recogniser(folder):
    return load_asr(CONFIG, folder, device="cpu")


def test_it_hears_unseen_texts(recogniser):
    texts = [words(seed) for seed in range(100, 106)]
    heard = recogniser.transcribe([say(text) for text in texts])
    assert [item.text for item in heard] == texts
    assert all(item.status == "ok" for item in heard)
    assert all(0.5 < item.confidence <= 1 for item in heard)


def test_a_transcript_does_not_depend_on_its_batch(recogniser):
    waveforms = [say(words(seed)) for seed in range(200, 208)]
    together = recogniser.transcribe(waveforms)
    assert [recogniser.transcribe([waveform])[0] for waveform in waveforms] == together
    assert recogniser.transcribe(waveforms[::-1])[::-1] == together


def test_silence_nothing_and_nan_by_value(recogniser):
    broken = say("a")
    broken[5] = np.nan
    endless = say("a")
    endless[5] = np.inf
    quiet = np.full(8000, 0.0009, np.float32)
    rows = [np.zeros(8000, np.float32), np.zeros(0, np.float32), quiet, broken, endless]
    empty, failed = Transcript(None, "empty", None), Transcript(None, "failed", None)
    assert recogniser.transcribe(rows) == [empty, empty, empty, failed, failed]
    assert recogniser.transcribe([]) == []


def test_sound_without_a_character_is_empty(folder):
    recogniser = CharCTCASR.load(folder)
    with torch.no_grad():
        recogniser._model.head.bias[0] += 100  # every frame is blank now
    (found,) = recogniser.transcribe([say("abc")])
    assert found == Transcript(None, "empty", pytest.approx(1.0))  # decoded, so its confidence is known


def test_a_text_of_less_confidence_than_the_limit_is_discarded(folder, recogniser):
    rng = np.random.default_rng(0)
    sounds = [say("ab c"), *(say("ab c") + rng.normal(0, 0.2 * loud, 7680).astype(np.float32) for loud in (1, 2, 3))]
    heard = recogniser.transcribe(sounds)
    least = sorted(one.confidence for one in heard)[2]
    limited = CharCTCASR(CONFIG.model_copy(update={"confidence_threshold": least}), *loaded(folder))
    assert "failed" in {one.status for one in limited.transcribe(sounds)}
    for one, found in zip(heard, limited.transcribe(sounds), strict=True):
        unsure = bool(one.text) and one.confidence < least
        assert found == (one._replace(text=None, status="failed", raw_text=one.text) if unsure else one)
    assert "confidence_threshold" not in json.loads((folder / "recogniser.json").read_text())["config"]  # as before


def loaded(folder):
    found = CharCTCASR.load(folder)
    return found._alphabet, found._model


def test_one_sample_is_enough_to_answer(recogniser):
    (item,) = recogniser.transcribe([np.ones(1, np.float32)])
    assert item.status in {"ok", "empty"}


def test_loading_gives_what_was_saved(folder, recogniser):
    again = CharCTCASR.load(folder)
    assert again.sample_rate_hz == RATE_HZ
    assert again.transcribe([say("ab c")]) == recogniser.transcribe([say("ab c")])


def test_fitting_twice_gives_the_same_bytes(tmp_path):
    short = CONFIG.model_copy(update={"steps": 4})
    for name, config in {"a": short, "b": short, "c": short.model_copy(update={"seed": 2})}.items():
        fit(config, SPOKEN, tmp_path / name)
    for file in ("model.safetensors", "recogniser.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    assert (tmp_path / "a/model.safetensors").read_bytes() != (tmp_path / "c/model.safetensors").read_bytes()


def test_padding_and_mask_change_nothing_for_a_row():
    torch.manual_seed(0)
    model = MelToCharacters(CONFIG, num_classes=5)
    mel = torch.randn(1, 21, 24)
    padded = torch.cat([mel, torch.zeros(1, 12, 24)], dim=1)
    mask = (torch.arange(17) < 11).float()[None, None]
    with torch.no_grad():
        torch.testing.assert_close(model(padded, mask)[:, :11], model(mel))
        assert not torch.allclose(model(padded)[:, :11], model(mel), atol=1e-4)  # the mask is what does it


def test_errors_say_what_to_do(tmp_path):
    with pytest.raises(ASRError) as raised:
        fit(CONFIG, [(say("a"), "")], tmp_path)
    names(raised.value, "1 training utterances", "text", "audio", "train split")
    with pytest.raises(ASRError) as raised:
        CharCTCASR.load(tmp_path)
    names(raised.value, "dvc repro asr", "recogniser.json")
    unstable = CONFIG.model_copy(update={"learning_rate": 1e30, "steps": 20})
    with pytest.raises(DivergedError) as raised:
        fit(unstable, SPOKEN, tmp_path)
    names(raised.value, "loss", "step", "20", "learning_rate")


@pytest.mark.parametrize(
    ("classes", "labels"),
    [([], []), ([0, 0], []), ([1, 1, 0, 1, 2, 2], [1, 1, 2]), ([3, 0, 3, 3], [3, 3]), ([1, 2, 1], [1, 2, 1])],
)
def test_collapse_by_hand(classes, labels):
    assert collapse(classes) == labels


@given(st.lists(st.integers(0, 3), max_size=30))
def test_collapse_equals_its_definition(classes):
    expected = [c for i, c in enumerate(classes) if c != 0 and (i == 0 or classes[i - 1] != c)]
    assert collapse(classes) == expected


@given(st.lists(st.integers(1, 2), max_size=3))
def test_needed_frames_is_the_shortest_path_that_collapses_to_the_labels(labels):
    paths = (n for n in range(7) for path in itertools.product(range(3), repeat=n) if collapse(path) == labels)
    assert needed_frames(labels) == next(paths)
