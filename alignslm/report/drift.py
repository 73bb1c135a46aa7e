"""How the distribution of scores changes from round to round."""

from collections.abc import Iterator

import numpy as np
import polars as pl

from alignslm.config.experiment import Experiment
from alignslm.figures.columns import BASE
from alignslm.report.drawing import HUES, Panel, new_figure, svg_of
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
