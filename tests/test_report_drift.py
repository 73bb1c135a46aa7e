"""Drift from round to round: the lineage of checkpoints and its figures."""

import statistics
import xml.etree.ElementTree as ET

import polars as pl
import pytest

from alignslm import tables
from alignslm.report.drawing import drawing_style
from alignslm.report.drift import held_out_scores
from alignslm.report.inputs import read_inputs
from alignslm.report.plots import panels
from alignslm.report.systems import lineage
from alignslm.report.writing import report_of
from tests.report_world import EXPERIMENT, build


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return read_inputs(build(tmp_path_factory.mktemp("artifacts")), EXPERIMENT)


@pytest.fixture(scope="module")
def report(inputs):
    return report_of(inputs)


def test_lineage_follows_what_each_round_was_trained_from():
    assert lineage(EXPERIMENT) == ["base", "r1", "r2"]
    params = EXPERIMENT.params
    r1, base = params.checkpoints["r1"], params.systems["base"]
    side = params.model_copy(
        update={
            "preferences": {**params.preferences, "r7": params.preferences["r1"]},
            "checkpoints": {**params.checkpoints, "r7": r1.model_copy(update={"train_on": "pairs/r7"})},
            "systems": {**params.systems, "r7": base.model_copy(update={"source": "checkpoints/r7"})},
        }
    )
    assert lineage(EXPERIMENT.model_copy(update={"params": side})) == ["base", "r7"]


def test_what_was_not_measured_is_not_drawn():
    with drawing_style():
        assert list(held_out_scores(pl.DataFrame(schema=dict(tables.CONTINUATION_METRICS.schema)), EXPERIMENT)) == []


def test_the_shares_of_scores_rise_with_the_rounds(inputs):
    with drawing_style():
        (panel,) = held_out_scores(inputs.judged, EXPERIMENT)
    medians = {
        model: statistics.median(inputs.judged.filter(model=model, metric="judge_score")["value"].drop_nulls())
        for model in ("base", "r1", "r2")
    }
    assert panel.alt == "; ".join(f"{model}: half score at most {value:.2f}" for model, value in medians.items())


def test_every_curve_is_drawn(inputs, report):
    drawn = {panel.name: panel for panel in panels(report, inputs)}
    expected = {
        "training-reward-accuracy", "training-reward-margin", "training-log-probabilities", "training-loss",
        "scores-r1", "scores-r2", "scores-held-out",
        "models-num-words", "models-duration-s", "models-auto-bleu", "models-unique-ratio-per-index",
    }  # fmt: skip
    assert expected <= set(drawn)
    assert drawn["models-num-words"].alt.startswith("base 7.00 (all equal); sft 7.00 (all equal); ")
    for name in expected:
        ET.fromstring(drawn[name].svg)  # noqa: S314 (our own drawing)
