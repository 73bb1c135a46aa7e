"""Every reported number: metrics of systems, paired comparisons, and systems that are over-optimized for a judge."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Literal

import numpy as np
from pydantic import ConfigDict, Field

from alignslm.config.model import Config
from alignslm.figures.columns import BASE, FINETUNED, EvalTables, MetricColumn, columns_of
from alignslm.report.evaluated import Difference, Key, differences
from alignslm.statistics import Interval, mean_interval

SIGNIFICANT = 0.05

JUDGES = ("judge_score", "heldout_judge_score")
FLAG_REASON = "over-optimized for its judge: scores above the ground truth"


class Metric(Config):
    """One mean of one system; for `stderr` or `ci95` of None see `statistics.Estimate`."""

    model: str
    benchmark: str
    metric: str
    value: float | None
    stderr: float | None
    ci95: Interval | None
    n: int
    n_missing: int
    higher_is_better: bool | None


class Comparison(Config):
    """Mean paired difference `model` - `against` over the `n` prompts (or item pairs) measured in both.

    `n_missing` more are missing in at least one of them. `p_corrected` is p corrected by Holm for the other metrics of
    the two systems, or for the other parts of benchmarks.
    """

    model: str
    against: str
    benchmark: str
    metric: str
    delta: float | None
    stderr: float | None
    ci95: Interval | None
    p: float | None
    p_corrected: float | None
    n: int
    n_missing: int

    @property
    def significant(self) -> bool:
        """Whether the corrected p is below 0.05; False if nothing was tested."""
        return self.p_corrected is not None and self.p_corrected < SIGNIFICANT

    @property
    def direction(self) -> Literal["up", "down", "ns", "untested"]:
        """The sign of a significant difference; `ns` if it is not significant, `untested` with too few to test."""
        if not self.significant or self.delta is None:
            return "untested" if self.p_corrected is None else "ns"
        return "up" if self.delta > 0 else "down"


class Flag(Config):
    """A system with a judge score above the topline's interval."""

    model: str
    metric: str
    value: float
    topline_ci95: Interval
    reason: str = FLAG_REASON


class Report(Config):
    """The content of reports/metrics.json."""

    model_config = ConfigDict(populate_by_name=True)

    schema_version: Annotated[Literal[2], Field(alias="schema")] = 2
    metrics: tuple[Metric, ...]
    comparisons: tuple[Comparison, ...]
    flags: tuple[Flag, ...]

    def metric(self, model: str, benchmark: str, metric: str) -> Metric | None:
        """Return one metric of one system, None if it was not reported."""
        wanted = (model, benchmark, metric)
        return next((m for m in self.metrics if (m.model, m.benchmark, m.metric) == wanted), None)

    def comparison(self, model: str, against: str, benchmark: str, metric: str) -> Comparison | None:
        """Return one paired difference, None if it was not reported."""
        wanted = (model, against, benchmark, metric)
        return next((c for c in self.comparisons if (c.model, c.against, c.benchmark, c.metric) == wanted), None)

    def to_json(self) -> str:
        """Return the report as indented JSON text that ends in a newline."""
        return self.model_dump_json(by_alias=True, indent=2) + "\n"


def summarise(
    measured: EvalTables,
    *,
    models: Iterable[str],
    rounds: Mapping[str, str],
    topline: str,
) -> Report:
    """Summarize the evaluation of all `models`, in their order.

    * Judged metrics cluster by prompt, likelihood benchmarks by item pair. `ppl` is the geometric mean, exp of
      the mean log perplexity; `log_ppl` is that mean, in nats, and the one that is compared.
    * `unique_ratio` is the ratio of unique transcripts among all of a model's, `unique_ratio_per_index` the same
      within one continuation per prompt, averaged over draws. The first falls with the number of continuations, so
      it is only compared between models with equally many. Both are means of 1 / (copies of this text);
      their errors treat the copies as fixed.
    * `distinct_1` and `distinct_2` (of words and word pairs) and `word_error_rate` are of all texts together, with
      jackknife errors over prompts; their `n` counts prompts.
    * A continuation that lacks one of the metrics counts as missing there.
    * MOS and WORD_ERRORS rows give the benchmark `speech`; original recordings follow the models and are not compared.
    * `rounds` maps a round to the checkpoint it was trained from. Every model is compared with base, every round
      also with sft and with that checkpoint.

    Raises ReportError for infinite values and for perplexities below 0.
    """
    order = list(models)
    speech = (measured.mos, measured.word_errors)
    rated = {name for frame in speech if frame is not None for name in frame["system"].unique()}
    columns = {model: columns_of(measured, model) for model in [*order, *sorted(rated - set(order))]}
    metrics = [metric for model in columns for column in columns[model].values() for metric in _metrics(model, column)]
    comparisons = [
        Comparison.model_validate(comparison_fields(model, against, key, found))
        for model, against in compared(order, rounds)
        for key, found in differences(columns[model], columns[against]).items()
    ]
    return Report(metrics=tuple(metrics), comparisons=tuple(comparisons), flags=tuple(_flags(metrics, topline)))


def compared(models: Iterable[str], rounds: Mapping[str, str]) -> list[tuple[str, str]]:
    """List the (model, against) pairs of the report, each once, among the models that exist."""
    order = list(models)
    wanted = [(model, BASE) for model in order]
    wanted += [(name, against) for name, prev in rounds.items() for against in (FINETUNED, prev)]
    known = [(a, b) for a, b in wanted if a != b and {a, b} <= set(order)]
    return list(dict.fromkeys(known))


def _metrics(model: str, column: MetricColumn) -> Iterator[Metric]:
    found = mean_interval(column.values, column.clusters, scale=column.scale)
    metric = Metric(
        model=model,
        benchmark=column.benchmark,
        metric=column.metric,
        value=found.value,
        stderr=found.stderr,
        ci95=found.ci95,
        n=found.n,
        n_missing=found.n_missing,
        higher_is_better=column.higher_is_better,
    )
    if column.metric == "log_ppl":
        yield _geometric(metric)
    yield metric


def _geometric(log: Metric) -> Metric:
    """Turn the mean of log perplexities into their geometric mean; the error follows by the delta method."""
    value = None if log.value is None else float(np.exp(log.value))
    stderr = None if log.stderr is None or value is None else value * log.stderr
    ends = None if log.ci95 is None else (float(np.exp(log.ci95[0])), float(np.exp(log.ci95[1])))
    return log.model_copy(update={"metric": "ppl", "value": value, "stderr": stderr, "ci95": ends})


def comparison_fields(model: str, against: str, key: Key, difference: Difference) -> dict[str, object]:
    """Return the fields of a Comparison."""
    found = difference.found
    return {
        "model": model,
        "against": against,
        "benchmark": key[0],
        "metric": key[1],
        "delta": found.value,
        "stderr": found.stderr,
        "ci95": found.ci95,
        "p": found.p,
        "p_corrected": difference.p_corrected,
        "n": found.n,
        "n_missing": found.n_missing,
    }


def _flags(metrics: list[Metric], topline: str) -> Iterator[Flag]:
    ceilings = {m.metric: m.ci95 for m in metrics if m.model == topline and m.metric in JUDGES}
    for metric in metrics:
        ceiling = ceilings.get(metric.metric) if metric.model != topline else None
        if ceiling is not None and metric.value is not None and metric.value > ceiling[1]:
            yield Flag(model=metric.model, metric=metric.metric, value=metric.value, topline_ci95=ceiling)
