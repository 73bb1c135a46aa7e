"""Two systems over several training runs: one difference with its uncertainty over items, runs, and both."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from alignslm.config.model import Config
from alignslm.figures.columns import MetricColumn, ReportError
from alignslm.listening.clustered import mean as mean_two_ways
from alignslm.report.evaluated import Key, Paired, pair, read_columns, shared_keys
from alignslm.statistics import MIN_CLUSTERS, MIN_RUNS, Estimate, Floats, Interval, mean_over_runs, paired_difference

FAULTS_SHOWN = 8
NOT_COMBINED = "missing_ratio"  # only reported if something is missing


class CombinedRow(Config):
    """Mean difference of one metric on the `n` prompts or item pairs that both systems have in every run.

    `by_run` are the runs' own differences on these items, and `delta` is their mean.

    * `items_ci95`: other items, these runs: the interval of `compare`, of each item's mean over runs.
    * `runs_ci95`: other runs, these items. Student's t over `by_run`, one degree of freedom less than runs.
    * `both_ci95`: other runs and other items. Variances clustered both ways, Student's t as before; `both_p` is its p.

    None below MIN_CLUSTERS items or MIN_RUNS runs, and without spread.
    """

    benchmark: str
    metric: str
    by_run: tuple[float | None, ...]
    delta: float | None
    items_ci95: Interval | None
    runs_ci95: Interval | None
    both_ci95: Interval | None
    both_p: float | None
    n: int
    n_missing: int


class SeedComparison(Config):
    """Every difference `model` - `against` over several runs."""

    model: str
    against: str
    runs: tuple[str, ...]
    rows: tuple[CombinedRow, ...]

    def to_json(self) -> str:
        """Return indented JSON text that ends in a newline."""
        return self.model_dump_json(indent=2) + "\n"


def compare_seeds(folders: Sequence[Path], model: str, against: str) -> SeedComparison:
    """Compare two systems over the evaluations in `folders`, one per training run, in every common metric.

    A folder, or its subfolder `artifacts`, contains eval/MODEL/judged.parquet and item_scores.parquet. Differences are
    between means per prompt or item pair. Raises ReportError for fewer than two runs, for a run given twice, and if
    runs were not evaluated on the same items, with a list of the differences.
    """
    runs = name_runs(folders)
    refuse_copies(runs, model)
    rows = combine(
        {name: pair_all(read_columns(folder, model), read_columns(folder, against)) for name, folder in runs.items()}
    )
    return SeedComparison(model=model, against=against, runs=tuple(runs), rows=rows)


def combine(runs: Mapping[str, Mapping[Key, Paired]]) -> tuple[CombinedRow, ...]:
    """Return every difference over several runs, by the runs' names. Raises ReportError as `compare_seeds` does."""
    if faults := [*_faults(runs)]:
        raise ReportError(_format_comparison(faults))
    return tuple(_combine(key, [pairs[key] for pairs in runs.values()]) for key in next(iter(runs.values())))


def name_runs(folders: Sequence[Path]) -> dict[str, Path]:
    """Return artifacts folders by the last part of their paths that is unique."""
    found = [folder if (folder / "eval").is_dir() else folder / "artifacts" for folder in folders]
    for given, folder in zip(folders, found, strict=True):
        if not (folder / "eval").is_dir():
            raise ReportError(
                f"{given} contains neither eval/ nor artifacts/eval/. Pass the artifacts folder of a run."
            )
    paths = [folder.resolve() for folder in found]
    if len(set(paths)) < max(2, len(paths)):
        raise ReportError(
            f"{len(paths)} folders given, {len(set(paths))} different. Pass the artifacts of at least two runs, "
            "each once."
        )
    columns = zip(*(reversed(path.parts) for path in paths), strict=False)
    names = next((names for names in columns if len(set(names)) == len(paths)), tuple(map(str, paths)))
    return dict(zip(names, found, strict=True))


def refuse_copies(runs: Mapping[str, Path], model: str) -> None:
    """Raise ReportError for one run under two names: it would look like two runs that agree in everything."""
    seen: dict[tuple[bytes, ...], str] = {}
    for name, folder in runs.items():
        files = [folder / "eval" / model / file for file in ("judged.parquet", "item_scores.parquet")]
        content = tuple(file.read_bytes() for file in files if file.exists())
        if content and content in seen:
            raise ReportError(
                f"the evaluations of {model!r} in {seen[content]} and {name} are identical: one run, not two. "
                "Train with another seed, such as `dvc exp run -S seeds.training=1`."
            )
        seen[content] = name


def pair_all(left: Mapping[Key, MetricColumn], right: Mapping[Key, MetricColumn]) -> dict[Key, Paired]:
    """Return two systems of one run in every metric that is combined over runs."""
    return {key: pair(left[key], right[key]) for key in shared_keys(left, right) if key[1] != NOT_COMBINED}


def _faults(runs: Mapping[str, Mapping[Key, Paired]]) -> Iterator[str]:
    """Yield every metric that some runs lack, or have for other items than the first."""
    first, *others = runs
    for key in dict.fromkeys(key for pairs in runs.values() for key in pairs):
        if absent := [name for name, pairs in runs.items() if key not in pairs]:
            yield f"{' '.join(key)} is not in {', '.join(absent)}"
            continue
        expected = set(runs[first][key].ids.tolist())
        for name in others:
            found = set(runs[name][key].ids.tolist())
            if odd := expected ^ found:
                yield f"{' '.join(key)} has {len(odd)} items in only one of {first} and {name}, such as {min(odd)}"


def _format_comparison(faults: Sequence[str]) -> str:
    hidden = len(faults) - FAULTS_SHOWN
    listed = "".join(f"\n  {fault}" for fault in faults[:FAULTS_SHOWN])
    return (
        f"the runs were not evaluated on the same items, so their differences cannot be combined:{listed}"
        + (f"\n  and {hidden} more" if hidden > 0 else "")
        + "\nVary only seeds; keep corpus, encoder, prompts and benchmarks."
    )


def _combine(key: Key, runs: Sequence[Paired]) -> CombinedRow:
    differences = np.stack([run.left - run.right for run in runs])  # (runs, items)
    measured = ~np.isnan(differences).any(axis=0)
    kept, n = differences[:, measured], int(measured.sum())
    left, right = (np.stack([run[side] for run in runs])[:, measured].mean(axis=0) for side in (1, 2))
    items = paired_difference(left, right, runs[0].ids[measured], scale=runs[0].scale)
    means = kept.mean(axis=1) if n else np.full(len(kept), np.nan)
    over_runs, both = mean_over_runs(means), _both(kept)
    return CombinedRow(
        benchmark=key[0],
        metric=key[1],
        by_run=tuple(float(mean) if n else None for mean in means),
        delta=over_runs.value,
        items_ci95=items.ci95,
        runs_ci95=over_runs.ci95,
        both_ci95=both.ci95,
        both_p=both.p,
        n=n,
        n_missing=differences.shape[1] - n,
    )


def _both(differences: Floats) -> Estimate:
    num_runs, num_items = differences.shape
    if num_items < MIN_CLUSTERS or num_runs < MIN_RUNS:
        return Estimate(None, None, None, num_items, 0)
    run, item = np.repeat(np.arange(num_runs), num_items), np.tile(np.arange(num_items), num_runs)
    return mean_two_ways(differences.ravel(), run, item, fewest=MIN_RUNS)
