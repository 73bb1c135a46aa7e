"""Whisper by CTranslate2: the transcripts of `whisper` on the same weights, and those weights in either form."""

import json

import numpy as np
import pytest

from alignslm.asr import ASRError, load_asr, prepare_asr
from alignslm.config.ctranslate2_file import CTranslate2Error
from alignslm.config.model_folders import model_folder_problems
from alignslm.config.whisper import FasterWhisperASRConfig
from alignslm.loading.ctranslate2 import read_state
from tests.messages import names
from tests.test_whisper import SILENT, SOUNDS
from tests.tiny_whisper import config_of, write_ctranslate2, write_whisper


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A tiny checkpoint in both forms; no token is suppressed, so that both kinds speak of the same probabilities."""
    folder = tmp_path_factory.mktemp("published")
    source = write_whisper(folder / "transformers")
    settings = source / "generation_config.json"
    none = {"suppress_tokens": None, "begin_suppress_tokens": None}
    settings.write_text(json.dumps({**json.loads(settings.read_text()), **none}))
    return source, write_ctranslate2(folder / "ctranslate2", source)


def faster(folder, **changes):
    values = {**config_of(folder).model_dump(), "kind": "faster-whisper", "compute_type": "float32"}
    del values["dtype"]
    return FasterWhisperASRConfig.model_validate({**values, **changes})


def recognizer(config, folder):
    folder.mkdir()
    prepare_asr(config, [], folder)
    return load_asr(config, folder, device="cpu")


@pytest.mark.parametrize("quantization", ["float32", "float16", "bfloat16", "int8"])
def test_the_weights_are_those_that_were_converted(published, tmp_path, quantization):
    before = read_state(published[1])
    after = read_state(write_ctranslate2(tmp_path / "model", published[0], quantization=quantization))
    assert before.keys() == after.keys()
    worst = max(
        float((after[name].float() - tensor).abs().max() / tensor.abs().max().clip(1e-9))
        for name, tensor in before.items()
    )
    bits = {"float32": 0, "float16": 2**-11, "bfloat16": 2**-8, "int8": 1 / 254}  # half of a step
    assert worst <= bits[quantization] * 1.001


def test_whisper_reads_either_form(published, tmp_path):
    one, other = (recognizer(config_of(path), tmp_path / path.name).transcribe(SOUNDS) for path in published)
    assert one == other


def test_it_transcribes_as_whisper_does(published, tmp_path):
    expected = recognizer(config_of(published[1]), tmp_path / "whisper").transcribe(SOUNDS)
    found = recognizer(faster(published[1]), tmp_path / "faster").transcribe(SOUNDS)
    assert len({one.text for one in expected}) > 3
    for one, other in zip(found, expected, strict=True):
        assert one._replace(confidence=0, no_speech_prob=0) == other._replace(confidence=0, no_speech_prob=0)
        assert one.no_speech_prob == pytest.approx(other.no_speech_prob, abs=2e-4)
        assert one.confidence == pytest.approx(other.confidence, abs=2e-4)


def test_tokens_that_the_checkpoint_suppresses_are_not_written(tmp_path):
    source = write_whisper(tmp_path / "transformers")  # suppresses whatever is no letter
    converted = write_ctranslate2(tmp_path / "ctranslate2", source)
    expected = recognizer(config_of(source), tmp_path / "whisper").transcribe(SOUNDS)
    found = recognizer(faster(converted), tmp_path / "faster").transcribe(SOUNDS)
    assert [one.text for one in found] == [one.text for one in expected]


def test_a_transcript_does_not_depend_on_its_neighbours(published, tmp_path):
    model = recognizer(faster(published[1]), tmp_path / "asr")
    together = model.transcribe(SOUNDS)
    assert [model.transcribe([sound])[0] for sound in SOUNDS] == together
    assert model.transcribe(SOUNDS[::-1]) == together[::-1]


def test_silence_and_what_is_no_number_are_not_heard(published, tmp_path):
    model = recognizer(faster(published[1]), tmp_path / "asr")
    broken = np.full(100, np.nan, np.float32)
    heard = model.transcribe([np.zeros(8000, np.float32), np.zeros(0, np.float32), broken])
    assert heard[:2] == [SILENT, SILENT]
    assert heard[2].status == "failed"


def test_the_guards_of_whisper_hold(published, tmp_path):
    loose = recognizer(faster(published[1]), tmp_path / "loose").transcribe(SOUNDS)
    ratios = sorted(one.compression_ratio for one in loose)
    middle = (ratios[3] + ratios[4]) / 2
    limited = {"compression_ratio_threshold": max(1.01, middle)}
    found = recognizer(faster(published[1], **limited), tmp_path / "strict").transcribe(SOUNDS)
    for before, after in zip(loose, found, strict=True):
        repeats = before.compression_ratio > max(1.01, middle)
        assert after.status == ("failed" if repeats else "ok")
    least = sorted(one.confidence for one in loose)[4]
    found = recognizer(faster(published[1], confidence_threshold=least), tmp_path / "sure").transcribe(SOUNDS)
    assert [one.status for one in found] == ["failed" if one.confidence < least else "ok" for one in loose]


def test_what_is_wrong_with_a_folder(published, tmp_path):
    source, converted = published
    with pytest.raises(ASRError, match=r"model\.bin"):
        prepare_asr(faster(source), [], tmp_path)
    (problem,) = model_folder_problems(faster(source), source)
    names(problem, "model.bin", "kind: whisper")
    assert model_folder_problems(faster(converted), converted) == []
    assert model_folder_problems(config_of(converted), converted) == []
    with pytest.raises(ASRError, match="language"):
        prepare_asr(faster(converted, language="sv"), [], tmp_path)


@pytest.mark.parametrize("num_bytes", [3, 40, 5000, -1])
def test_a_file_that_is_cut_off_is_told(published, tmp_path, num_bytes):
    content = (published[1] / "model.bin").read_bytes()
    (tmp_path / "model.bin").write_bytes(content[:num_bytes])
    with pytest.raises(CTranslate2Error, match=r"model\.bin"):
        read_state(tmp_path)


def test_another_model_is_told(published, tmp_path):
    content = (published[1] / "model.bin").read_bytes()
    (tmp_path / "model.bin").write_bytes(content.replace(b"WhisperSpec", b"MarianSpecs"))
    with pytest.raises(CTranslate2Error, match="MarianSpecs"):
        read_state(tmp_path)
