"""Findings about the last round, as data: the sentences are in findings.md."""

from collections.abc import Iterator
from dataclasses import dataclass

from alignslm.config.experiment import Experiment
from alignslm.figures.columns import BASE, CONTINUATION, FINETUNED
from alignslm.report.formatting import TOPIC, headline
from alignslm.report.metrics import JUDGES, Comparison, Metric, Report
from alignslm.report.systems import last_round, previous, topline

LOW_TEMPERATURE = "base-low-temp"


@dataclass(frozen=True)
class Likelihood:
    """Accuracy on the `topic` items of one benchmark: the last round against base, the first round against sft."""

    start: Metric | None
    end: Metric | None
    against_base: Comparison
    against_sft: Comparison | None


@dataclass(frozen=True)
class Findings:
    """Comparisons are of the training judge's score unless named otherwise; None if not measured.

    `explained` has the baselines that reach a part of a significant gain, with that part as a ratio. By judge:
    `toplines`, the topline's metric; `flagged`, the systems that score above its interval; `blind`, topline - base
    if it was tested and the topline is not above base.
    """

    first: str
    last: str
    start: Metric | None
    end: Metric | None
    gain: Comparison | None
    heldout_gain: Comparison | None
    explained: dict[str, tuple[Comparison, float]]
    first_against_sft: Comparison | None
    last_against_sft: Comparison | None
    likelihood: tuple[Likelihood, ...]
    step: Comparison | None
    heldout_step: Comparison | None
    diversity: Comparison | None
    toplines: dict[str, Metric]
    flagged: dict[str, tuple[str, ...]]
    blind: dict[str, Comparison]


def findings_of(report: Report, experiment: Experiment) -> Findings:
    """Return the gain, its explanations by baselines, likelihood, the last step, diversity and toplines."""
    first, last = next(iter(experiment.params.rounds)), last_round(experiment)
    before = previous(experiment)[last]
    gain = _judged(report, last, BASE)
    flagged = {judge: tuple(flag.model for flag in report.flags if flag.metric == judge) for judge in JUDGES}
    return Findings(
        first=first,
        last=last,
        start=report.metric(BASE, CONTINUATION, "judge_score"),
        end=report.metric(last, CONTINUATION, "judge_score"),
        gain=gain,
        heldout_gain=_judged(report, last, BASE, "heldout_judge_score"),
        explained=dict(_explained(report, gain)),
        first_against_sft=_judged(report, first, FINETUNED),
        last_against_sft=_judged(report, last, FINETUNED) if last != first else None,
        likelihood=tuple(_likelihood(report, first, last)),
        step=_judged(report, last, before) if before != BASE else None,
        heldout_step=_judged(report, last, before, "heldout_judge_score"),
        diversity=_judged(report, last, BASE, "unique_ratio"),
        toplines=dict(_toplines(report, topline(experiment))),
        flagged={judge: systems for judge, systems in flagged.items() if systems},
        blind={
            judge: found
            for judge in JUDGES
            if (found := _judged(report, topline(experiment), BASE, judge)) and found.direction in {"ns", "down"}
        },
    )


def _judged(report: Report, model: str, against: str, metric: str = "judge_score") -> Comparison | None:
    return report.comparison(model, against, CONTINUATION, metric)


def _explained(report: Report, gain: Comparison | None) -> Iterator[tuple[str, tuple[Comparison, float]]]:
    if gain is None or gain.delta is None or gain.direction != "up":
        return
    for baseline in (FINETUNED, LOW_TEMPERATURE):
        found = _judged(report, baseline, BASE)
        if found is not None and found.delta is not None:
            yield baseline, (found, found.delta / gain.delta)


def _likelihood(report: Report, first: str, last: str) -> Iterator[Likelihood]:
    for benchmark, metric in headline(report):
        found = report.comparison(last, BASE, benchmark, metric)
        if metric == TOPIC and found is not None:
            start, end = (report.metric(model, benchmark, metric) for model in (BASE, last))
            yield Likelihood(start, end, found, report.comparison(first, FINETUNED, benchmark, metric))


def _toplines(report: Report, name: str) -> Iterator[tuple[str, Metric]]:
    for judge in JUDGES:
        found = report.metric(name, CONTINUATION, judge)
        if found is not None and found.ci95 is not None:
            yield judge, found
