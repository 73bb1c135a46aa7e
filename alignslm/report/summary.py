"""The ten headline numbers of an experiment: what DVC shows and compares (reports/summary.json)."""

import json
from collections.abc import Collection
from typing import NamedTuple

from alignslm.config.experiment import Experiment
from alignslm.figures.columns import BASE, CONTINUATION, SPEECH, WORD_ERROR
from alignslm.report.formatting import headline, style
from alignslm.report.metrics import Metric, Report
from alignslm.report.systems import last_round, topline

# Benchmarks by their question: the kind of a config, or the name that params.yaml gives it.
QUESTIONS = {"topic": ("tstorycloze", "storycloze", "corpus-cloze"), "sblimp": ("sblimp",), "swuggy": ("swuggy",)}


class Summary(NamedTuple):
    """Numbers of the last round, in the units of the report (percentages as 72.6); None if not measured.

    No field has the name of a parameter: DVC's tables would put a path before both.
    """

    score: float | None  # mean of the training judge
    gain: float | None  # of that score over base, paired
    gain_ci: float | None  # half of the gain's 95 % interval
    heldout_gain: float | None
    topic: float | None  # % of topic StoryCloze
    sblimp: float | None
    swuggy: float | None
    pred_mos: float | None
    unique: float | None  # % of texts that no other continuation has
    wer: float | None  # % of words of the resynthesized ground truth


NAMES = Summary._fields


def summary_of(report: Report, experiment: Experiment) -> Summary:
    """Return the headline numbers, rounded as the report prints them."""
    result = last_round(experiment)
    gain = report.comparison(result, BASE, CONTINUATION, "judge_score")
    heldout = report.comparison(result, BASE, CONTINUATION, "heldout_judge_score")
    ends = gain.ci95 if gain else None
    return Summary(
        score=_value(report.metric(result, CONTINUATION, "judge_score")),
        gain=_rounded(gain.delta if gain else None, CONTINUATION, "judge_score"),
        gain_ci=_rounded((ends[1] - ends[0]) / 2 if ends else None, CONTINUATION, "judge_score"),
        heldout_gain=_rounded(heldout.delta if heldout else None, CONTINUATION, "heldout_judge_score"),
        **{name: _value(_answer(report, experiment, name)) for name in QUESTIONS},
        pred_mos=_value(report.metric(result, SPEECH, dict(headline(report)).get(SPEECH, ""))),
        unique=_value(report.metric(result, CONTINUATION, "unique_ratio")),
        wer=_value(report.metric(topline(experiment), SPEECH, WORD_ERROR)),
    )


def summary_json(summary: Summary) -> str:
    """Return the summary as JSON text that ends in a newline."""
    return json.dumps(summary._asdict(), indent=2) + "\n"


def benchmark_of(question: str, experiment: Experiment, measured: Collection[str]) -> str | None:
    """Return the first of the measured benchmarks that asks a question of QUESTIONS, None if there is none."""
    asked = {
        label: name
        for name, config in experiment.benchmarks.items()
        for label in (name, config.kind.removeprefix("toy-"))
        if name in measured
    }
    return next((asked[label] for label in QUESTIONS[question] if label in asked), None)


def _answer(report: Report, experiment: Experiment, question: str) -> Metric | None:
    """Return the headline accuracy of the first benchmark that asks this question."""
    shown = dict(headline(report))
    name = benchmark_of(question, experiment, shown)
    return report.metric(last_round(experiment), name, shown[name]) if name else None


def _value(metric: Metric | None) -> float | None:
    return _rounded(metric.value, metric.benchmark, metric.metric) if metric else None


def _rounded(value: float | None, benchmark: str, metric: str) -> float | None:
    how = style(benchmark, metric)
    return None if value is None else round(value * how.factor, how.decimals) or 0.0  # never -0.0
