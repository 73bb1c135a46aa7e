"""`alignslm ingest`: anybody's folder becomes a corpus that the stages read, and what could not be used is told."""

import hashlib
import json
import shutil
import subprocess
import sys
import time

import numpy as np
import polars as pl
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from alignslm import audio
from alignslm.cli import app
from alignslm.config.loading import load_experiment
from alignslm.config.presets import apply_preset
from alignslm.config.warnings import warnings
from alignslm.corpora import find_corpus, utterances_of
from alignslm.corpora.texts import texts_of
from alignslm.ingest import numbers
from alignslm.ingest.finding import IngestError, find
from alignslm.ingest.numbers import TooLittleError
from alignslm.ingest.sound import SoundError, pieces, prepared, trimmed
from alignslm.ingest.splits import split_groups
from alignslm.listening.loudness import loudness_lufs
from alignslm.plan.speech import speech_needs
from tests.messages import names
from tests.micro import copy_project

RATE = 44100
WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]


def voice(seconds: float, seed: int, rate: int = RATE) -> np.ndarray:
    """Noise in syllables, loud enough to be speech: four a second."""
    noise = np.random.default_rng(seed).normal(0, 0.1, round(seconds * rate))
    return noise * (0.55 + 0.45 * np.sin(2 * np.pi * 4 * np.arange(len(noise)) / rate))


def stereo(mono: np.ndarray) -> np.ndarray:
    return np.stack([mono, 0.5 * mono], axis=1)


def text_of(number: int) -> str:
    first, *others = np.random.default_rng(number).choice(WORDS, 7)
    return f"{first.capitalize()}, {' '.join(others)}."


def spoken(number: int) -> str:
    return text_of(number).lower().replace(",", "").rstrip(".")


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    """Seventy good recordings of one voice, in four formats, and nine with something the matter."""
    folder = tmp_path_factory.mktemp("speech")
    suffixes = ("wav", "flac", "ogg", "mp3")
    rows = []
    for number in range(70):
        name = f"rec{number:02d}.{suffixes[number % 4]}"
        quiet = np.zeros(RATE // 2)
        soundfile.write(folder / name, stereo(np.concatenate([quiet, voice(2.5, number), quiet])), RATE)
        rows.append(f'rec{number:02d}|{text_of(number)}|"{text_of(number)}')
    soundfile.write(folder / "digits.wav", stereo(voice(2.5, 100)), RATE)
    soundfile.write(folder / "twice.flac", soundfile.read(folder / "rec00.wav")[0], RATE)
    soundfile.write(folder / "silence.wav", np.zeros((RATE * 3, 2)), RATE)
    soundfile.write(folder / "short.wav", voice(0.4, 101), RATE)
    soundfile.write(folder / "untold.wav", voice(2.5, 102), RATE)
    long = np.concatenate([part for seed in range(5) for part in (voice(4.6, 200 + seed), np.zeros(RATE // 2))])
    soundfile.write(folder / "long.flac", long, RATE)
    (folder / "broken.wav").write_bytes(b"RIFF of something else")
    (folder / "broken.flac").write_bytes(b"fLaC" + bytes(20))
    (folder / "phone.m4a").write_bytes(b"\0\0\0 ftypM4A ")
    extra = {"digits": "in 1998 it rained", "long": "so long a text", "absent": "nobody said this", "rec00": "again"}
    (folder / "metadata.csv").write_text("\n".join([*rows, *(f"{key}|{said}" for key, said in extra.items())]) + "\n")
    return folder


def tree(folder):
    return {
        path.relative_to(folder).as_posix(): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


def ingest(root, folder, *options: str, fails: bool = False) -> str:
    done = CliRunner().invoke(app, ["ingest", str(folder), "--root", str(root), "--name", "mine", *options])
    assert (done.exit_code != 0) == fails, done.output
    return " ".join(done.output.split()) + (str(done.exception) if fails else "")


@pytest.fixture(scope="module")
def made(speech, tmp_path_factory):
    root = tmp_path_factory.mktemp("root") / "experiment"
    copy_project(root)
    before = tree(speech)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", "")  # no ffmpeg
        said = ingest(root, speech)
    assert tree(speech) == before  # somebody's recordings are only read
    return root, said


def test_what_was_set_aside_is_listed_with_file_row_and_reason(made, speech):
    rows = pl.read_csv(made[0] / "ingested/mine/set-aside.csv").rows()
    table = {(file, row): reason for file, row, reason in rows}
    assert len(table) == len(rows) == 10
    assert "digits" in table["metadata.csv", 71]
    assert "no recording" in table["metadata.csv", 73]
    assert "rec00.wav" in table["metadata.csv", 74]
    assert "3 pieces" in table["long.flac", None]
    assert "rec00.wav" in table["twice.flac", None]
    assert "0.0 s" in table["silence.wav", None]
    assert "0.4 s" in table["short.wav", None]
    assert "ffmpeg" in table["phone.m4a", None]
    broken = [table.get((f"broken.{kind}", None)) for kind in ("wav", "flac")]
    assert broken[0] == broken[1] is not None


def test_the_corpus_stage_reads_what_was_written(made, tmp_path):
    root, said = made
    apply_preset("mine", root)
    experiment = load_experiment(root)
    assert warnings(experiment) == []
    corpus = find_corpus(experiment.corpus)
    frames = utterances_of(corpus, experiment.corpus, workers=1, shard_size=1000, work=tmp_path)
    rows = pl.concat(frames)  # raises where rate, channels or length are wrong
    pieces_of_long = rows.filter(pl.col("utterance_id").str.starts_with("long-"))
    assert len(rows) == 72 + len(pieces_of_long)
    assert rows["text"].null_count() == 2 + len(pieces_of_long)  # digits, untold
    assert rows.filter(pl.col("utterance_id").str.starts_with("rec05-"))["text"].item() == spoken(5)
    assert len(pieces_of_long) == 3
    assert (pieces_of_long["num_samples"] <= 10 * 16000).all()
    assert pieces_of_long["split"].n_unique() == 1  # of one recording
    first = audio.decode(rows["audio"][0]["bytes"])[0]
    assert loudness_lufs(first, 16000) == pytest.approx(-23, abs=0.3)
    assert "whole recordings are kept for test" in said
    assert "73 of 79 recordings" in said


def test_the_numbers_fit_the_amount_of_speech(made):
    root, _ = made
    apply_preset("mine", root)
    experiment = load_experiment(root)
    corpus, prompts = find_corpus(experiment.corpus), experiment.params.prompts
    counts = dict(corpus.rows["split"].value_counts().iter_rows())
    assert all(0.8 * counts[split] < getattr(prompts, split) <= counts[split] for split in ("train", "valid", "test"))
    assert prompts.max_duration_s == pytest.approx(1.3, abs=0.1)  # half of 2.7 s, margins included
    texts = texts_of(corpus.rows, experiment.corpus)
    assert len(texts) >= 40
    assert experiment.corpus.num_prompt_words == 2  # a third of seven words
    assert experiment.checkpoints["r1"].min_pairs == prompts.train // 5
    assert experiment.selector.kind == "quantiles"


def test_the_same_command_again_changes_nothing_and_a_new_file_is_told(made, speech, tmp_path):
    root, _ = made
    stamps = {path: path.stat().st_mtime_ns for path in (root / "ingested").rglob("*")}
    assert "nothing has changed" in ingest(root, speech)
    assert {path: path.stat().st_mtime_ns for path in (root / "ingested").rglob("*")} == stamps
    record = root / "ingested/mine/ingest.json"
    known = json.loads(record.read_text())
    del known["files"]["rec01.flac"]
    known["files"]["rec02.ogg"][0] += 1
    record.write_text(json.dumps(known))
    said = ingest(root, speech)
    assert "1 new" in said
    assert "1 changed" in said


@pytest.mark.parametrize("name", ["tiny", "folder", "ngram"])
def test_a_taken_name_is_refused(made, speech, name):
    done = CliRunner().invoke(app, ["ingest", str(speech), "--root", str(made[0]), "--name", name])
    assert done.exit_code == 1
    names(done.stderr, f"{name}.yaml", "--name")


@pytest.mark.parametrize("count", [1, 20])
def test_too_little_speech_writes_nothing(tmp_path, count):
    root, folder = tmp_path / "experiment", tmp_path / "few"
    copy_project(root)
    folder.mkdir()
    for number in range(count):
        soundfile.write(folder / f"{number}.wav", voice(2.5, number), RATE)
    before = tree(root)
    said = ingest(root, folder, fails=True)
    assert f"{count} utterances" in said
    assert tree(root) == before


def test_speech_without_texts_asks_for_them_or_for_an_asr_model(tmp_path):
    root, folder = tmp_path / "experiment", tmp_path / "untold"
    copy_project(root)
    folder.mkdir()
    for number in range(60):
        soundfile.write(folder / f"{number}.wav", voice(1.6, number, 8000), 8000)
    said = ingest(root, folder, fails=True)
    assert "--asr" in said
    assert "40" in said
    assert not (root / "ingested/mine").exists()


@pytest.mark.parametrize("longest_s", [3.0, 6.0])
def test_long_audio_is_cut_in_its_pauses_and_no_speech_is_lost(longest_s):
    rate = 8000
    parts = [voice(1.5 + 0.2 * seed, seed, rate) for seed in range(6)]
    pause = np.zeros(round(0.4 * rate))
    cut = pieces(np.concatenate([part for speech in parts for part in (speech, pause)]), rate, longest_s)
    assert all(len(piece) <= longest_s * rate for piece in cut)
    energy = sum(float(np.sum(piece**2)) for piece in cut)
    assert energy == pytest.approx(sum(float(np.sum(part**2)) for part in parts), rel=1e-3)
    if longest_s == 3.0:  # every part is a piece of its own, 0.1 s of the pause on both sides
        lengths = [len(piece) / rate for piece in cut]
        assert lengths == pytest.approx([1.5 + 0.2 * seed + (0.1 if seed == 0 else 0.2) for seed in range(6)], abs=0.05)


def test_trimmed_by_hand():
    loud = np.ones(1600)
    around = np.concatenate([np.zeros(4000), loud, np.zeros(4000)])
    assert len(trimmed(around, 8000)) == 1600 + 2 * 800
    assert not trimmed(np.full(8000, 1e-4), 8000).size  # -80 dB: a room, not a voice
    assert not trimmed(np.zeros(0), 8000).size


def test_a_tone_keeps_its_pitch_and_channels_are_averaged(tmp_path):
    tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(2 * RATE) / RATE)
    soundfile.write(tmp_path / "tone.wav", stereo(tone), RATE)
    (found,) = prepared(tmp_path / "tone.wav", 16000)
    assert len(found) == pytest.approx(2 * 16000, abs=2)
    peak = np.abs(np.fft.rfft(found)).argmax() * 16000 / len(found)
    assert peak == pytest.approx(440, abs=1)


def test_not_a_number_is_a_reason(tmp_path):
    soundfile.write(tmp_path / "nan.wav", np.full(RATE, np.nan), RATE, subtype="FLOAT")
    with pytest.raises(SoundError):
        prepared(tmp_path / "nan.wav", 16000)


@pytest.mark.parametrize(
    ("table", "content"),
    [
        ("metadata.csv", "file_name,text,speaker_id\na/x.wav,Hello there,ann\n"),
        ("any.tsv", "client_id\tpath\tsentence\nann\tx.wav\tHello there\n"),
        ("metadata.jsonl", '{"audio": "a/x.wav", "transcription": "Hello  there!", "speaker": "ann"}\n'),
        ("metadata.csv", "x|Hello there\n"),
        ("list.csv", "id;speaker;transcript\nx;ann;hello there\n"),
    ],
)
def test_texts_and_speakers_of_each_kind_of_table(tmp_path, table, content):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/x.wav").touch()
    (tmp_path / "a/y.wav").touch()
    (tmp_path / "a/y.txt").write_text("Beside\nit.\n")
    (tmp_path / table).write_text(content)
    found = find(tmp_path, one_speaker=False)
    speaker = "ann" if "ann" in content else "one"
    assert found.recordings == [("a/x.wav", speaker, "hello there"), ("a/y.wav", "one", "beside it")]
    assert found.aside == []


def test_folders_are_speakers_unless_it_is_one(tmp_path):
    for name in ("ann", "ben"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.wav").touch()
    assert [each.speaker for each in find(tmp_path, one_speaker=False).recordings] == ["ann", "ben"]
    assert [each.speaker for each in find(tmp_path, one_speaker=True).recordings] == ["one", "one"]
    (tmp_path / "list.csv").write_text("x,y\n1,2\n")  # no column that names a file
    with pytest.raises(IngestError) as raised:
        find(tmp_path, one_speaker=False)
    assert "x, y" in str(raised.value)


@given(
    speakers=st.lists(st.integers(1, 12), min_size=1, max_size=20),
    pieces_each=st.integers(1, 4),
)
def test_no_speaker_or_recording_is_in_two_splits(speakers, pieces_each):
    ids = [
        (f"s{who}", f"s{who}-r{recording}", f"s{who}-r{recording}-{piece}")
        for who, count in enumerate(speakers)
        for recording in range(count)
        for piece in range(pieces_each)
    ]
    split = split_groups({i: s for s, _, i in ids}, {i: r for _, r, i in ids}, dict.fromkeys((i for *_, i in ids), 5.0))
    group = {"speakers": 0, "recordings": 1, "pieces": 2}[split.by]
    where = {(names[group], split.of[names[2]]) for names in ids}
    assert len(where) == len({names[group] for names in ids})
    shares = {name: list(split.of.values()).count(name) / len(ids) for name in ("train", "valid", "test")}
    if len(ids) >= 20:
        assert shares["train"] >= 0.6
        assert shares["test"] >= 0.15
        assert shares["valid"] >= 0.1


def test_check_says_what_each_stage_needs_and_what_there_is(made):
    root, _ = made
    apply_preset("mine", root)
    experiment = load_experiment(root)
    table = pl.read_csv(root / "ingested/mine/metadata.csv")
    lengths = {name: soundfile.info(root / "ingested/mine" / name).duration for name in table["file_name"]}
    needs = {
        (need.stage, need.needs.split()[1] if need.stage == "prompts" else ""): need
        for need in speech_needs(experiment, root)
    }
    assert all(need.enough for need in needs.values())
    test = {name for name, subset in table.select("file_name", "subset").iter_rows() if subset == "test"}
    cut = experiment.params.prompts.max_duration_s
    long = [name for name in test if lengths[name] > cut]
    minutes = sum(lengths[name] for name in test) / 60
    assert needs["prompts", "test"].needs.startswith(f"{experiment.params.prompts.test} test ")
    assert needs["prompts", "test"].has == f"{len(long)} of {len(test)}, {minutes:.1f} minutes"
    train = table.filter(subset="train")["text"].drop_nulls()
    assert needs["judge", ""].has == needs["heldout_judge", ""].has == str(train.n_unique())
    assert needs["asr", ""].has == str(len(train))
    assert needs["benchmarks.endings", ""].has == str(len(test))


@pytest.mark.parametrize(
    ("file", "before", "after", "stage"),
    [
        ("corpus/mine", "num_prompt_words: 2", "num_prompt_words: 7", "judge"),
        ("lm/mine", "max_position_embeddings: 512", "max_position_embeddings: 220", "base"),
        ("benchmark/mine", "ending_s: ", "ending_s: 90", "benchmarks.endings"),
    ],
)
def test_check_ends_with_a_failure_where_the_corpus_has_too_little(made, tmp_path, file, before, after, stage):
    root = tmp_path / "copy"
    shutil.copytree(made[0], root)
    apply_preset("mine", root)
    path = root / f"experiments/{file}.yaml"
    assert before in path.read_text()
    path.write_text(path.read_text().replace(before, after))
    lacking = {need.stage for need in speech_needs(load_experiment(root), root) if not need.enough}
    assert lacking >= {stage}
    assert CliRunner().invoke(app, ["check", "--root", str(root)]).exit_code == 1


def test_m4a_is_decoded_by_ffmpeg_where_there_is_one(tmp_path, monkeypatch):
    """The stand-in takes ffmpeg's own arguments: what to read stands behind -i, and the sound goes to stdout."""
    soundfile.write(tmp_path / "sound.wav", stereo(voice(2.0, 1)), RATE)
    (tmp_path / "sound.wav").rename(tmp_path / "phone of mine.m4a")
    program = tmp_path / "ffmpeg"
    program.write_text('#!/bin/sh\nwhile [ "$1" != -i ]; do shift; done\nexec cat "$2"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    (found,) = prepared(tmp_path / "phone of mine.m4a", 16000)
    assert len(found) == pytest.approx(2 * 16000, abs=320)
    program.write_text("#!/bin/sh\necho moov atom not found >&2\nexit 1\n")
    with pytest.raises(SoundError, match="moov atom not found"):
        prepared(tmp_path / "phone of mine.m4a", 16000)


def test_a_killed_ingest_leaves_nothing_half_written(speech, tmp_path):
    root = tmp_path / "experiment"
    copy_project(root)
    before = tree(root)
    command = [sys.executable, "-m", "alignslm", "ingest", str(speech), "--name", "mine"]
    with subprocess.Popen(command, cwd=root, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and not list(root.glob("ingested/.mine.*/*.flac")):
            time.sleep(0.01)
        process.kill()
    assert process.returncode == -9
    assert not (root / "ingested/mine").exists()
    assert {name: cell for name, cell in tree(root).items() if name in before} == before
    ingest(root, speech)
    assert [path.name for path in (root / "ingested").iterdir()] == ["mine"]


def test_a_judge_that_needs_no_texts_takes_the_place_of_one_that_does():
    rows = pl.DataFrame(
        {
            "split": ["train"] * 60 + ["valid"] * 10 + ["test"] * 10,
            "seconds": [4.0] * 80,
            "text": ["some words of a text"] * 80,  # one text, however often
        }
    )
    with pytest.raises(TooLittleError, match="--asr"):
        numbers.preset(rows, "mine", asr="whisper-tiny.en", judge=None)
    chosen = numbers.preset(rows, "mine", asr="whisper-tiny.en", judge="mistral-7b")
    assert (chosen["judge"], chosen["heldout_judge"], chosen["asr"]) == ("mistral-7b", "mistral-7b", "whisper-tiny.en")
    many = rows.with_columns(text=pl.format("text number {} of many", pl.int_range(80)))
    chosen = numbers.preset(many, "mine", asr=None, judge=None)
    assert (chosen["judge"], chosen["heldout_judge"], chosen["asr"]) == ("mine", "mine-heldout", "char-ctc")


@given(st.lists(st.floats(1.0, 20.0), min_size=60, max_size=90), st.randoms())
def test_prompts_are_no_more_than_the_utterances_that_can_give_them(seconds, random):
    splits = [random.choice(["train", "train", "train", "valid", "test"]) for _ in seconds]
    rows = pl.DataFrame({"split": splits, "seconds": seconds})
    try:
        found = numbers.prompt_counts(rows)
    except TooLittleError:
        return
    assert 1.0 <= found.length_s <= 3.0
    for split in ("train", "valid", "test"):
        fitting = sum(
            mine == split and length >= found.length_s + 0.5 for mine, length in zip(splits, seconds, strict=True)
        )
        assert getattr(found, split) <= min(fitting, numbers.MOST[split])


def test_a_name_of_two_recordings_is_told_from_a_name_of_none(tmp_path):
    for name in ("a.wav", "a.flac", "b.wav"):
        soundfile.write(tmp_path / name, voice(0.1, 0), RATE)
    (tmp_path / "metadata.csv").write_text("a|one two\nb|three four\nc|five six\n")
    found = find(tmp_path, one_speaker=False)
    assert {each.row: each.reason.split()[0] for each in found.aside} == {1: "several", 3: "no"}
    assert {each.file: each.text for each in found.recordings} == {"a.flac": None, "a.wav": None, "b.wav": "three four"}
