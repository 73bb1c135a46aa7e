"""Whisper in batches against transformers' own decoding of one recording, and a loop over single tokens."""

import json
import shutil
import zlib
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from alignslm import tables
from alignslm.asr import ASRError, Transcript, load_asr, prepare_asr, whisper
from alignslm.asr.rows import transcribe
from alignslm.asr.whisper import DecodedSegment, compression_ratio, normalize_text
from alignslm.audio import AudioError, encode_flac, resample
from alignslm.fetching import FetchError
from alignslm.integrity import DamagedError
from alignslm.loading import WeightsError
from tests.messages import names
from tests.tiny_whisper import MAX_TOKENS, RATE_HZ, config_of, write_whisper

SILENT = Transcript(None, "empty", None)


def sound(seed: int, seconds: float) -> np.ndarray:
    """A tone of its own pitch whose loudness wavers at random."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * RATE_HZ))
    return (0.1 * rng.standard_normal(time.size) * np.sin(time * rng.uniform(0.01, 1))).astype(np.float32)


SOUNDS = [sound(seed, seconds) for seed, seconds in enumerate((0.9, 0.2, 0.5, 1.0, 0.3, 0.7, 0.1, 0.6))]


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    return write_whisper(tmp_path_factory.mktemp("published") / "whisper")


def recogniser_of(published, folder, **changes):
    config = config_of(published, **changes)
    prepare_asr(config, [], folder)
    return load_asr(config, folder, device="cpu")


@pytest.fixture(scope="module")
def recogniser(published, tmp_path_factory):
    return recogniser_of(published, tmp_path_factory.mktemp("asr"))


def official_text(folder, waveform, **options):
    """What a user of transformers would get for one recording."""
    processor = WhisperProcessor.from_pretrained(folder)
    model = WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    features = processor(waveform, sampling_rate=RATE_HZ, return_tensors="pt").input_features
    ids = model.generate(features, max_new_tokens=MAX_TOKENS, **options)
    return processor.batch_decode(ids, skip_special_tokens=True)[0].strip()


@pytest.mark.parametrize("beams", [1, 3])
def test_it_reads_what_transformers_reads_one_by_one(published, tmp_path, beams):
    heard = recogniser_of(published, tmp_path, num_beams=beams).transcribe(SOUNDS)
    texts = [official_text(published, sound, language="en", task="transcribe", num_beams=beams) for sound in SOUNDS]
    assert [item.text for item in heard] == texts
    assert len(set(texts)) >= 6
    assert len({len(text) for text in texts}) >= 3  # rows of the batch end at different steps


def test_language_and_task_are_said_to_the_model(published, tmp_path, recogniser):
    other = recogniser_of(published, tmp_path, language="german", task="translate").transcribe(SOUNDS)
    texts = [official_text(published, sound, language="de", task="translate") for sound in SOUNDS]
    assert [item.text for item in other] == texts
    assert texts != [item.text for item in recogniser.transcribe(SOUNDS)]


def test_an_english_only_checkpoint(tmp_path):
    english = write_whisper(tmp_path / "whisper.en", multilingual=False)
    heard = recogniser_of(english, tmp_path / "asr", language=None, task=None).transcribe(SOUNDS[:4])
    assert [item.text for item in heard] == [official_text(english, sound) for sound in SOUNDS[:4]]


def naive_signs(recogniser, waveform, text_ids):
    """Mean log-probability of the tokens and no-speech probability, one forward pass a token, in float64."""
    processor, model = recogniser._processor, recogniser._model
    features = processor.feature_extractor(waveform, sampling_rate=RATE_HZ, return_tensors="pt").input_features
    ids = processor.tokenizer.convert_tokens_to_ids(
        ["<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>"]
    )

    def log_probabilities(ids):
        with torch.no_grad():
            logits = model(input_features=features, decoder_input_ids=torch.tensor([ids])).logits
        return torch.log_softmax(logits[0, -1].double(), dim=0)

    no_speech = processor.tokenizer.convert_tokens_to_ids("<|nospeech|>")
    silence = float(log_probabilities(ids[:1])[no_speech].exp())
    total = 0.0
    for token in text_ids:
        total += float(log_probabilities(ids)[token])
        ids = [*ids, token]
    return total / len(text_ids), silence


def test_confidence_and_no_speech_probability_token_by_token(recogniser):
    tokenizer = recogniser._processor.tokenizer
    for waveform in SOUNDS[:4]:
        (heard,) = recogniser.transcribe([waveform])
        features = recogniser._processor.feature_extractor(waveform, sampling_rate=RATE_HZ, return_tensors="pt")
        ids = recogniser._decode(recogniser._model.get_encoder()(features.input_features).last_hidden_state)[0]
        assert tokenizer.decode(ids, skip_special_tokens=True).strip() == heard.text
        mean, silence = naive_signs(recogniser, waveform, ids)
        assert heard.confidence == pytest.approx(np.exp(mean), abs=6e-5)
        assert heard.no_speech_prob == pytest.approx(silence, abs=6e-5)
        assert heard.compression_ratio == pytest.approx(len(heard.text) / len(zlib.compress(heard.text.encode())), 1e-3)


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_a_transcript_does_not_depend_on_its_batch(recogniser, monkeypatch, batch_size):
    alone = [recogniser.transcribe([waveform])[0] for waveform in SOUNDS]
    monkeypatch.setattr(whisper, "BATCH_ROWS", batch_size)
    company = [SOUNDS[0], np.zeros(9000, np.float32), *SOUNDS[1:], np.zeros(0, np.float32)]
    together = recogniser.transcribe(company)
    assert together == [alone[0], SILENT, *alone[1:], SILENT]
    assert recogniser.transcribe(company[::-1])[::-1] == together


def test_silence_nothing_and_nan_never_reach_the_model(recogniser, monkeypatch):
    def never(*_):
        raise AssertionError("the model was asked")

    monkeypatch.setattr(type(recogniser), "_decode_batch", never)
    broken, endless = SOUNDS[0].copy(), SOUNDS[0].copy()
    broken[5], endless[5] = np.nan, np.inf
    quiet = np.full(8000, 0.0009, np.float32)
    rows = [np.zeros(8000, np.float32), np.zeros(0, np.float32), quiet, broken, endless]
    failed = Transcript(None, "failed", None)
    assert recogniser.transcribe(rows) == [SILENT, SILENT, SILENT, failed, failed]
    assert recogniser.transcribe([]) == []


def test_longer_recordings_are_heard_piece_by_piece(recogniser):
    pieces = [sound(11, 1.0), np.zeros(RATE_HZ, np.float32), sound(12, 1.0), sound(13, 0.4)]
    (whole,) = recogniser.transcribe([np.concatenate(pieces)])
    parts = recogniser.transcribe(pieces)
    spoken = [parts[0], parts[2], parts[3]]
    assert parts[1] == SILENT
    assert whole.text == " ".join(part.text for part in spoken)
    assert whole.no_speech_prob == min(part.no_speech_prob for part in spoken)
    assert min(part.confidence for part in spoken) < whole.confidence < max(part.confidence for part in spoken)


def test_the_rule_for_silence_needs_both_signs_and_keeps_what_was_written(published, tmp_path, recogniser):
    waveform = SOUNDS[0]
    (heard,) = recogniser.transcribe([waveform])
    mean_nats = np.log(heard.confidence)
    loud = {"no_speech_threshold": heard.no_speech_prob / 2, "logprob_threshold": mean_nats / 2}
    (discarded,) = recogniser_of(published, tmp_path / "a", **loud).transcribe([waveform])
    assert discarded == heard._replace(text=None, status="empty")
    assert discarded.raw_text == heard.text
    surer = {**loud, "logprob_threshold": mean_nats * 2}
    assert recogniser_of(published, tmp_path / "b", **surer).transcribe([waveform]) == [heard]
    speech = {**loud, "no_speech_threshold": 0.99}
    assert recogniser_of(published, tmp_path / "c", **speech).transcribe([waveform]) == [heard]


def test_a_text_of_less_confidence_than_the_limit_is_discarded_and_its_signs_are_kept(published, tmp_path, recogniser):
    heard = recogniser.transcribe(SOUNDS)
    limit = sorted(item.confidence for item in heard)[4]
    expected = [item._replace(text=None, status="failed") if item.confidence < limit else item for item in heard]
    assert recogniser_of(published, tmp_path, confidence_threshold=limit).transcribe(SOUNDS) == expected
    assert [item.status for item in expected].count("failed") == 4


def test_eight_eight_eight_is_no_text(published, tmp_path):
    limited = recogniser_of(published, tmp_path, compression_ratio_threshold=2.4)
    said = DecodedSegment("Press 1, 2, 3, " + "8, " * 200, -2.0, 224, 0.1)
    plain = DecodedSegment("the fox ran over the hill and saw a boat", -2.0, 10, 0.1)
    (repeated, spoken, both) = (limited._transcript(some) for some in ([said], [plain], [plain, said]))
    assert (repeated.text, repeated.status, repeated.raw_text) == (None, "failed", said.text)
    assert repeated.compression_ratio == pytest.approx(
        len(said.text) / len(zlib.compress(said.text.encode())), abs=1e-4
    )
    assert (spoken.status, both.status) == ("ok", "failed")  # 30 s of speech before it do not hide it


def test_a_text_that_repeats_itself_does_not_hold_its_batch(published, tmp_path, monkeypatch):
    monkeypatch.setattr(whisper, "CHECKED_EVERY", 8)
    recogniser = recogniser_of(published, tmp_path, compression_ratio_threshold=2.0, max_new_tokens=20)
    boat = recogniser._processor.tokenizer.get_vocab()["\u0120boa"]
    recogniser._generation.suppress_tokens = [
        number for number in range(recogniser._model.config.vocab_size) if number != boat
    ]
    recogniser._generation.begin_suppress_tokens = None
    steps = []
    recogniser._model.get_decoder().register_forward_hook(lambda *_: steps.append(1))
    heard = recogniser.transcribe(SOUNDS[:3])
    assert [(item.status, item.raw_text) for item in heard] == [("failed", "boa " * 7 + "boa")] * 3
    assert len(steps) == 8 + 1  # a step per token, and one pass that scores them
    end = recogniser._processor.tokenizer.eos_token_id
    assert recogniser._until_repeating([boat] * 8 + [end]) == [boat] * 8  # padded, as others of its batch went on
    assert recogniser._until_repeating([boat] * 4 + [end]) == [boat] * 4 + [end]


def test_words_are_what_judges_of_plain_words_read(published, tmp_path, recogniser):
    written = recogniser.transcribe(SOUNDS)
    plain = recogniser_of(published, tmp_path, text="normalized").transcribe(SOUNDS)
    assert [item.raw_text for item in plain] == [item.raw_text for item in written]
    assert [item.text for item in plain] == [normalize_text(item.raw_text) or None for item in written]
    assert [item.text for item in plain] != [item.text for item in written]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("She rinses the boat. The boat!", "she rinses the boat the boat"),
        (" It\u2019s Kate's dogs' well-known  'song' \u2026", "it's kate's dogs well known song"),
        ("Thank you.", "thank you"),
        ("\u00c9t\u00e9, 3.5 km", "\u00e9t\u00e9 3 5 km"),
        ("...", ""),
        ("[\u266a music \u266a]", "music"),
        ("", ""),
    ],
)
def test_plain_words_by_hand(text, words):
    assert normalize_text(text) == words


@given(st.text(max_size=30))
def test_plain_words_are_words_already(text):
    words = normalize_text(text)
    assert normalize_text(words) == words
    assert words == words.strip()
    assert "  " not in words


def test_repetition_compresses():
    assert compression_ratio("she finds a blue boat") < 1.1
    assert compression_ratio("and then " * 40) > 10


def test_spoken_rows_become_transcripts_whatever_their_rate(recogniser, monkeypatch):
    speech = pl.DataFrame(
        [
            {"continuation_id": f"c{rate_hz}", "audio": {"bytes": encode_flac(waveform, rate_hz), "path": ""}}
            for rate_hz in (8000, 16000, 48000)
            for waveform in [resample(SOUNDS[0], from_hz=RATE_HZ, to_hz=rate_hz)]
        ]
        + [{"continuation_id": "none", "audio": {"bytes": encode_flac(np.zeros(0), RATE_HZ), "path": ""}}],
        schema={"continuation_id": pl.String, "audio": tables.AUDIO},
    )
    lengths, hear = [], type(recogniser)._decode_batch
    monkeypatch.setattr(
        type(recogniser),
        "_decode_batch",
        lambda self, pieces: lengths.extend(len(piece) for piece in pieces) or hear(self, pieces),
    )
    heard = transcribe(speech, recogniser)
    tables.verify(tables.conform(heard, tables.TRANSCRIPTS), tables.TRANSCRIPTS, where="transcripts")
    assert lengths == [len(SOUNDS[0])] * 3  # 48 kHz taken for 16 kHz would last three times as long
    assert heard["status"].to_list() == ["ok", "ok", "ok", "empty"]
    assert heard["raw_text"].to_list() == [*heard["text"][:3], None]


def test_stereo_is_refused(recogniser, tmp_path):
    soundfile.write(tmp_path / "two.flac", np.zeros((100, 2)), RATE_HZ)
    row = {"continuation_id": "a", "audio": {"bytes": (tmp_path / "two.flac").read_bytes(), "path": ""}}
    speech = pl.DataFrame([row], schema={"continuation_id": pl.String, "audio": tables.AUDIO})
    with pytest.raises(AudioError, match="audio has 2 channels, expected one"):
        transcribe(speech, recogniser)


def test_the_checkpoint_is_computed_in_the_dtype_of_the_choice(published, tmp_path):
    model = WhisperForConditionalGeneration.from_pretrained(published, dtype=torch.float32)
    model.half().save_pretrained(tmp_path / "half")
    for path in published.iterdir():
        if not path.name.startswith("model"):
            (tmp_path / "half" / path.name).write_bytes(path.read_bytes())
    kept = recogniser_of(tmp_path / "half", tmp_path / "a", dtype="float32")
    assert kept._model.dtype == torch.float32
    rough = recogniser_of(published, tmp_path / "b", dtype="bfloat16")
    assert rough._model.dtype == torch.bfloat16
    assert {item.status for item in rough.transcribe(SOUNDS)} <= {"ok", "empty"}


def test_the_artifact_names_the_files_and_refuses_others(tmp_path):
    folder = write_whisper(tmp_path / "whisper")
    config = config_of(folder)
    figures = prepare_asr(config, [], tmp_path / "asr")
    assert figures["million_parameters"] == pytest.approx(0.03, abs=0.02)
    assert sorted(path.name for path in (tmp_path / "asr").iterdir()) == ["recogniser.json", "source.json"]
    write_whisper(folder, seed=5)
    with pytest.raises(FetchError) as raised:
        load_asr(config, tmp_path / "asr", device="cpu")
    assert str(raised.value).count("sha256:") == 2
    names(raised.value, folder, "dvc repro --force STAGE")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"language": None}, ("several languages", "language", "task")),
        ({"language": "french"}, ("<|fr|>", "language", "french")),
        ({"max_new_tokens": 21}, ("max_new_tokens", "21", "24 positions", "4", "20")),
    ],
)
def test_choices_that_do_not_fit_the_checkpoint(published, tmp_path, changes, message):
    with pytest.raises(ASRError) as raised:
        prepare_asr(config_of(published, **changes), [], tmp_path)
    names(raised.value, *message)
    assert not list(tmp_path.iterdir())


def test_an_english_only_checkpoint_takes_no_language(tmp_path):
    english = write_whisper(tmp_path / "whisper.en", multilingual=False)
    with pytest.raises(ASRError) as raised:
        prepare_asr(config_of(english), [], tmp_path / "asr")
    names(raised.value, "English-only", "language: null", "task: null")


def test_another_sample_rate_is_told(published, tmp_path):
    with pytest.raises(ASRError) as raised:
        prepare_asr(config_of(published, sample_rate_hz=8000), [], tmp_path)
    names(raised.value, published, "16000 Hz", "sample_rate_hz", "8000")


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("model.safetensors", ("WhisperForConditionalGeneration", "whisper", "model.safetensors")),
        ("preprocessor_config.json", ("Whisper", "whisper", "tokenizer", "feature extractor")),
        ("tokenizer.json", ("tokenizer.json", "vocab.json", "merges.txt", "checkpoint")),
    ],
)
def test_missing_files_are_told(tmp_path, missing, message):
    folder = write_whisper(tmp_path / "whisper")
    (folder / missing).unlink()
    with pytest.raises((ASRError, WeightsError)) as raised:
        prepare_asr(config_of(folder), [], tmp_path / "asr")
    names(raised.value, *message)


@pytest.mark.parametrize(
    "name", ["config.json", "generation_config.json", "preprocessor_config.json", "tokenizer.json"]
)
@pytest.mark.parametrize("content", [b"", b'{"cut": ', b"\xff\0", b"[1, 2]"])
def test_a_damaged_file_of_settings_is_told_not_passed_over(tmp_path, name, content):
    folder = write_whisper(tmp_path / "whisper")
    (folder / name).write_bytes(content)
    with pytest.raises(WeightsError) as raised:
        prepare_asr(config_of(folder), [], tmp_path / "asr")
    names(raised.value, folder / name, "JSON", "download")


def test_a_checkpoint_of_bin_files_is_read_where_there_are_no_safetensors(published, tmp_path, recogniser):
    folder = shutil.copytree(published, tmp_path / "whisper.bin")
    state = load_file(folder / "model.safetensors")
    torch.save(state, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    pickled = recogniser_of(folder, tmp_path / "asr")
    assert pickled.transcribe(SOUNDS[:3]) == recogniser.transcribe(SOUNDS[:3])
    torch.save({**state, "odd": Path("x")}, folder / "pytorch_model.bin")
    with pytest.raises(WeightsError) as raised:
        prepare_asr(config_of(folder), [], tmp_path / "again")
    names(raised.value, "safetensors", folder)


def test_an_english_only_checkpoint_without_generation_config_takes_no_language(tmp_path):
    folder = write_whisper(tmp_path / "whisper.en", multilingual=False)
    expected = recogniser_of(folder, tmp_path / "with", language=None, task=None).transcribe(SOUNDS[:2])
    settings = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").unlink()
    config = json.loads((folder / "config.json").read_text())
    suppressed = {name: settings[name] for name in ("suppress_tokens", "begin_suppress_tokens")}
    (folder / "config.json").write_text(json.dumps({**config, **suppressed}))  # as the first checkpoints had them
    heard = recogniser_of(folder, tmp_path / "without", language=None, task=None).transcribe(SOUNDS[:2])
    assert [item.raw_text for item in heard] == [item.raw_text for item in expected]


def test_missing_weights_are_never_drawn_at_random(tmp_path):
    folder = write_whisper(tmp_path / "whisper")
    state = load_file(folder / "model.safetensors")
    del state["model.encoder.conv1.weight"]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError) as raised:
        prepare_asr(config_of(folder), [], tmp_path / "asr")
    names(raised.value, "1", "model.encoder.conv1.weight")


def test_nothing_prepared(published, tmp_path):
    with pytest.raises(DamagedError) as raised:
        load_asr(config_of(published), tmp_path, device="cpu")
    names(raised.value, tmp_path, "recogniser.json", "dvc repro")


def test_half_a_rule_for_silence_is_no_rule(published):
    with pytest.raises(ValidationError) as raised:
        config_of(published, no_speech_threshold=0.6)
    names(raised.value, "no_speech_threshold", "logprob_threshold")
