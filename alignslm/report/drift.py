"""What changes from round to round besides the score: length, repetition, diversity, the distribution of scores."""

from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl

from alignslm.config.experiment import Experiment
from alignslm.report.columns import BASE, CONTINUATION
from alignslm.report.drawing import HUES, MUTED, Panel, new_figure, svg_of, within_percent
from alignslm.report.formatting import style, with_error, with_unit
from alignslm.report.metrics import Metric, Report
from alignslm.report.systems import lineage, topline

DRIFTS = ("judge", "heldout_judge", "num_words", "duration_s", "auto_bleu", "distinct", "distinct_per_draw", "finished")
DRAWN = ("num_words", "duration_s", "auto_bleu", "distinct_per_draw")
LINES = ("-", "--", ":", "-.")


def drift_table(report: Report, experiment: Experiment) -> pl.DataFrame:
    """Return one row per checkpoint of the lineage: round (0 is the base model), model, means over continuations."""
    rows = [
        {"round": place, "model": model, **{name: _value(report, model, name) for name in DRIFTS}}
        for place, model in enumerate(lineage(experiment))
    ]
    return pl.DataFrame(rows, schema={"round": pl.Int64, "model": pl.String, **dict.fromkeys(DRIFTS, pl.Float64)})


def _value(report: Report, model: str, name: str) -> float | None:
    found = report.metric(model, CONTINUATION, name)
    return None if found is None else found.value


def drift_panels(report: Report, experiment: Experiment) -> Iterator[Panel]:
    """Draw length, repetition and diversity from the base model to the last round, with the topline."""
    for metric in DRAWN:
        found = [report.metric(model, CONTINUATION, metric) for model in lineage(experiment)]
        measured = [m for m in found if m is not None and m.value is not None]
        if measured:
            yield _drift(metric, measured, report.metric(topline(experiment), CONTINUATION, metric))


def _drift(metric: str, rounds: Sequence[Metric], truth: Metric | None) -> Panel:
    how, name = style(CONTINUATION, metric), f"drift-{metric.replace('_', '-')}"
    figure, axes = new_figure()
    axes.plot(
        range(len(rounds)),
        [(m.value or 0) * how.factor for m in rounds],
        "o-",
        color=HUES[0],
        markersize=5,
        clip_on=False,
    )
    for place, m in enumerate(rounds):
        if m.ci95 is not None:
            axes.plot([place, place], [end * how.factor for end in m.ci95], color=HUES[0], solid_capstyle="round")
    if truth is not None and truth.value is not None:
        axes.axhline(truth.value * how.factor, color=MUTED, linestyle="--", linewidth=1.2, label=truth.model)
        axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0))
    axes.set_xticks(range(len(rounds)), [m.model for m in rounds])
    axes.set_xlim(-0.4, len(rounds) - 0.6)
    axes.set_ylabel(with_unit(how))
    if how.unit == "%":
        axes.set_ylim(within_percent(axes.get_ylim()))
    alt = "; ".join(f"{m.model} {with_error(m)}" for m in (*rounds, truth) if m is not None)
    return Panel(name, "drift", how.label, alt, svg_of(figure, name))


def held_out_scores(judged: pl.DataFrame, experiment: Experiment) -> Iterator[Panel]:
    """Draw the cumulative distribution of scores of held-out continuations for every checkpoint of the lineage."""
    name, figure, axes, medians = "scores-held-out", *new_figure(), list[str]()
    for place, model in enumerate(lineage(experiment)):
        scores = np.sort(judged.filter(model=model, metric="judge")["value"].drop_nulls().to_numpy())
        if len(scores):
            shares = np.arange(1, len(scores) + 1) / len(scores)
            hue, dashes = HUES[place % len(HUES)], LINES[place % len(LINES)]
            axes.step([1, *scores, 5], [0, *100 * shares, 100], dashes, where="post", color=hue, label=model)
            medians.append(f"{model}: half score at most {np.median(scores):.2f}")
    if medians:
        axes.set(xlabel="judge's score", ylabel="% at or below", xlim=(1, 5), ylim=(0, 100))
        axes.legend(loc="lower center", ncols=3, bbox_to_anchor=(0.5, 1.0))
        yield Panel(
            name,
            "scores",
            f"{experiment.params.evaluation.split} prompts: {BASE} and rounds",
            "; ".join(medians),
            svg_of(figure, name),
        )
