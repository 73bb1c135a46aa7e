"""Predicted MOS: the published preparation and numbers, any TorchScript file, and rows that account for every clip."""

import hashlib
import json
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from alignslm import audio, tables
from alignslm.config.mos import DNSMOSConfig, MosConfig, TorchScriptMOSConfig
from alignslm.config.sources import FolderSource
from alignslm.integrity import DamagedError
from alignslm.mos import MosError, MOSPrediction, dnsmos, load_mos, prepare_mos
from alignslm.mos.rows import BLOCK, rate, select_clips
from alignslm.recordings import recordings_of
from tests.listening_world import frame
from tests.messages import names

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
QUICK = DNSMOSConfig(kind="dnsmos", release="speechmos-0.0.1.1", personalized=False, segments="all", max_clips=None)


def tone(count, seed):
    time = np.arange(count) / 16000
    voiced = 0.3 * np.sin(2 * np.pi * (120 + 10 * seed) * time) * (0.5 + 0.5 * np.sin(2 * np.pi * 3 * time))
    bursts = 0.1 * np.sin(2 * np.pi * 730 * time) * (np.sin(2 * np.pi * 2.1 * time) > 0)
    return (voiced + bursts + 0.01 * np.sin(2 * np.pi * 3333.3 * time * time)).astype(np.float32)


def predictor(tmp_path, config=QUICK, workers=1):
    prepare_mos(config, tmp_path)
    return load_mos(config, tmp_path, workers=workers, device="cpu")


# What speechmos 0.0.1.1 itself returned for tone(samples, seed), with librosa 0.11: overall, signal, background, P.808.
PUBLISHED = [
    (40000, 1, False, (2.0378530, 2.2103770, 3.8220466, 2.6383452)),
    (40000, 1, True, (2.0716022, 2.3330763, 3.3898414, 2.6383452)),
    (200000, 3, False, (1.3820885, 1.8259746, 1.9794388, 2.4380093)),
]


@pytest.mark.parametrize(("count", "seed", "personalized", "expected"), PUBLISHED)
def test_scores_are_those_of_the_published_package(tmp_path, count, seed, personalized, expected):
    config = QUICK.model_copy(update={"personalized": personalized})
    opinion = predictor(tmp_path, config).predict([tone(count, seed)])[0]
    assert opinion.status == "ok"
    assert opinion.values == pytest.approx(expected, abs=2e-3)


def test_mel_decibels_are_librosas():
    mel = dnsmos.mel_decibels(tone(dnsmos.SEGMENT_SAMPLES, 0))
    assert (mel.shape, mel.dtype) == ((900, 120), np.float32)
    assert mel[0, :4] == pytest.approx([-0.11526318, 0.70356035, -0.00105333, 0.7424551], abs=1e-4)
    assert mel[500, 50:54] == pytest.approx([0.13613263, 0.1744316, 0.05970726, -0.08757009], abs=1e-4)
    assert mel.mean(dtype=float) == pytest.approx(-0.75147027, abs=1e-5)
    assert (dnsmos.mel_decibels(np.zeros(dnsmos.SEGMENT_SAMPLES, np.float32)) == 1).all()


@given(st.integers(1, 400_000))
@settings(max_examples=60, deadline=None)
def test_segments_follow_the_published_rule(count):
    ramp = np.arange(count, dtype=np.float64)
    expected, sound = [], ramp
    while len(sound) < int(9.01 * 16000):
        sound = np.append(sound, sound)
    for hop in range(int(np.floor(len(sound) / 16000) - 9.01) + 1):
        window = sound[int(hop * 16000) : int((hop + 9.01) * 16000)]
        if len(window) >= int(9.01 * 16000):
            expected.append(window)
    found = dnsmos.segments_of(ramp)
    assert len(found) == len(expected) >= 1
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


def test_a_score_depends_on_nothing_but_its_clip(tmp_path):
    clips = [tone(20000, 0), np.zeros(0, np.float32), tone(30000, 2), np.array([0, np.nan, 1], np.float32)]
    first = QUICK.model_copy(update={"segments": "first"})
    together = predictor(tmp_path, first, workers=3).predict(clips)
    assert together == [predictor(tmp_path, first).predict([clip])[0] for clip in clips]
    assert [opinion.status for opinion in together] == ["ok", "empty", "ok", "failed"]
    assert together[1] == MOSPrediction("empty", None)


def test_first_hears_one_window_of_those_that_all_averages(tmp_path):
    long = tone(12 * 16000, 1)
    first = predictor(tmp_path / "a", QUICK.model_copy(update={"segments": "first"})).predict([long])[0].values
    again = predictor(tmp_path / "a", QUICK.model_copy(update={"segments": "first"}))
    windows = [again.predict([window])[0].values for window in dnsmos.segments_of(long)]
    every = predictor(tmp_path / "b").predict([long])[0].values
    assert len(windows) == 3
    assert first == windows[0]
    assert every == pytest.approx(np.mean(windows, axis=0), abs=1e-4)


def test_quieter_noisier_speech_scores_lower(tmp_path):
    """DNSMOS is for speech: real (espeak) speech against the same under noise."""
    from alignslm.storyworld.espeak import synthesize

    clean = synthesize("the brown fox likes the old boat", voice="en-us", words_per_minute=160, sample_rate_hz=16000)
    noise = np.random.default_rng(0).normal(0, 0.05, clean.size).astype(np.float32)
    first = predictor(tmp_path, QUICK.model_copy(update={"segments": "first"}))
    good, bad = (opinion.values for opinion in first.predict([clean, clean + noise]))
    assert good[0] > bad[0] + 0.3
    assert good[2] > bad[2] + 0.5


def test_other_networks_than_the_published_ones_are_refused(tmp_path, monkeypatch):
    path = dnsmos.network_file("p808")
    monkeypatch.setitem(dnsmos.FILES, "p808", ("dnsmos_models/model_v8.onnx", "0" * 64))
    actual = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(MosError) as error:
        prepare_mos(QUICK, tmp_path)
    names(error.value, path, "SHA-256", actual, "0" * 64, "DNSMOS", "--force-reinstall", "speechmos==0.0.1.1")


def test_what_was_prepared_is_what_is_loaded(tmp_path):
    with pytest.raises(DamagedError) as error:
        load_mos(QUICK, tmp_path, workers=1, device="cpu")
    names(error.value, tmp_path / "source.json", "dvc repro")
    prepare_mos(QUICK, tmp_path)
    assert json.loads((tmp_path / "source.json").read_text())["identity"].count("sha256:") == 2
    with pytest.raises(MosError, match=r"was prepared for dnsmos under other values"):
        load_mos(QUICK.model_copy(update={"max_clips": 3}), tmp_path, workers=1, device="cpu")


def test_a_choice_is_strict():
    adapter = TypeAdapter(MosConfig)
    for wrong in ({"release": "speechmos-9"}, {"segments": "last"}, {"max_clips": 0}, {"unknown": 1}):
        with pytest.raises(ValidationError):
            adapter.validate_python({**QUICK.model_dump(), **wrong})


class LevelNet(torch.nn.Module):
    """Stands where UTMOS would: 16-bit samples (1, n) in, a score that knows the level and the length."""

    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        sound = samples.to(torch.float32) / 32767
        return 1 + 4 * sound.abs().mean(dim=1) + 0.0 * samples.shape[1]


class PairNet(torch.nn.Module):
    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        return torch.ones(2)


def exported(tmp_path, network):
    tmp_path.mkdir(exist_ok=True)
    torch.jit.script(network).save(str(tmp_path / "mos.jit"))
    return TorchScriptMOSConfig(
        kind="torchscript",
        metric="utmos",
        weights=FolderSource(kind="folder", path=str(tmp_path)),
        file="mos.jit",
        sample_rate_hz=16000,
        samples="int16",
        max_clips=None,
    )


def test_a_torchscript_file_is_heard_as_its_choice_says(tmp_path):
    config = exported(tmp_path / "hub", LevelNet())
    found = predictor(tmp_path / "made", config)
    assert (found.metrics, found.sample_rate_hz) == (("utmos",), 16000)
    said = found.predict([np.full(100, 0.25, np.float32), np.zeros(0, np.float32), np.full(7, -2.0, np.float32)])
    assert said == [MOSPrediction("ok", (2.0,)), MOSPrediction("empty", None), MOSPrediction("ok", (5.0,))]


def test_a_changed_file_is_not_the_one_that_was_prepared(tmp_path):
    config = exported(tmp_path / "hub", LevelNet())
    prepare_mos(config, tmp_path / "made")
    exported(tmp_path / "hub", PairNet())
    with pytest.raises(ValueError, match=r"but the artifact was made with sha256:"):
        load_mos(config, tmp_path / "made", workers=1, device="cpu")


def test_what_is_no_torchscript_or_no_score_is_told(tmp_path):
    config = exported(tmp_path / "hub", PairNet())
    with pytest.raises(MosError) as error:
        predictor(tmp_path / "made", config).predict([np.zeros(8, np.float32)])
    names(error.value, "samples", "sample_rate_hz", "mos.jit", "8", "2", "int16")
    (tmp_path / "hub" / "mos.jit").write_bytes(b"not a network")
    with pytest.raises(MosError) as raised:
        prepare_mos(config, tmp_path / "made")
    names(raised.value, "mos.jit", "TorchScript")


def clips(system, draws=2, prompts=6):
    rows = [(f"{system}-{prompt}-{draw}", f"p{prompt}", draw) for prompt in range(prompts) for draw in range(draws)]
    return pl.DataFrame(rows, schema=["source_id", "prompt_id", "sample_index"], orient="row")


def test_systems_are_compared_on_the_same_prompts():
    prompts_of = [
        [name.split("-")[1] for name in select_clips(clips(system).sample(fraction=1, shuffle=True, seed=seed), 4)]
        for seed, system in enumerate(("a", "b"))
    ]
    assert prompts_of[0] == prompts_of[1]
    assert len(set(prompts_of[0])) == 4  # first draws first: four prompts, not two twice
    growing = [select_clips(clips("a"), count) for count in range(1, 13)]
    assert all(larger[: len(smaller)] == smaller for smaller, larger in pairwise(growing))
    assert sorted(select_clips(clips("a"), None)) == sorted(clips("a")["source_id"])


class Lengths:
    sample_rate_hz = 16000
    metrics = ("length", "half")

    def predict(self, waveforms):
        assert len(waveforms) <= BLOCK
        return [
            MOSPrediction("ok", (len(w), len(w) / 2)) if len(w) else MOSPrediction("empty", None) for w in waveforms
        ]


def test_every_clip_has_a_row_a_metric():
    every = clips("a")
    heard = select_clips(every, 4)
    sounds = [(name, np.zeros(5 if number else 0, np.float32)) for number, name in enumerate(heard)]
    made = rate(every, heard, iter(sounds[::-1]), Lengths(), system="a")
    tables.verify(made, tables.MOS, where="made")
    assert len(made) == 2 * len(every)
    assert dict(made.group_by("status").len().iter_rows()) == {"ok": 6, "empty": 2, "skipped": 16}
    assert made.filter(status="ok").select("metric", "value").unique().sort("metric").rows() == [
        ("half", 2.5),
        ("length", 5.0),
    ]
    assert made.filter(pl.col("status") != "ok")["value"].null_count() == 18
    with pytest.raises(tables.TableError) as error:
        rate(every, heard, sounds[1:], Lengths(), system="a")
    names(error.value, "'a'", "1", f"{heard[0]!r}")


def test_recordings_are_cut_where_the_prompt_ends(tmp_path):
    ramp = np.linspace(-0.5, 0.5, 1000).astype(np.float32)
    rows = [
        {
            "utterance_id": name, "split": "test", "speaker_id": "s", "num_samples": 1000, "sample_rate_hz": 1000,
            "audio": {"bytes": audio.encode_flac(ramp, 1000), "path": f"{name}.flac"},
        }
        for name in ("u0", "u1", "u2")
    ]  # fmt: skip
    table = frame(rows, tables.UTTERANCES)
    tables.write_shards([table], tables.UTTERANCES, tmp_path / "utterances", part_rows=2)
    prompts = pl.DataFrame({"prompt_id": ["b", "a"], "utterance_id": ["u2", "u0"], "end_s": [0.25, 0.6004]})
    cuts = {cut.prompt_id: cut for cut in recordings_of(tmp_path / "utterances", prompts)}
    assert {name: (len(cut.prompt), len(cut.continuation)) for name, cut in cuts.items()} == {
        "a": (600, 400),
        "b": (250, 750),
    }
    joined = np.concatenate([cuts["b"].prompt, cuts["b"].continuation])
    assert np.abs(joined - ramp).max() < 1e-4
    with pytest.raises(tables.TableError) as raised:
        list(recordings_of(tmp_path / "utterances", prompts.with_columns(utterance_id=pl.lit("u9"))))
    names(raised.value, "'u9'", "1")
