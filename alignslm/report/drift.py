"""How scores change: their distribution from round to round, and both judges' means over the steps of a guarded run."""

from collections.abc import Iterator, Mapping

import numpy as np
import polars as pl

from alignslm.config.experiment import Experiment
from alignslm.figures.columns import BASE
from alignslm.report.drawing import CARD, HUES, MUTED, Panel, new_figure, svg_of
from alignslm.report.inputs import GuardLog
from alignslm.report.metrics import JUDGES
from alignslm.report.systems import lineage

LINES = ("-", "--", ":", "-.")


def held_out_scores(judged: pl.DataFrame, experiment: Experiment) -> Iterator[Panel]:
    """Draw the cumulative distribution of scores of held-out continuations for every checkpoint of the lineage."""
    name, figure, axes, medians = "scores-held-out", *new_figure(), list[str]()
    for place, model in enumerate(lineage(experiment)):
        scores = np.sort(judged.filter(model=model, metric="judge_score")["value"].drop_nulls().to_numpy())
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


def guarded_steps(guards: Mapping[str, GuardLog]) -> Iterator[Panel]:
    """Draw both judges' mean scores over the KL to the start; steps outside a limit are hollow, the kept one marked."""
    for name, guard in guards.items():
        (figure, axes), said = new_figure(height_inches=2.7), list[str]()
        for judge, label, hue in zip(JUDGES, ("training judge", "held-out judge"), (0, 1), strict=True):
            points = [(row["kl"], row[judge], row) for row in guard.steps if row[judge] is not None]
            axes.plot([kl for kl, _, _ in points], [score for _, score, _ in points], "-", color=HUES[hue], label=label)
            for kl, score, row in points:
                axes.plot(kl, score, "o", color=HUES[hue], markerfacecolor=CARD if row["exceeded"] else HUES[hue])
            said.append(f"{label} " + ", ".join(f"{score:.2f} (step {row['step']})" for _, score, row in points))
        kept = next(row["kl"] for row in guard.steps if row["kept"])
        axes.axvline(kept, color=MUTED, linewidth=1.2, linestyle="--", label=f"kept: step {guard.kept}")
        axes.set(xlabel="KL to the start (nats per continuation)", ylabel="mean score")
        axes.legend(loc="lower center", ncols=2, bbox_to_anchor=(0.5, 1.0))
        alt = "; ".join([*said, guard.outcome])
        yield Panel(
            f"guard-{name}", "guards", f"{name}: steps of {guard.steps_of}", alt, svg_of(figure, f"guard-{name}")
        )
