"""Figures of all texts together against plain loops: values, jackknife errors, differences."""

import math
import statistics

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignslm import tables
from alignslm.figures.corpus_level import distinct_values, jackknife_values, word_error_values, word_errors
from alignslm.metrics import ngrams, words
from alignslm.report.inputs import read_inputs
from alignslm.report.writing import report_of
from alignslm.statistics import MIN_CLUSTERS, mean_interval
from tests.messages import names
from tests.report_world import EXPERIMENT, build
from tests.test_benchmark_spoken import naive_distance

TEXTS = st.lists(st.sampled_from("abc"), max_size=5).map(" ".join)
DRAWS = st.lists(st.dictionaries(st.sampled_from("pqrstuvw"), st.one_of(st.none(), TEXTS)), min_size=1, max_size=3)


def naive_jackknife(figure, clusters):
    """Standard error from the figure recomputed without each cluster in turn."""
    without = [figure([other for other in clusters if other != cluster]) for cluster in clusters]
    mean, count = statistics.fmean(without), len(clusters)
    return math.sqrt((count - 1) / count * sum((one - mean) ** 2 for one in without))


def distinct_n(texts, *, n):
    grams = [gram for text in texts for gram in ngrams(words(text), n)]
    return len(set(grams)) / len(grams) if grams else None


def naive_distinct(draws, prompts, n):
    """The mean over draws of distinct-n of these prompts' texts together."""
    shares = [distinct_n([texts[prompt] or "" for prompt in prompts if prompt in texts], n=n) for texts in draws]
    return statistics.fmean(share for share in shares if share is not None)


def estimate(values):
    return mean_interval(list(values.values()), list(values))


@settings(max_examples=150)
@given(DRAWS, st.integers(1, 2))
def test_distinct_n_and_its_error_are_those_of_loops_over_texts(draws, n):
    wordy = sorted({p for texts in draws for p, text in texts.items() if len(words(text or "")) >= n})
    values = distinct_values(draws, n=n)
    assert sorted(values) == wordy
    if not wordy:
        return
    found = estimate(values)
    assert found.value == pytest.approx(naive_distinct(draws, wordy, n))
    if len(wordy) < MIN_CLUSTERS:
        assert (found.stderr, found.ci95) == (None, None)
    else:
        expected = naive_jackknife(lambda some: naive_distinct(draws, some, n), wordy)
        assert found.stderr == pytest.approx(expected, abs=1e-12)


def test_distinct_n_by_hand():
    one, two = {"p": "the dog ran", "q": "the cat ran", "r": None}, {"p": "", "q": "a a a"}
    values = distinct_values([one, two], n=1)
    assert statistics.fmean(values.values()) == pytest.approx((4 / 6 + 1 / 3) / 2)
    assert set(values) == {"p", "q"}
    assert distinct_values([{"p": "", "q": None}], n=1) == {}


def test_jackknifed_values_of_a_mean_are_the_values():
    rows = np.array([1.0, 4.0, 2.0, 9.0])
    without = np.array([np.delete(rows, place).mean() for place in range(4)])
    assert jackknife_values(rows.mean(), without) == pytest.approx(rows)


ROWS = st.lists(st.tuples(TEXTS, st.sampled_from(["ok", "empty", "failed"]), TEXTS), min_size=1, max_size=6)


@settings(max_examples=100, deadline=None)
@given(ROWS)
def test_word_error_rate_and_its_error_are_those_of_loops_over_texts(rows):
    names = [f"p{place}" for place in range(len(rows))]
    references = pl.DataFrame(
        {"prompt_id": names, "source_id": [f"{name}-0" for name in names], "text": [text for text, _, _ in rows]}
    )
    heard = pl.DataFrame({
        "source_id": references["source_id"], "status": [status for _, status, _ in rows],
        "text": [found if status == "ok" else None for _, status, found in rows],
    }, schema_overrides={"text": pl.String})  # fmt: skip
    counted = word_errors(references, heard.reverse(), system="s")
    errors = {
        name: naive_distance(words(found) if status == "ok" else [], words(text))
        for name, (text, status, found) in zip(names, rows, strict=True)
        if status != "failed" and words(text)
    }
    sizes = {name: len(words(text)) for name, (text, _, _) in zip(names, rows, strict=True)}
    assert dict(counted.select("prompt_id", "words").iter_rows()) == sizes
    assert {p: e for p, e in counted.select("prompt_id", "errors").iter_rows() if e is not None and sizes[p]} == errors

    def rate(prompts):
        return sum(errors[p] for p in prompts) / sum(sizes[p] for p in prompts)

    values = word_error_values(counted)
    assert sorted(values) == sorted(errors)
    found = estimate(values)
    assert found.value == (pytest.approx(rate(errors)) if errors else None)
    if len(errors) >= MIN_CLUSTERS:
        assert found.stderr == pytest.approx(naive_jackknife(rate, list(errors)), abs=1e-12)


def test_case_and_punctuation_are_no_errors_and_a_word_too_many_is_one():
    references = pl.DataFrame({"prompt_id": ["p"], "source_id": ["p"], "text": ["She's at the sea-side."]})
    heard = pl.DataFrame({"source_id": ["p"], "status": ["ok"], "text": ["she's AT, the the sea-side"]})
    assert word_errors(references, heard, system="s").rows() == [("s", "p", 1, 4)]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    inputs = read_inputs(build(tmp_path_factory.mktemp("artifacts")), EXPERIMENT)
    return inputs, report_of(inputs)


def test_the_report_holds_both_with_errors_counts_and_directions(world):
    inputs, report = world
    prompts = inputs.judged["prompt_id"].n_unique()
    texts = dict(inputs.transcripts["base"].select("source_id", "text").iter_rows())
    ids = (
        inputs.judged.filter(model="base", metric="judge_score")
        .select("continuation_id", "prompt_id", "sample_index")
        .rows()
    )
    draws = [{prompt: texts[name] for name, prompt, at in ids if at == draw} for draw in (0, 1)]
    for n in (1, 2):
        found = report.metric("base", "continuation", f"distinct_{n}")
        assert found.value == pytest.approx(naive_distinct(draws, sorted(draws[0]), n))
        assert (found.n, found.n_missing, found.higher_is_better) == (prompts, 0, None)
        assert found.ci95[0] < found.value < found.ci95[1]
    recorded = report.metric("original-continuations", "speech", "word_error_rate")
    known = inputs.word_errors.filter(system="original-continuations", prompt_id=min(draws[0]))
    assert known["errors"].to_list() == [None]  # the recogniser gave up
    # of the 40 prompts every fourth lost the last of its four words, but for the first, which was given up
    assert recorded.value == pytest.approx(9 / (39 * 4))
    assert (recorded.n, recorded.n_missing, recorded.higher_is_better) == (39, 1, False)
    assert report.metric("ground-truth", "speech", "word_error_rate").n == prompts
    assert report.metric("base", "speech", "word_error_rate") is None


def test_a_difference_of_distinct_n_is_the_difference_of_the_figures(world):
    _, report = world
    for model in ("r2", "ground-truth"):
        found = report.comparison(model, "base", "continuation", "distinct_2")
        left, right = (report.metric(name, "continuation", "distinct_2").value for name in (model, "base"))
        assert found.delta == pytest.approx(left - right)
        assert found.ci95[0] < found.delta < found.ci95[1]


def test_without_the_true_continuations_among_the_systems_nothing_is_counted(tmp_path):
    artifacts = build(tmp_path)
    (artifacts / "samples" / "ground-truth" / "recorded.parquet").unlink()
    sampled = {name: item for name, item in EXPERIMENT.params.systems.items() if name != "ground-truth"}
    alone = EXPERIMENT.model_copy(update={"params": EXPERIMENT.params.model_copy(update={"systems": sampled})})
    assert read_inputs(artifacts, alone).word_errors.is_empty()
    with pytest.raises(tables.TableError) as raised:
        read_inputs(artifacts, EXPERIMENT)
    names(raised.value, "recorded.parquet", "empty")
