"""Sweeps: what is run, that all of it is valid first, and one table against a naive oracle.

The runs themselves are DVC's, of a pipeline of seconds (tests/sweep_world.py).
"""

import math
import shutil
import subprocess
from itertools import product
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import scipy.stats
from hypothesis import example, given, settings
from hypothesis import strategies as st

from alignslm import tables
from alignslm.pipeline import read_stages
from alignslm.statistics import holm
from alignslm.sweep import SweepError
from alignslm.sweep.measured import Measured, columns_in
from alignslm.sweep.runs import stage_hashes
from alignslm.sweep.settings import MAX_RUNS, combinations
from alignslm.sweep.table import differences
from tests.messages import names
from tests.micro import ROOT, edit
from tests.report_world import EXPERIMENT, build
from tests.sweep_world import shift

KEYS = ("judge", "weights.ppl", "seeds.base", "experiments/judge/ngram.yaml:order", "+new.key")
VALUES = st.lists(st.integers(-9, 99), min_size=1, max_size=4, unique=True)


@settings(max_examples=50, deadline=None)
@example({key: [0, 1, 2, 3] for key in KEYS})
@given(st.dictionaries(st.sampled_from(KEYS), VALUES | st.tuples(st.integers(-5, 5), st.integers(1, 3)), min_size=1))
def test_every_combination_is_there_once_in_order_under_a_name_of_its_own(wanted):
    texts = [
        f"{key}={some[0]}:{some[0] + some[1]}" if isinstance(some, tuple) else f"{key}={','.join(map(str, some))}"
        for key, some in wanted.items()
    ]
    lists = [range(some[0], some[0] + some[1]) if isinstance(some, tuple) else some for some in wanted.values()]
    if math.prod(map(len, lists)) > MAX_RUNS:
        with pytest.raises(SweepError):
            combinations(texts)
        return
    found = combinations(texts)
    by_file = [key for key in wanted if ".yaml:" not in key] + [key for key in wanted if ".yaml:" in key]
    expected = {frozenset(f"{k}={v}" for k, v in zip(wanted, values, strict=True)) for values in product(*lists)}
    assert {frozenset(some.settings) for some in found} == expected
    assert len(found) == len(expected) == len({some.name for some in found})
    assert set(by_file) == {text.partition("=")[0] for text in found[0].settings}


def test_the_last_setting_varies_fastest_and_names_say_what_varies():
    found = combinations(["judge=ngram,story-lm", "weights.ppl=0,.5", "seeds.base=0:2"])
    assert [some.name for some in found][:3] == [
        "sweep-judge-ngram-ppl-0-base-0",
        "sweep-judge-ngram-ppl-0-base-1",
        "sweep-judge-ngram-ppl-0.5-base-0",
    ]
    assert found[-1].settings == ("judge=story-lm", "weights.ppl=0.5", "seeds.base=1")


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("seeds.base=0:2,7", ["seeds.base=0", "seeds.base=1", "seeds.base=7"]),
        ("seeds.base=range(0,4,2)", ["seeds.base=0", "seeds.base=2"]),
        ("+systems.x={source: a},{source: b}", ["+systems.x={source:a}", "+systems.x={source:b}"]),
        ("weights.ppl=-1,-0.5", ["weights.ppl=-1", "weights.ppl=-0.5"]),
        ("x=http://a:8:9", ["x=http://a:8:9"]),
        ("~weights.ppl", ["~weights.ppl"]),
        ("judge=ngram,ngram", ["judge=ngram"]),
    ],
)
def test_what_dvc_takes_is_taken(setting, expected):
    assert [text for some in combinations([setting]) for text in some.settings] == expected


@pytest.mark.parametrize(
    "given_settings", [["seeds.base=0:3"], ["x='a..b'", "y=.lock"], ["weights.ppl=-1"], ["a={b: [1]}"]]
)
def test_git_takes_the_names(given_settings):
    for some in combinations(given_settings):
        subprocess.run(["git", "check-ref-format", f"refs/exps/12/34/{some.name}"], check=True)


@pytest.mark.parametrize(
    ("given_settings", "named"),
    [
        (["judge"], ("'judge'", "KEY=VALUES")),
        (["seeds.base=3:3"], ("seeds.base=3:3", "0:3")),
        (["x={a"], ("x={a",)),
        (["x=glob(*)"], ("x=glob(*)", "lists and ranges")),
        (["x=0:100", "y=0:100"], ("10000", str(MAX_RUNS))),
        ([f"x=0:{10**12}"], (str(MAX_RUNS),)),
    ],
)
def test_what_cannot_be_swept_is_named(given_settings, named):
    with pytest.raises(SweepError) as error:
        combinations(given_settings)
    names(str(error.value), *named)


def test_runs_share_the_stages_before_the_first_that_a_value_changes(monkeypatch, tmp_path):
    for name in ("dvc.yaml", "params.yaml", "code.yaml"):
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "experiments", tmp_path / "experiments")
    monkeypatch.chdir(tmp_path)
    hashes = {}
    for judge in ("story-lm", "trigram"):
        shutil.copy("experiments/judge/ngram.yaml", "experiments/judge/trigram.yaml")
        edit(Path("params.yaml"), {"judge": judge})
        files = {path.as_posix(): path.read_text() for path in Path("experiments").rglob("*.yaml")}
        hashes[judge] = stage_hashes(read_stages(), files)
    one, other = hashes.values()
    equal = {name for name in one if one[name] == other.get(name)}
    assert {
        "corpus",
        "units",
        "base",
        "vocoder",
        "transcripts@r1",
        "train@ntp" if "train@ntp" in one else "asr",
    } <= equal
    assert not equal & {"scores@r1", "pairs@r1", "train@r1", "train@sft", "eval@base", "report"}


# --- the table, against plain loops over the rows ---


def judged_means(artifacts, system, metric="judge_score"):
    rows = pl.read_parquet(artifacts / "eval" / system / "judged.parquet").filter(metric=metric).drop_nulls("value")
    return {name: some["value"].mean() for (name,), some in rows.group_by("prompt_id")}


def naive(left, right):
    """Return mean, 95 % interval and p of a paired t test over the prompts that both have."""
    values = np.array([left[name] - right[name] for name in sorted(left.keys() & right.keys())])
    error = values.std(ddof=1) / np.sqrt(len(values))
    half = scipy.stats.t.ppf(0.975, len(values) - 1) * error
    p = 2 * scipy.stats.t.sf(abs(values.mean() / error), len(values) - 1)
    return values.mean(), (values.mean() - half, values.mean() + half), p


def moved(source, target, *, ppl):
    shutil.copytree(source, target)
    path = target / "eval/r2/judged.parquet"
    rows = tables.read(tables.CONTINUATION_METRICS, path)
    higher = pl.col("value") + shift(rows["prompt_id"], ppl=ppl, seed=1)
    rows = rows.with_columns(value=pl.when(pl.col("metric") == "judge_score").then(higher).otherwise("value"))
    tables.write(rows, tables.CONTINUATION_METRICS, path)
    return target


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    return build(folder / "one"), moved(folder / "one", folder / "other", ppl=0.3)


def test_differences_are_the_naive_ones(two):
    judges = {"score": "a", "gain": "a", "heldout_gain": "b"}
    found = differences({str(path): Measured(columns_in(path, EXPERIMENT), judges) for path in two})
    score = naive(*(judged_means(path, "r2") for path in two[::-1]))
    assert found[str(two[1]), "score"].found.value == pytest.approx(score[0])
    assert found[str(two[1]), "score"].found.ci95 == pytest.approx(score[1])
    gains = [
        {name: value - base[name] for name, value in judged_means(path, "r2").items() if name in base}
        for path in two
        for base in [judged_means(path, "base")]
    ]
    gain = naive(gains[1], gains[0])
    assert found[str(two[1]), "gain"].found.value == pytest.approx(gain[0])
    assert found[str(two[1]), "gain"].found.ci95 == pytest.approx(gain[1])
    assert found[str(two[1]), "gain"].found.p == pytest.approx(gain[2])
    assert found[str(two[1]), "topic"].found.value == 0
    raw = [some.found.p for some in found.values()]
    assert [some.p_corrected for some in found.values()] == holm(raw)
    assert len(raw) == 9


def test_values_are_the_naive_ones(two):
    columns = columns_in(two[0], EXPERIMENT)
    assert columns["gain"][:2] == ("continuation", "judge_score")  # which is how it is printed, and named in JSON
    assert columns["heldout_gain"][:2] == ("continuation", "heldout_judge_score")
    items = pl.read_parquet(two[0] / "eval/r2/item_scores.parquet")
    topic = items.filter((pl.col("benchmark") == "storycloze") & (pl.col("subtype") == "topic"))
    assert np.nanmean(columns["topic"].values) == pytest.approx(topic["correct"].mean())
    swuggy = items.filter(benchmark="swuggy")["correct"].drop_nulls()
    assert np.nanmean(columns["swuggy"].values) == pytest.approx(swuggy.mean())
    heldout = [judged_means(two[0], name, "heldout_judge_score") for name in ("r2", "base")]
    assert np.nanmean(columns["heldout_gain"].values) == pytest.approx(naive(*heldout)[0])


def test_scores_of_two_judges_are_not_subtracted(two):
    known = {
        name: Measured(columns_in(path, EXPERIMENT), {"score": name, "gain": name, "heldout_gain": "same"})
        for name, path in zip(("a", "b"), two, strict=True)
    }
    metrics = {metric for _, metric in differences(known)}
    assert {"heldout_gain", "topic", "unique"} <= metrics
    assert not metrics & {"score", "gain"}


def test_speech_without_texts_has_no_word_error_rate(tmp_path):
    folder = build(tmp_path / "artifacts")
    before = columns_in(folder, EXPERIMENT)
    prompts = tables.read(tables.PROMPTS, folder / "prompts.parquet")
    silent = prompts.with_columns(continuation_text=pl.lit(None, pl.String))
    (folder / "prompts.parquet").unlink()
    tables.write(silent, tables.PROMPTS, folder / "prompts.parquet")
    assert before.keys() - columns_in(folder, EXPERIMENT).keys() == {"wer"}
