"""Every system of an experiment against one of them, over several training runs: which way of alignment is worth it?"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from alignslm import tables
from alignslm.artifacts import Artifacts
from alignslm.config.experiment import BASE, Params
from alignslm.config.loading import load_experiment
from alignslm.config.model import Config
from alignslm.figures.columns import ACCURACY, CONTINUATION, SPEECH, WORD_ERROR, MetricColumn, ReportError
from alignslm.report.evaluated import Key, read_columns
from alignslm.report.formatting import benchmark_headlines, speech_headline
from alignslm.report.metrics import SIGNIFICANT
from alignslm.report.seeds import CombinedRow, combine, name_runs, pair_all, refuse_copies
from alignslm.statistics import group_means, holm

TESTED: Key = (CONTINUATION, "heldout_judge_score")  # the training judge is what training made use of
Columns = Mapping[str, Mapping[Key, MetricColumn]]  # of one system, by run
SCORES: tuple[Key, ...] = (
    (CONTINUATION, "judge_score"),
    TESTED,
    (CONTINUATION, "grammatical"),  # of the embedded corpus alone: by rules, not by a model
    (CONTINUATION, "unique_ratio"),
)


class WayDifference(CombinedRow):
    """A difference to the common system; `p_corrected` is Holm's for all that were tested with it.

    The figures that are shown are one family over all systems, the parts of benchmarks another.
    """

    p_corrected: float | None

    @property
    def significant(self) -> bool:
        """Whether the corrected p is below 0.05; False if nothing was tested."""
        return self.p_corrected is not None and self.p_corrected < SIGNIFICANT


class Way(Config):
    """One system: its means over all runs by (benchmark, metric), and its differences to the common system.

    `judge_calls` are the scores that its training took, rounds and rollouts before it included (not what a guard
    measured, nor imported pairs), the mean of the runs; None for the ground truth, which also has no differences.
    """

    system: str
    judge_calls: float | None
    means: dict[Key, float]
    differences: dict[Key, WayDifference]


class WaysComparison(Config):
    """All systems by their judge calls, the ground truth last; of the same number, in the order of the report."""

    against: str
    runs: tuple[str, ...]
    ways: tuple[Way, ...]

    def to_json(self) -> str:
        """Return indented JSON text that ends in a newline."""
        return self.model_dump_json(indent=2) + "\n"

    @property
    def keys(self) -> list[Key]:
        """Every metric that some system has, in the order of the report."""
        return list(dict.fromkeys(key for way in self.ways for key in way.means))


def compare_ways(folders: Sequence[Path], against: str) -> WaysComparison:
    """Compare every evaluated system with `against` over experiments that differ only in their seeds.

    A folder contains params.yaml and artifacts/. Metrics are both judges, unique texts, all benchmarks with their
    parts, and predicted MOS. Raises ReportError if the experiments evaluate different systems, and as `compare_seeds`
    does.
    """
    runs = name_runs(folders)
    params = {name: load_experiment(folder.parent).params for name, folder in runs.items()}
    names = _common_systems(params, against)
    first = next(iter(params.values()))
    columns = {name: {run: read_columns(folder, name) for run, folder in runs.items()} for name in names}
    means = {name: [_means(one) for one in columns[name].values()] for name in names}
    compared = [name for name in names if name != against and name not in first.toplines]
    found = {name: _rows(runs, name, columns[name], columns[against]) for name in compared}
    corrected: dict[tuple[str, Key], float | None] = {}
    headline = {*SCORES, *not_of_texts({key for rows in found.values() for key in rows})}
    for of_headline in (True, False):
        places = [(name, key) for name in compared for key in found[name] if (key in headline) is of_headline]
        corrected |= zip(places, holm([found[name][key].both_p for name, key in places]), strict=True)
    calls = {
        name: None
        if name in first.toplines
        else float(np.mean([judge_calls(Artifacts(runs[run]), made, name) for run, made in params.items()]))
        for name in names
    }
    ways = tuple(
        Way(
            system=name,
            judge_calls=calls[name],
            means={
                key: float(np.mean([run[key] for run in means[name]]))
                for key in means[name][0]
                if all(key in run for run in means[name])
            },
            differences={
                key: WayDifference(**row.model_dump(), p_corrected=corrected[name, key])
                for key, row in found.get(name, {}).items()
            },
        )
        for name in sorted(names, key=lambda name: (calls[name] is None, calls[name] or 0))
    )
    return WaysComparison(against=against, runs=tuple(runs), ways=ways)


def _rows(runs: Mapping[str, Path], name: str, mine: Columns, theirs: Columns) -> dict[Key, CombinedRow]:
    """Return what is shown of a system's differences over all runs."""
    refuse_copies(runs, name)
    rows = combine({run: pair_all(mine[run], theirs[run]) for run in runs})
    return {(row.benchmark, row.metric): row for row in rows if _is_shown((row.benchmark, row.metric))}


def not_of_texts(keys: Collection[Key]) -> list[Key]:
    """Return the figures among `keys` that stand for each benchmark and for the sound."""
    return [*benchmark_headlines(keys), *speech_headline(keys)]


def judge_calls(made: Artifacts, params: Params, system: str) -> int:
    """Count the judge's scores without which a system would not exist: a row of `scores` each, every table once.

    A best-of-N by the judge asks again for every continuation that it gives: those of the evaluation are counted.
    """
    needed: set[Path] = set()
    item = params.systems[system]
    if item.reward_model is not None:
        _of_reward_model(item.reward_model, made, params, needed)
    elif item.judged_best is not None:
        needed.add(made.best_of(item.judged_best, "scores"))
        _of_checkpoint(params.best_of[item.judged_best].sampled_from, made, params, needed)
    elif item.checkpoint is not None:
        _of_checkpoint(item.checkpoint, made, params, needed)
    return sum(pl.scan_parquet(path).select(pl.len()).collect().item() for path in sorted(needed))


def _of_checkpoint(name: str, made: Artifacts, params: Params, needed: set[Path]) -> None:
    """Add the tables of scores that a checkpoint rests on."""
    if name == BASE:
        return
    if name in params.guards:
        _of_checkpoint(params.guards[name].steps_of, made, params, needed)
        return
    item = params.checkpoints[name]
    _of_checkpoint(item.init_from, made, params, needed)
    if item.pairs in params.preferences:
        _of_preferences(item.pairs, made, params, needed)
    if item.scores is not None:  # the prompts are taken from there, the scores are its own
        needed.add(made.rollouts(name) / f"{tables.SCORES.name}.parquet")
    if item.rewards is not None:
        _of_reward_model(item.rewards, made, params, needed)


def _of_preferences(name: str, made: Artifacts, params: Params, needed: set[Path]) -> None:
    needed.add(made.table("scores", name))
    _of_checkpoint(params.preferences[name].sampled_from, made, params, needed)


def _of_reward_model(name: str, made: Artifacts, params: Params, needed: set[Path]) -> None:
    item = params.reward_models[name]
    _of_checkpoint(item.init_from, made, params, needed)
    _of_preferences(item.preferences, made, params, needed)


def _common_systems(params: Mapping[str, Params], against: str) -> list[str]:
    """Return the systems of all runs in the order of the first's report. Raises ReportError where they differ."""
    (first, known), *others = params.items()
    for name, other in others:
        if odd := {*known.systems} ^ {*other.systems}:
            raise ReportError(f"{first} and {name} evaluate different systems: only one of them has {min(odd)!r}")
    if against not in known.systems or against in known.toplines:
        raise ReportError(f"{against!r} is no system to compare with; there are {', '.join(known.ordered_systems)}")
    return known.ordered_systems


def _is_shown(key: Key) -> bool:
    benchmark, metric = key
    if benchmark == CONTINUATION:
        return key in SCORES
    return metric != WORD_ERROR if benchmark == SPEECH else metric.startswith(ACCURACY) and "@" not in metric


def _means(columns: Mapping[Key, MetricColumn]) -> dict[Key, float]:
    """Return the mean over prompts, clips or item pairs of every metric that is shown."""
    return {
        key: float(np.nanmean(group_means(column.values, column.clusters)[1]))
        for key, column in columns.items()
        if _is_shown(key)
    }
