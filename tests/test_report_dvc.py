"""What DVC shows of a report: ten headline numbers, and rows of plots that hold only what was measured."""

import json
import statistics
from bisect import bisect_right

import polars as pl
import pytest

from alignslm.report.inputs import TrainingLog, read_inputs
from alignslm.report.plot_data import plot_data
from alignslm.report.summary import NAMES, summary_json, summary_of
from alignslm.report.writing import report_of
from tests.report_world import EXPERIMENT, build

LOGGED = {
    "train_loss": "loss",
    "eval_loss": "eval_loss",
    "reward_accuracy": "eval_rewards/accuracies",
    "reward_margin": "eval_rewards/margins",
}


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory):
    return build(tmp_path_factory.mktemp("artifacts"))


@pytest.fixture(scope="module")
def inputs(artifacts):
    return read_inputs(artifacts, EXPERIMENT)


@pytest.fixture(scope="module")
def report(inputs):
    return report_of(inputs)


@pytest.fixture(scope="module")
def plots(report, inputs):
    return {name: json.loads(text) for name, text in plot_data(report, inputs).items()}


def scores(inputs, system, judge):
    rows = inputs.judged.filter(model=system, metric=judge).drop_nulls("value")
    return dict(rows.select("continuation_id", "value").rows())


def test_the_summary_is_of_the_last_round(inputs, report):
    found = summary_of(report, EXPERIMENT)
    assert tuple(json.loads(summary_json(found))) == NAMES
    assert len(NAMES) == 10
    assert found.score == round(statistics.fmean(scores(inputs, "r2", "judge_score").values()), 2)
    for name, judge in (("gain", "judge_score"), ("heldout_gain", "heldout_judge_score")):
        base, result = scores(inputs, "base", judge), scores(inputs, "r2", judge)
        paired = statistics.fmean(result[key] - base[key] for key in base)
        assert getattr(found, name) == pytest.approx(paired, abs=0.02)  # per prompt, where one lacks a continuation
    low, high = report.comparison("r2", "base", "continuation", "judge_score").ci95
    assert found.gain_ci == round((high - low) / 2, 2) > 0
    for name, benchmark, kind in (
        ("topic", "storycloze", "topic"),
        ("sblimp",) * 2 + (None,),
        ("swuggy",) * 2 + (None,),
    ):
        items = inputs.item_scores.filter(model="r2", benchmark=benchmark)
        correct = (items if kind is None else items.filter(subtype=kind))["correct"].drop_nulls()
        assert getattr(found, name) == round(100 * statistics.fmean(correct), 1)
    assert found.pred_mos == round(report.metric("r2", "speech", "dnsmos_ovrl").value, 2)
    assert found.wer == round(100 * report.metric("ground-truth", "speech", "word_error_rate").value, 1)


def test_what_was_not_measured_is_null_in_the_summary(report):
    bare = report.model_copy(update={"metrics": (), "comparisons": ()})
    assert json.loads(summary_json(summary_of(bare, EXPERIMENT))) == dict.fromkeys(NAMES)


def test_a_benchmark_is_known_by_its_name_or_by_what_it_asks(report):
    renamed = EXPERIMENT.model_copy(
        update={"benchmarks": {"words": EXPERIMENT.benchmarks["swuggy"], "sblimp": EXPERIMENT.benchmarks["storycloze"]}}
    )
    metrics = tuple(
        m.model_copy(update={"benchmark": "words"}) if m.benchmark == "swuggy" else m for m in report.metrics
    )
    found = summary_of(report.model_copy(update={"metrics": metrics}), renamed)
    assert (found.swuggy, found.sblimp) == (
        summary_of(report, EXPERIMENT).swuggy,
        summary_of(report, EXPERIMENT).sblimp,
    )


@pytest.mark.parametrize("name", LOGGED)
def test_a_curve_has_the_logged_steps_of_each_checkpoint_and_no_others(artifacts, plots, name):
    logs = {path.stem: json.loads(path.read_text())["log"] for path in (artifacts / "training_logs").glob("*.json")}
    expected = {
        (checkpoint, row["step"], row["figures"][LOGGED[name]])
        for checkpoint, log in logs.items()
        for row in log
        if LOGGED[name] in row["figures"]
    }
    assert {tuple(row.values()) for row in plots[f"{name}.json"]} == expected
    assert all(set(row) == {"series", "step", name} for row in plots[f"{name}.json"])


def test_log_probabilities_are_two_lines_per_checkpoint(plots):
    assert {row["series"] for row in plots["logps.json"]} == {
        f"{checkpoint} {side}" for checkpoint in ("r1", "r2") for side in ("chosen", "rejected")
    }


@pytest.mark.parametrize("judge", ["judge_score", "heldout_judge_score"])
def test_a_line_of_scores_per_system(inputs, plots, judge):
    rows = plots[f"{judge}s.json"]
    assert list(dict.fromkeys(row["series"] for row in rows)) == EXPERIMENT.params.ordered_systems
    for row in rows:
        values = sorted(scores(inputs, row["series"], judge).values())
        assert row["percent"] == pytest.approx(100 * bisect_right(values, row["score"]) / len(values))


def test_gains_with_their_intervals(report, plots):
    rows = {(row["series"], row["system"]): (row["gain"], row["low"], row["high"]) for row in plots["gains.json"]}
    assert {system for _, system in rows} == set(EXPERIMENT.params.ordered_systems) - {"base"}
    found = report.comparison("r1", "base", "continuation", "heldout_judge_score")
    assert rows["held-out judge", "r1"] == (found.delta, *found.ci95)


def test_a_plot_without_a_point_has_no_file(report, inputs):
    log = TrainingLog.model_validate_json('{"steps": 1, "best": null, "log": [{"step": 1, "figures": {"loss": NaN}}]}')
    bare = report.model_copy(update={"comparisons": ()})
    nothing = type(inputs)(
        **{**vars(inputs), "training": {"r1": log}, "judged": inputs.judged.filter(pl.lit(value=False))}
    )
    assert plot_data(bare, nothing) == {}
