"""Reported numbers against slow oracles written from their definitions."""

import json
import math
import statistics
from collections import defaultdict

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignslm import tables
from alignslm.figures.columns import EvalTables, ReportError
from alignslm.report.inputs import read_inputs
from alignslm.report.metrics import FLAG_REASON, Report, compared, summarise
from alignslm.report.systems import evaluated, previous
from alignslm.report.writing import report_of
from tests.messages import names
from tests.report_world import EXPERIMENT, SHIFTS, build

NO_ITEMS = pl.DataFrame(schema=dict(tables.ITEM_SCORES.schema))


def judged(*rows):
    """Rows (model, prompt, draw, metric, value) as a CONTINUATION_METRICS table."""
    made = [(model, f"{prompt}-{draw}", prompt, draw, metric, value) for model, prompt, draw, metric, value in rows]
    return tables.conform(
        pl.DataFrame(made, schema=dict(tables.CONTINUATION_METRICS.schema), orient="row"), tables.CONTINUATION_METRICS
    )


def heard(texts):
    """Texts by continuation id as a TRANSCRIPTS table; None is a failure."""
    rows = [
        {"source_id": name, "text": text, "status": "failed" if text is None else "ok" if text else "empty"}
        for name, text in texts.items()
    ]
    return tables.conform(pl.DataFrame(rows, schema=dict(tables.TRANSCRIPTS.schema)), tables.TRANSCRIPTS)


def summary(frame, *, models, items=NO_ITEMS, transcripts=None, rounds=None):
    measured = EvalTables(frame, items, transcripts or {})
    return summarise(measured, models=models, rounds=rounds or {}, topline="ground-truth")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    inputs = read_inputs(build(tmp_path_factory.mktemp("artifacts")), EXPERIMENT)
    return inputs, report_of(inputs)


def values_of(inputs, model, metric):
    """{prompt: [measured values]} of one judged metric, by plain loops."""
    found = defaultdict(list)
    for row in inputs.judged.iter_rows(named=True):
        if row["model"] == model and row["metric"] == metric:
            found[row["prompt_id"]] += [row["value"]] if row["value"] is not None else []
    return found


@pytest.mark.parametrize(
    "metric", ["judge_score", "heldout_judge_score", "auto_bleu", "num_words", "duration_s", "grammatical"]
)
def test_judged_means_are_plain_means_of_measured_rows(world, metric):
    inputs, report = world
    for model in SHIFTS:
        rows = [value for values in values_of(inputs, model, metric).values() for value in values]
        found = report.metric(model, "continuation", metric)
        assert found.value == pytest.approx(statistics.fmean(rows))
        assert found.n == len(rows)
        assert found.ci95[0] <= found.value <= found.ci95[1] if found.stderr else found.ci95 is None


def test_missing_values_are_counted_and_never_scored_zero(world):
    _, report = world
    found = report.metric("base", "continuation", "judge_score")
    assert (found.n, found.n_missing) == (79, 1)
    assert report.metric("base", "continuation", "unique_ratio").n_missing == 1
    swuggy = report.metric("r1", "swuggy", "accuracy")
    assert (swuggy.n, swuggy.n_missing) == (59, 1)


def test_an_absent_row_is_missing_too():
    frame = judged(
        ("base", "p", 0, "judge_score", 2.0), ("base", "q", 0, "judge_score", 4.0), ("base", "q", 0, "ppl", 8.0)
    )
    report = summary(frame, models=["base"])
    assert report.metric("base", "continuation", "judge_score").n_missing == 0
    assert (report.metric("base", "continuation", "ppl").n, report.metric("base", "continuation", "ppl").n_missing) == (
        1,
        1,
    )


def test_perplexity_is_a_geometric_mean_and_compared_in_log():
    frame = judged(
        *(("base", p, 0, "ppl", v) for p, v in zip("pqrstu", (2.0, 8.0) * 3, strict=True)),
        *(("r1", p, 0, "ppl", 1.0) for p in "pqrstu"),
    )
    report = summary(frame, models=["base", "r1"])
    ppl, log = (report.metric("base", "continuation", name) for name in ("ppl", "log_ppl"))
    assert ppl.value == pytest.approx(4.0)
    assert log.value == pytest.approx(math.log(4))
    assert ppl.stderr == pytest.approx(4 * log.stderr)
    half = 2.570582 * math.log(2) / math.sqrt(5)  # Student's t of 5; six logs that are log 4 ± log 2
    assert ppl.ci95 == pytest.approx((4 * math.exp(-half), 4 * math.exp(half)))
    assert ppl.higher_is_better is False
    assert report.comparison("r1", "base", "continuation", "ppl") is None
    assert report.comparison("r1", "base", "continuation", "log_ppl").delta == pytest.approx(-math.log(4))


@pytest.mark.parametrize(("model", "against"), [("r2", "base"), ("r2", "sft"), ("r2", "r1"), ("base-low-temp", "base")])
def test_differences_are_means_of_prompt_means_of_both_models(world, model, against):
    inputs, report = world
    left, right = values_of(inputs, model, "judge_score"), values_of(inputs, against, "judge_score")
    oracle = [statistics.fmean(left[p]) - statistics.fmean(right[p]) for p in left if left[p] and right[p]]
    found = report.comparison(model, against, "continuation", "judge_score")
    assert found.delta == pytest.approx(statistics.fmean(oracle))
    assert found.n == len(oracle)


def test_a_difference_misses_what_either_side_lacks_and_counts_it():
    frame = judged(
        *(("base", p, 0, "judge_score", v) for p, v in (("p", 2.0), ("q", 3.0), ("r", None), ("s", 1.0))),
        *(("r1", p, 0, "judge_score", v) for p, v in (("p", 3.0), ("q", 5.0), ("r", 5.0), ("t", 5.0))),
    )
    found = summary(frame, models=["base", "r1"]).comparison("r1", "base", "continuation", "judge_score")
    assert (found.delta, found.n, found.n_missing) == (1.5, 2, 3)  # r unmeasured in base, s and t in one alone


def test_pairing_cancels_the_prompts_difficulty(world):
    _, report = world
    gain = report.comparison("r2", "base", "continuation", "judge_score")
    widths = [
        m.ci95[1] - m.ci95[0] for name in ("base", "r2") if (m := report.metric(name, "continuation", "judge_score"))
    ]
    assert gain.ci95[1] - gain.ci95[0] < min(widths)
    assert gain.significant
    assert not report.comparison("ntp", "base", "continuation", "num_words").significant


def test_accuracies_are_means_over_pairs_with_a_row_a_subtype_where_there_are_several(world):
    inputs, report = world
    items = [
        r for r in inputs.item_scores.iter_rows(named=True) if (r["model"], r["benchmark"]) == ("sft", "storycloze")
    ]
    topic = [r["correct"] for r in items if r["subtype"] == "topic"]
    assert report.metric("sft", "storycloze", "accuracy").value == pytest.approx(
        statistics.fmean(r["correct"] for r in items)
    )
    assert report.metric("sft", "storycloze", "accuracy/topic").value == pytest.approx(statistics.fmean(topic))
    assert report.metric("sft", "swuggy", "accuracy/") is None
    assert report.metric("ground-truth", "storycloze", "accuracy") is None


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc")), min_size=2, max_size=9))
def test_distinct_is_different_texts_over_texts(draws):
    frame = judged(
        *(("base", f"p{i}", d, "num_words", 1.0) for i, pair in enumerate(draws) for d, _ in enumerate(pair))
    )
    texts = {f"p{i}-{d}": text for i, pair in enumerate(draws) for d, text in enumerate(pair)}
    report = summary(frame, models=["base"], transcripts={"base": heard(texts)})
    assert report.metric("base", "continuation", "unique_ratio").value == pytest.approx(
        len(set(texts.values())) / len(texts)
    )
    within = statistics.fmean(len({pair[d] for pair in draws}) / len(draws) for d in (0, 1))
    assert report.metric("base", "continuation", "unique_ratio_per_index").value == pytest.approx(within)


def test_distinct_takes_case_and_spaces_as_equal_silences_as_one_text_and_failures_as_missing():
    texts = {"p-0": "A dog", "q-0": " a  dog ", "r-0": "", "s-0": "", "t-0": None}
    frame = judged(*(("base", name[0], 0, "num_words", 1.0) for name in texts))
    found = summary(frame, models=["base"], transcripts={"base": heard(texts)}).metric(
        "base", "continuation", "unique_ratio"
    )
    assert (found.value, found.n, found.n_missing) == (0.5, 4, 1)


def test_distinct_is_compared_only_between_samples_of_one_size(world):
    _, report = world
    assert report.comparison("ground-truth", "base", "continuation", "unique_ratio") is None
    assert report.comparison("ground-truth", "base", "continuation", "unique_ratio_per_index") is not None
    assert report.comparison("r2", "base", "continuation", "unique_ratio") is not None


def test_a_judged_continuation_without_transcript_is_an_error():
    frame = judged(("base", "p", 0, "judge_score", 2.0), ("base", "q", 0, "judge_score", 2.0))
    with pytest.raises(ReportError) as raised:
        summary(frame, models=["base"], transcripts={"base": heard({"p-0": "a"})})
    names(raised.value, "dvc repro", "base", "1", "transcript")


def test_infinite_values_and_impossible_perplexities_are_refused():
    with pytest.raises(ReportError) as raised:
        summary(judged(("base", "p", 0, "judge_score", math.inf)), models=["base"])
    names(raised.value, "base", "p-0", "infinite", "1")
    with pytest.raises(ReportError, match=r"perplexity -1\.0 "):
        summary(judged(("base", "p", 0, "ppl", -1.0)), models=["base"])


def test_what_is_compared():
    models = ["base", "ntp", "sft", "r1", "r2", "ground-truth"]
    assert compared(models, {"r1": "base", "r2": "r1"}) == [
        ("ntp", "base"), ("sft", "base"), ("r1", "base"), ("r2", "base"), ("ground-truth", "base"),
        ("r1", "sft"), ("r2", "sft"), ("r2", "r1"),
    ]  # fmt: skip
    assert compared(["base", "r1"], {"r1": "base"}) == [("r1", "base")]


def test_models_above_the_ceilings_interval_are_flagged(world):
    _, report = world
    ceiling = report.metric("ground-truth", "continuation", "judge_score").ci95[1]
    oracle = [
        m.model for m in report.metrics if m.metric == "judge_score" and m.model != "ground-truth" and m.value > ceiling
    ]  # fmt: skip
    assert oracle == ["r2"]
    assert [flag.model for flag in report.flags if flag.metric == "judge_score"] == oracle
    assert FLAG_REASON == "over-optimized for its judge: scores above the ground truth"


def test_a_ceiling_without_interval_flags_nothing():
    frame = judged(("base", "p", 0, "judge_score", 5.0), ("ground-truth", "p", 0, "judge_score", 1.0))
    assert summary(frame, models=["base", "ground-truth"]).flags == ()


def test_one_cluster_has_a_value_and_no_error():
    found = summary(judged(("base", "p", 0, "judge_score", 3.0)), models=["base"]).metric(
        "base", "continuation", "judge_score"
    )
    assert (found.value, found.stderr, found.ci95) == (3.0, None, None)


def test_p_is_corrected_for_the_other_metrics_of_a_pair_and_apart_for_parts(world):
    _, report = world
    for parts in (False, True):
        rows = [c for c in report.comparisons if (c.model, c.against) == ("r2", "base") and ("/" in c.metric) is parts]
        tested = sorted((c for c in rows if c.p is not None), key=lambda c: c.p)
        assert len(tested) > 1
        for rank, comparison in enumerate(tested):
            oracle = max(min(1, some.p * (len(tested) - place)) for place, some in enumerate(tested[: rank + 1]))
            assert comparison.p_corrected == pytest.approx(oracle)
            assert comparison.significant == (oracle < 0.05)


def test_json_has_the_promised_keys_and_reads_back(world):
    _, report = world
    content = json.loads(report.to_json())
    assert list(content) == ["schema", "metrics", "comparisons", "flags"]
    assert content["schema"] == 2
    assert list(content["metrics"][0]) == [
        "model", "benchmark", "metric", "value", "stderr", "ci95", "n", "n_missing", "higher_is_better",
    ]  # fmt: skip
    assert list(content["comparisons"][0]) == [
        "model", "against", "benchmark", "metric", "delta", "stderr", "ci95", "p", "p_corrected", "n", "n_missing",
    ]  # fmt: skip
    assert Report.model_validate_json(report.to_json()) == report


def test_row_order_changes_no_bit(world):
    inputs, report = world
    shuffled = inputs.judged.sample(fraction=1.0, shuffle=True, seed=1)
    again = summarise(
        EvalTables(
            shuffled,
            inputs.item_scores.reverse(),
            inputs.transcripts,
            inputs.mos.sample(fraction=1.0, shuffle=True, seed=2),
            inputs.word_errors.reverse(),
        ),
        models=evaluated(EXPERIMENT),
        rounds=previous(EXPERIMENT),
        topline="ground-truth",
    )
    assert again == report


def test_predicted_mos_is_clustered_by_prompt_and_recorded_speech_stands_behind(world):
    _, report = world
    value = report.metric("base", "speech", "dnsmos_ovrl")
    assert (value.n, value.n_missing, value.higher_is_better) == (10, 1, True)  # 29 more clips were never asked about
    assert value.value == pytest.approx(2.82)
    assert value.ci95[0] <= value.value <= value.ci95[1]
    assert report.metric("original-prompts", "speech", "dnsmos_ovrl").value == pytest.approx(2.8 + 0.1 * 7 + 0.02)
    assert report.comparison("r1", "base", "speech", "dnsmos_ovrl").delta == pytest.approx(0.4)
    assert report.comparison("original-prompts", "base", "speech", "dnsmos_ovrl") is None
    assert [(m.model, m.metric) for m in report.metrics if m.model.startswith("original")] == [
        ("original-continuations", "dnsmos_bak"), ("original-continuations", "dnsmos_ovrl"),
        ("original-continuations", "word_error_rate"),
        ("original-prompts", "dnsmos_bak"), ("original-prompts", "dnsmos_ovrl"),
    ]  # fmt: skip
