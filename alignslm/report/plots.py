"""Figures as SVG text, and their data as rows. Each figure is one small panel, so that a page can flow them."""

import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from alignslm.config.experiment import Experiment
from alignslm.figures.columns import BASE, CONTINUATION, FINETUNED
from alignslm.report.drawing import CARD, HUES, MUTED, Panel, drawing_style, new_figure, svg_of
from alignslm.report.drift import guarded_steps, held_out_scores
from alignslm.report.findings import LOW_TEMPERATURE
from alignslm.report.formatting import Style, change, difference_unit, headline, style, with_error, with_unit
from alignslm.report.inputs import ReportInputs, TrainingLog
from alignslm.report.metrics import JUDGES, Interval, Report
from alignslm.report.systems import lineage, topline
from alignslm.report.tabulate import models_of

SHAPE_METRICS = (
    *(
        "num_words",
        "duration_s",
        "auto_bleu",
        "unique_ratio",
        "unique_ratio_per_index",
        "distinct_1",
        "distinct_2",
        "eos_rate",
    ),
    *("silence_ratio", "unit_error_rate"),
)
NAME_LETTERS = 16  # of a system's name in one line at an axis
SCORE_EDGES = np.linspace(1, 5, 17)
TRAINING_FIGURES = {
    "reward_accuracy": "eval_rewards/accuracies",
    "reward_margin": "eval_rewards/margins",
    "chosen_logp": "eval_logps/chosen",
    "rejected_logp": "eval_logps/rejected",
    "eval_loss": "eval_loss",
    "train_loss": "loss",
}


def panels(report: Report, inputs: ReportInputs) -> list[Panel]:
    """Draw every figure of the report."""
    with drawing_style():
        return [
            *_answer(report, inputs.experiment),
            *_differences(report),
            *_distributions(inputs),
            *held_out_scores(inputs.judged, inputs.experiment),
            *_curves(inputs.training),
            *guarded_steps(inputs.guards),
            *_shapes(report),
        ]


class Dot(NamedTuple):
    """One row of a panel: the mean and interval of a system; a hollow dot is not significant."""

    system: str
    value: float
    ci95: Interval | None
    solid: bool
    text: str


def _answer(report: Report, experiment: Experiment) -> Iterator[Panel]:
    """Draw the mean scores by both judges of base, rounds, topline and the baselines that a gain is explained by."""
    shown = {*lineage(experiment), topline(experiment), FINETUNED, LOW_TEMPERATURE}
    dots = {judge: [dot for dot in _system_dots(report, judge) if dot.system in shown] for judge in JUDGES}
    if not any(dots.values()):
        return
    names = list(dict.fromkeys(dot.system for some in dots.values() for dot in some))
    how, (figure, axes) = style(CONTINUATION, JUDGES[0]), _rows(names, inches=0.42)
    for judge, hue, shift in zip(JUDGES, (0, 1), (-0.14, 0.14), strict=True):
        for dot in dots[judge]:
            _draw(axes, dot, how.factor, names.index(dot.system) + shift, hue)
        axes.plot([], [], "o-", color=HUES[hue], label=style(CONTINUATION, judge).label)
    axes.set(xlabel="mean score (1 to 5) with 95 % interval", xlim=(1, 5))
    axes.legend(loc="lower center", ncols=2, bbox_to_anchor=(0.5, 1.0))
    alt = "; ".join(
        f"{style(CONTINUATION, judge).label}: {', '.join(f'{dot.system} {dot.text}' for dot in some)}"
        for judge, some in dots.items()
    )
    yield Panel("answer", "answer", "Mean scores", alt, svg_of(figure, "answer"))


def _differences(report: Report) -> Iterator[Panel]:
    for benchmark, metric in headline(report):
        how = style(benchmark, metric)
        dots = [
            Dot(c.model, c.delta, c.ci95, c.significant, change(c))
            for c in report.comparisons
            if (c.against, c.benchmark, c.metric) == (BASE, benchmark, metric) and c.delta is not None
        ]
        name = f"difference-{benchmark}-{metric}".replace("/", "-").replace("_", "-")
        yield from dot_panels(name, "differences", how, dots, xlabel=f"difference to {BASE}{difference_unit(how)}")


def _shapes(report: Report) -> Iterator[Panel]:
    for metric in SHAPE_METRICS:
        how = style(CONTINUATION, metric)
        dots = _system_dots(report, metric)
        yield from dot_panels(f"models-{metric.replace('_', '-')}", "shapes", how, dots, xlabel=with_unit(how))


def _system_dots(report: Report, metric: str) -> list[Dot]:
    found = [report.metric(model, CONTINUATION, metric) for model in models_of(report)]
    return [Dot(m.model, m.value, m.ci95, True, with_error(m)) for m in found if m and m.value is not None]


def dot_panels(name: str, section: str, how: Style, dots: Sequence[Dot], *, xlabel: str) -> Iterator[Panel]:
    """Draw one dot and interval per system, the first on top; nothing without any."""
    if not dots:
        return
    figure, axes = _rows([dot.system for dot in dots], inches=0.26)
    if section == "differences":
        axes.axvline(0, color=MUTED, linewidth=1)
    for place, dot in enumerate(dots):
        _draw(axes, dot, how.factor, place, 0)
    if how.unit == "%" and section != "differences":
        left, right = axes.get_xlim()
        axes.set_xlim(max(left, 0), min(right, 100))  # values beyond are impossible
    axes.set_xlabel(xlabel)
    alt = "; ".join(f"{dot.system} {dot.text}" for dot in dots)
    yield Panel(name, section, how.label, alt, svg_of(figure, name))


def _rows(names: Sequence[str], *, inches: float) -> tuple[Figure, Axes]:
    """Return a panel with a row per name, the first on top; long names take more lines."""
    labels = [textwrap.fill(name, NAME_LETTERS) for name in names]
    lines = max(label.count("\n") for label in labels)
    figure, axes = new_figure(height_inches=1.0 + (inches + 0.16 * lines) * len(labels))
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    return figure, axes


def _draw(axes: Axes, dot: Dot, factor: float, place: float, hue: int) -> None:
    """Draw one dot and its interval at height `place`."""
    if dot.ci95 is not None:
        ends = [end * factor for end in dot.ci95]
        axes.plot(ends, [place, place], color=HUES[hue], linewidth=1.8, solid_capstyle="round")
    fill = HUES[hue] if dot.solid else CARD
    axes.plot(dot.value * factor, place, "o", color=HUES[hue], markerfacecolor=fill, markersize=5.5, clip_on=False)


def _distributions(inputs: ReportInputs) -> Iterator[Panel]:
    for name, item in inputs.rounds.items():
        counts, start = score_counts(item.scores), inputs.experiment.params.rounds[name].init_from
        figure, axes = new_figure()
        axes.bar(SCORE_EDGES[:-1], counts, width=0.23, align="edge", color=HUES[0])
        limits = ((item.counts.max_rejected_score, 1, "rejected ≤"), (item.counts.min_chosen_score, 2, "chosen ≥"))
        for limit, hue, label in limits:
            if limit is not None:  # the selector has thresholds
                axes.axvline(limit, color=HUES[hue], linewidth=1.6, linestyle="--", label=f"{label} {limit:.3g}")
        axes.set(xlabel="judge's score", ylabel="continuations", xlim=(1, 5))
        if axes.get_legend_handles_labels()[1]:
            axes.legend(loc="upper center", ncols=2, bbox_to_anchor=(0.5, 1.2))
        mean = item.scores["judge_score"].mean()
        shown = f"mean {mean:.2f}" if isinstance(mean, float) else "none scored"
        alt = f"{sum(counts)} of {item.scores.height} continuations scored, {shown}"
        yield Panel(
            f"scores-{name}",
            "scores",
            f"{name}: continuations by {start}",
            alt,
            svg_of(figure, f"scores-{name}"),
        )


def score_counts(scores: pl.DataFrame) -> list[int]:
    """Count SCORES rows by judge_score in steps of 0.25 from 1 to 5; rows without a score are left out."""
    counts, _ = np.histogram(scores["judge_score"].drop_nulls().to_numpy(), SCORE_EDGES)
    return [int(count) for count in counts]


def training_table(training: Mapping[str, TrainingLog]) -> pl.DataFrame:
    """Return checkpoint, step and the logged metrics, null if a step did not log one."""
    rows = [
        {
            "checkpoint": name,
            "step": row.step,
            **{column: row.figures.get(logged) for column, logged in TRAINING_FIGURES.items()},
        }
        for name, log in training.items()
        for row in log.log
        if any(logged in row.figures for logged in TRAINING_FIGURES.values())
    ]
    schema = {"checkpoint": pl.String, "step": pl.Int64, **dict.fromkeys(TRAINING_FIGURES, pl.Float64)}
    return pl.DataFrame(rows, schema=schema)


class _Curve(NamedTuple):
    column: str
    dashes: str
    suffix: str


CURVES = (
    ("reward-accuracy", "reward accuracy, validation pairs", (_Curve("reward_accuracy", "-", ""),)),
    ("reward-margin", "reward margin, validation pairs", (_Curve("reward_margin", "-", ""),)),
    ("log-probabilities", "log-probability (nats), validation", (
        _Curve("chosen_logp", "-", " chosen"), _Curve("rejected_logp", "--", " rejected"),
    )),
    ("loss", "training loss", (_Curve("train_loss", "-", ""),)),
)  # fmt: skip


def _curves(training: Mapping[str, TrainingLog]) -> Iterator[Panel]:
    table = training_table({name: log for name, log in training.items() if name != BASE})
    names = table["checkpoint"].unique(maintain_order=True).to_list()
    for file, title, curves in CURVES:
        legend_rows = math.ceil(len(names) * len(curves) / 2)
        figure, axes = new_figure(height_inches=2.7 + 0.18 * max(0, legend_rows - 4))
        drawn = [_curve(axes, table, name, names.index(name), curve) for curve in curves for name in names]
        if not any(drawn):
            continue
        axes.set_xlabel("optimiser step")
        axes.legend(loc="lower center", ncols=2, bbox_to_anchor=(0.5, 1.0))
        yield Panel(f"training-{file}", "training", title, "; ".join(filter(None, drawn)), svg_of(figure, file))


def _curve(axes: Axes, table: pl.DataFrame, name: str, hue: int, curve: _Curve) -> str:
    """Draw one line and return its description; an empty one if it was not logged."""
    rows = table.filter(checkpoint=name).select("step", curve.column).drop_nulls().sort("step")
    if rows.is_empty():
        return ""
    label, values = f"{name}{curve.suffix}", rows[curve.column].to_numpy()
    axes.plot(rows["step"].to_numpy(), values, curve.dashes, marker=".", color=HUES[hue % len(HUES)], label=label)
    return f"{label} from {values[0]:.2f} to {values[-1]:.2f}"
