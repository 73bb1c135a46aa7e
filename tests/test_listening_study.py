"""A study: who hears what, equally loud, blinded, the same bytes again; refusals by their full message."""

import hashlib
import json
import math
import subprocess
import sys
from collections import Counter
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from alignslm import tables
from alignslm.config.listening import ORIGINAL, ListeningTestConfig
from alignslm.config.loading import load_config, load_experiment
from alignslm.config.problems import ConfigError
from alignslm.listening.design import trials, williams
from alignslm.listening.loudness import PEAK_DBFS, common_loudness, loudness_lufs, normalised
from alignslm.listening.study import StudyError, build_study, clip_path, read_study
from alignslm.mos.rows import select_clips
from tests.listening_world import STUDY, SYSTEMS, build
from tests.messages import names

REPOSITORY = Path(__file__).parent.parent
PROMPTS = [f"p{number}" for number in range(7)]


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory):
    return build(tmp_path_factory.mktemp("listening") / "artifacts")


@pytest.fixture(scope="module")
def folder(artifacts):
    made = artifacts.parent / "study"
    build_study(STUDY, artifacts, made)
    return made


@given(st.integers(1, 9), st.integers(1, 12), st.data())
@settings(max_examples=80, deadline=None)
def test_a_group_of_raters_is_a_latin_square(count, num_prompts, data):
    systems, prompts = [f"s{i}" for i in range(count)], [f"p{i}" for i in range(num_prompts)]
    passes, group = data.draw(st.integers(1, count)), data.draw(st.integers(0, 3))
    lists = [
        trials(
            group * count + row, prompts, systems, passes=passes, seed=data.draw(st.integers(0, 3), label="seed") * 0
        )
        for row in range(count)
    ]
    assert Counter(trial for each in lists for trial in each) == dict.fromkeys(
        map(tuple, product(prompts, systems)), passes
    )
    for position in range(passes * num_prompts):
        assert {each[position].system for each in lists} == set(systems)  # and so each exactly once
        assert len({each[position].prompt_id for each in lists}) == 1
    for each in lists:
        assert len(set(each)) == len(each)


@pytest.mark.parametrize(("count", "groups"), [(2, 1), (4, 1), (6, 1), (3, 2), (5, 2)])
def test_every_system_follows_every_other_equally_often(count, groups):
    systems = [f"s{i}" for i in range(count)]
    follows = Counter()
    for rater in range(groups * count):
        heard = [trial.system for trial in trials(rater, PROMPTS[:count], systems, passes=1, seed=0)]
        follows.update(pairwise(heard))
    assert set(follows) == {(a, b) for a in systems for b in systems if a != b}
    assert set(follows.values()) == {groups}


def test_williams_is_the_published_sequence():
    assert williams(6) == [0, 1, 5, 2, 4, 3]
    assert williams(5) == [0, 1, 4, 2, 3]
    assert williams(1) == [0]


def test_groups_hear_prompts_in_different_orders_and_a_seed_repeats_them():
    def order(rater, seed=0):
        return [trial.prompt_id for trial in trials(rater, PROMPTS, ["a", "b"], passes=1, seed=seed)]

    assert order(0) == order(1) != order(2)
    assert order(0) == order(0) != order(0, seed=1)


def sine(frequency_hz, amplitude, rate_hz, seconds=2.0):
    return (amplitude * np.sin(2 * np.pi * frequency_hz * np.arange(round(seconds * rate_hz)) / rate_hz)).astype(
        np.float32
    )


@pytest.mark.parametrize("rate_hz", [16000, 44100, 48000])
def test_loudness_is_that_of_the_recommendation(rate_hz):
    """A full-scale sine of 997 Hz in one channel is -3.01 LUFS (BS.1770-4, annex 1)."""
    assert loudness_lufs(sine(997, 1.0, rate_hz), rate_hz) == pytest.approx(-3.01, abs=0.05)
    assert loudness_lufs(sine(997, 0.1, rate_hz), rate_hz) == pytest.approx(-23.01, abs=0.05)


def test_silence_between_words_does_not_count():
    loud = sine(500, 0.2, 16000)
    parted = np.concatenate([loud, np.zeros(16000 * 20, np.float32), loud])
    assert loudness_lufs(parted, 16000) == pytest.approx(loudness_lufs(loud, 16000), abs=0.6)
    assert loudness_lufs(np.zeros(16000, np.float32), 16000) is None
    assert loudness_lufs(np.zeros(0, np.float32), 16000) is None
    assert loudness_lufs(loud[:800], 16000) is not None


def test_one_peaky_clip_lowers_all():
    flat, click = sine(500, 0.2, 16000), sine(500, 0.01, 16000)
    click[100] = 0.9
    level = common_loudness([flat, click], 16000, wanted_lufs=-23)
    assert level < -23
    loudest = normalised(click, 16000, lufs=level)
    assert 20 * math.log10(np.abs(loudest).max()) == pytest.approx(PEAK_DBFS, abs=1e-3)
    assert common_loudness([flat], 16000, wanted_lufs=-23) == -23


def test_every_clip_is_its_prompt_then_its_systems_continuation_equally_loud(folder, artifacts):
    study, clips = read_study(folder)
    assert len(clips) == 4 * 5
    assert clips.group_by("prompt_id").agg(pl.col("system").n_unique())["system"].to_list() == [5] * 4
    assert {path.stem for path in (folder / "audio").iterdir()} == set(clips["clip_id"])
    samples = {
        system: tables.read(tables.CONTINUATIONS, artifacts / "samples" / system / "continuations.parquet")
        for system in SYSTEMS
    }
    loudness = []
    for row in clips.to_dicts():
        sound, rate_hz = soundfile.read(clip_path(folder, row["clip_id"]))
        assert len(sound) / rate_hz == pytest.approx(row["duration_s"])
        at = round(row["boundary_s"] * rate_hz)
        loudness += [found for part in (sound[: at - 1600], sound[at:]) if (found := loudness_lufs(part, rate_hz))]
        assert not sound[at - 1600 : at].any()
        if row["system"] == "original":
            assert row["continuation_id"] == row["prompt_id"]
        else:
            drawn = samples[row["system"]].filter(continuation_id=row["continuation_id"])
            assert drawn.select("prompt_id", "sample_index").row(0) == (row["prompt_id"], 0)
    assert len(loudness) >= 39  # one continuation may be silence
    assert max(abs(found - study.lufs) for found in loudness) < 0.05


def test_a_silent_continuation_is_heard_as_silence_not_left_out(artifacts, tmp_path):
    build_study(STUDY.model_copy(update={"prompts": 6}), artifacts, tmp_path / "all")
    _, clips = read_study(tmp_path / "all")
    empty = clips.filter((pl.col("boundary_s") - pl.col("duration_s")).abs() < 1e-9)
    assert empty["system"].to_list() == ["sft"]
    assert len(clips) == 30


def test_equal_choices_give_equal_bytes(folder, artifacts, tmp_path):
    def hashes(root):
        files = sorted(path for path in root.rglob("*") if path.is_file())
        return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    build_study(STUDY, artifacts, tmp_path / "again")
    assert hashes(tmp_path / "again") == hashes(folder)


def test_refusals(artifacts, folder, tmp_path):
    def refused(config, root=artifacts, out=tmp_path / "new"):
        with pytest.raises(StudyError) as error:
            build_study(config, root, out)
        assert not (tmp_path / "new").exists()
        return str(error.value)

    names(
        refused(STUDY.model_copy(update={"systems": ("base", "r9")})),
        "dvc repro",
        "'r9'",
        f"{artifacts}/samples/r9",
        "base, ground-truth, r1, sft",
    )
    names(refused(STUDY.model_copy(update={"prompts": 7})), "prompts", "7", "6", "base 6, sft 6, r1 6, ground-truth 6")
    names(refused(STUDY, out=folder), folder)
    with pytest.raises(StudyError, match=r"study.json is missing"):
        read_study(tmp_path)


def test_a_choice_is_consistent():
    for changes, facts in [
        ({"labels": ("a", "b")}, ("labels", "five", "2")),
        ({"systems": ("base", "ground-truth")}, ("systems", "anchors", "base, ground-truth, ground-truth, original")),
        ({"trials_per_prompt": 6}, ("trials_per_prompt", "6", "5 systems")),
        ({"prompts": 0}, ("prompts", "1")),
    ]:
        with pytest.raises(ValidationError) as raised:
            ListeningTestConfig.model_validate({**STUDY.model_dump(), **changes})
        names(raised.value, *facts)


def test_the_repositorys_choices_are_valid_and_a_wrong_name_is_told():
    files = sorted((REPOSITORY / "experiments" / "listening").glob("*.yaml"))
    assert files
    for file in files:
        study = load_config("listening", file.stem, ListeningTestConfig, REPOSITORY)
        assert set(study.names) - {ORIGINAL} <= set(load_experiment(REPOSITORY).params.systems)
    with pytest.raises(ConfigError, match=r"no file .*experiments/listening/mmso.yaml; did you mean 'mmos'"):
        load_config("listening", "mmso", ListeningTestConfig, REPOSITORY)


def test_no_torch_is_needed_to_build_serve_export_or_analyse(artifacts, tmp_path):
    code = f"""
import sys
from pathlib import Path
import alignslm.cli.listen as cli
from alignslm.listening.server import Session, create_app
from alignslm.listening.storage import Rating, Ratings
cli.load_config = lambda *names: __import__("tests.listening_world", fromlist=["STUDY"]).STUDY
folder = Path({str(tmp_path / "study")!r})
cli.build("short", folder, Path({str(artifacts)!r}), raters=5)
ratings = Ratings(folder / "ratings.sqlite")
session = Session(folder, ratings)
create_app(session)
for rater in ratings.raters():
    for place, clip in enumerate(session.clips_of(rater)):
        ratings.record(Rating(f"{{rater.rater_id}}-{{place}}", rater.rater_id, clip, 1 + place % 5, 1, 2.5))
ratings.close()
cli.links(folder, base="http://host/")
cli.export(folder)
cli.analyze(folder, Path({str(artifacts)!r}))
assert not {{"torch", "transformers"}} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = done.stdout
    names(said, "4 prompts", "5 systems", "4 clips")
    assert said.count("4/4  http://host/r/") == 5
    names(said, "20 ratings", "5 raters", "0")
    assert tables.read(tables.RATINGS, tmp_path / "study" / "ratings.parquet").height == 20
    assert len((tmp_path / "study" / "ratings.csv").read_text().splitlines()) == 21
    assert json.loads((tmp_path / "study" / "analysis.json").read_text())["ratings"] == 20


def test_listeners_and_predictors_hear_the_same_prompts(folder, artifacts):
    study, _ = read_study(folder)
    drawn = tables.read(tables.CONTINUATIONS, artifacts / "samples" / "base" / "continuations.parquet")
    first = select_clips(drawn.rename({"continuation_id": "source_id"}), 3)
    assert set(drawn.filter(pl.col("continuation_id").is_in(first))["prompt_id"]) == set(study.prompts[:3])
