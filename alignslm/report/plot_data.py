"""The rows behind `dvc plots show`: one file per plot (reports/plots/*.json), one row per measured point.

The templates of .dvc/plots draw one line per value of `series`. What was not measured has no row.
"""

from collections.abc import Iterator

import numpy as np
import polars as pl

from alignslm.figures.columns import BASE, CONTINUATION
from alignslm.report.formatting import STYLES
from alignslm.report.inputs import ReportInputs
from alignslm.report.metrics import JUDGES, Report
from alignslm.report.plots import SCORE_EDGES, training_table
from alignslm.report.systems import evaluated

CURVES = {
    "train_loss": (("train_loss", ""),),
    "eval_loss": (("eval_loss", ""),),
    "reward_accuracy": (("reward_accuracy", ""),),
    "reward_margin": (("reward_margin", ""),),
    "logps": (("chosen_logp", " chosen"), ("rejected_logp", " rejected")),
}


def plot_data(report: Report, inputs: ReportInputs) -> dict[str, str]:
    """Return JSON text by file name. A plot without a point has no file, because DVC cannot draw an empty one."""
    tables = [*_curves(training_table(inputs.training)), *_scores(inputs), ("gains", _gains(report, inputs))]
    return {f"{name}.json": table.write_json() + "\n" for name, table in tables if not table.is_empty()}


def _curves(training: pl.DataFrame) -> Iterator[tuple[str, pl.DataFrame]]:
    """Yield (series, step, value) for what was logged; `logps` has two lines per checkpoint."""
    for name, columns in CURVES.items():
        parts = [
            training.select(pl.col("checkpoint").add(suffix).alias("series"), "step", pl.col(column).alias(name))
            for column, suffix in columns
        ]
        yield name, pl.concat(parts).filter(pl.col(name).is_finite())


def _scores(inputs: ReportInputs) -> Iterator[tuple[str, pl.DataFrame]]:
    """Yield (series, score, percent): how many % of a system's scored continuations have at most this score."""
    for judge in JUDGES:
        rows = [
            (system, float(edge), 100 * float(np.mean(scores <= edge)))
            for system in evaluated(inputs.experiment)
            if len(scores := _scores_of(inputs.judged, system, judge))
            for edge in SCORE_EDGES
        ]
        schema = {"series": pl.String, "score": pl.Float64, "percent": pl.Float64}
        yield f"{judge}s", pl.DataFrame(rows, schema=schema, orient="row")


def _scores_of(judged: pl.DataFrame, system: str, judge: str) -> np.ndarray:
    return judged.filter(model=system, metric=judge)["value"].drop_nulls().to_numpy()


def _gains(report: Report, inputs: ReportInputs) -> pl.DataFrame:
    """Return (series, system, gain, low, high): differences to base with the ends of their 95 % intervals."""
    rows = [
        {
            "series": STYLES[judge].label,
            "system": system,
            "gain": found.delta,
            "low": found.ci95[0],
            "high": found.ci95[1],
        }
        for judge in JUDGES
        for system in evaluated(inputs.experiment)
        if (found := report.comparison(system, BASE, CONTINUATION, judge)) and found.delta is not None and found.ci95
    ]
    return pl.DataFrame(rows)
