"""Selection over tables of any size: a round's tables are read side by side, so memory is bounded by a batch.

All three tables are sorted by ids that begin with the prompt's id, and prompts do not know of each other. Only metrics
that enter utility by their rank need the whole pool: their values, 8 bytes each, are gathered in a pass of their own.
"""

from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

import polars as pl

from alignslm import tables
from alignslm.config.curriculum import JudgedPreferences
from alignslm.config.feedback import QuantileSelector, Weights
from alignslm.pairs.diagnosis import NoPairsError, explain_no_pairs
from alignslm.pairs.own import Selector
from alignslm.pairs.selection import candidate_pool, reasons_of, select_pairs
from alignslm.pairs.thresholds import with_quantiles
from alignslm.pairs.utility import metric_ranks, utility
from alignslm.tables import TableError

BATCH_ROWS = 1 << 16  # continuations, some 30 MB with their units


class Sources(NamedTuple):
    """Paths of a round's tables."""

    scores: Path
    continuations: Path
    prompts: Path


class Batch(NamedTuple):
    """All rows about the same consecutive prompts."""

    scores: pl.DataFrame
    continuations: pl.DataFrame
    prompts: pl.DataFrame


class Selected(NamedTuple):
    """Results of one step, and the scores that it read."""

    pairs: pl.DataFrame
    skipped_prompts: pl.DataFrame
    scores: pl.DataFrame


def rules_of(
    sources: Sources, *, weights: Weights, selector: Selector, rules: JudgedPreferences, batch_size: int = BATCH_ROWS
) -> JudgedPreferences:
    """Return the rules with this round's thresholds; only `quantiles` reads the tables for it.

    Uses 8 bytes per continuation.
    """
    if not isinstance(selector, QuantileSelector):
        return rules
    ranks = metric_ranks(
        (_pool(step, rules) for step in iter_aligned_batches(sources, batch_size, units=False)), weights
    )
    steps = iter_aligned_batches(sources, batch_size, units=False)
    utilities = [utility(_pool(step, rules), weights, ranks)["utility"] for step in steps]
    return with_quantiles(rules, selector, pl.concat([pl.Series("utility", [], pl.Float64), *utilities]))


def stream_pairs(
    sources: Sources,
    *,
    weights: Weights,
    selector: Selector,
    round: JudgedPreferences,  # noqa: A002 - the paper's noun
    name: str,
    batch_size: int = BATCH_ROWS,
) -> Iterator[Selected]:
    """Yield a round's PAIRS and SKIPPED_PROMPTS, prompt by prompt in key order, a batch at a time.

    The size of a batch changes nothing. `round` is what `rules_of` gives, `name` the round's key in params.yaml, for
    messages. Raises TableError where scores and continuations are not about the same rows or the draws of a prompt do
    not contiguous, and, at the end, NoPairsError if the train split has no pair.
    """
    pools = (_pool(step, round) for step in iter_aligned_batches(sources, batch_size, units=False))
    ranks = metric_ranks(pools, weights)
    reasons: dict[str, int] = {}
    found = False
    for step in iter_aligned_batches(sources, batch_size, units=True):
        pool = utility(_pool(step, round), weights, ranks)
        pairs, skipped_prompts = select_pairs(pool, step.continuations, step.prompts, selector=selector, round=round)
        found = found or not pairs.filter(split="train").is_empty()
        for reason, count in reasons_of(skipped_prompts).items():
            reasons[reason] = reasons.get(reason, 0) + count
        yield Selected(pairs, skipped_prompts, step.scores)
    if not found:
        steps = iter_aligned_batches(sources, batch_size, units=False)
        seen = [utility(_pool(step, round), weights, ranks).select(*_DIAGNOSIS_COLUMNS) for step in steps]
        pool = pl.concat(seen) if seen else pl.DataFrame(schema=dict.fromkeys(_DIAGNOSIS_COLUMNS, pl.String))
        raise NoPairsError(explain_no_pairs(pool, reasons, selector=selector, round=round, name=name))


_DIAGNOSIS_COLUMNS = ("split", "utility", "judge_score", "status")


def _pool(step: Batch, rules: JudgedPreferences) -> pl.DataFrame:
    return candidate_pool(step.scores, step.continuations, step.prompts, rules)


def iter_aligned_batches(sources: Sources, rows: int, *, units: bool) -> Iterator[Batch]:
    """Yield a round's three tables cut between the same prompts, about `rows` continuations at a time.

    Without `units`, columns of units are empty lists. Raises TableError where scores and continuations are not about
    the same rows, a prompt is missing, or the continuations of a prompt are not contiguous.
    """
    prompts = _Prompts(sources.prompts, rows, units=units)
    drawn = _batches(tables.CONTINUATIONS, sources.continuations, rows, units=units)
    judged = tables.batches(tables.SCORES, sources.scores, rows=rows)
    held: tuple[pl.DataFrame, pl.DataFrame] | None = None
    for continuations, scores in zip_longest(drawn, judged):
        _require_same_rows(scores, continuations, sources)
        both = (scores, continuations)
        joined = both if held is None else (pl.concat([held[0], scores]), pl.concat([held[1], continuations]))
        ready = _before_last_prompt(joined[1], sources.continuations)
        if ready:
            yield prompts.prompts_for(joined[0][:ready], joined[1][:ready])
        held = joined[0][ready:], joined[1][ready:]
    if held is not None:
        yield prompts.prompts_for(*held)


def _batches(table: tables.Table, path: Path, rows: int, *, units: bool) -> Iterator[pl.DataFrame]:
    """Yield a table in batches; without `units` its lists are not read but empty, which is several times faster."""
    lists = [] if units else [name for name, kind in table.schema.items() if kind == tables.UNITS]
    columns = [name for name in table.schema if name not in lists] if lists else None
    nothing = [pl.lit([], tables.UNITS).alias(name) for name in lists]
    for frame in tables.batches(table, path, rows=rows, columns=columns):
        yield frame.with_columns(nothing).select(table.schema.keys())


def _require_same_rows(scores: pl.DataFrame | None, continuations: pl.DataFrame | None, sources: Sources) -> None:
    """Raise TableError at the first row that is in only one of the tables; both are sorted by the id."""
    scored_ids, sampled_ids = (
        pl.Series([], dtype=pl.String) if frame is None else frame["continuation_id"]
        for frame in (scores, continuations)
    )
    if scored_ids.equals(sampled_ids):
        return
    first, second = next((a, b) for a, b in zip_longest(scored_ids, sampled_ids) if a != b)
    only_scored = second is None or (first is not None and first < second)
    here, there = (sources.scores, sources.continuations) if only_scored else (sources.continuations, sources.scores)
    raise TableError(
        f"{here} has continuation {first if only_scored else second!r} and {there} does not: they are from different "
        "samples. Run `dvc repro`."
    )


def _before_last_prompt(continuations: pl.DataFrame, path: Path) -> int:
    """Return how many rows belong to prompts before the last one, which may continue in the next batch."""
    ids = continuations["prompt_id"]
    backwards = (ids < ids.shift(1)).fill_null(value=False)
    if backwards.any():
        row = continuations.row(backwards.arg_max() or 0, named=True)
        raise TableError(
            f"{path}: the continuations of prompt {row['prompt_id']!r} are not contiguous (continuation "
            f"{row['continuation_id']!r}); continuation ids must begin with their prompt's id, as stages write them. "
            "Run `dvc repro` to remake it."
        )
    return int((ids < ids[-1]).sum())


class _Prompts:
    """The table of prompts, read forward as continuations ask for it."""

    def __init__(self, path: Path, rows: int, *, units: bool) -> None:
        self._batches = _batches(tables.PROMPTS, path, rows, units=units)
        self._held = pl.DataFrame(schema=dict(tables.PROMPTS.schema))

    def prompts_for(self, scores: pl.DataFrame, continuations: pl.DataFrame) -> Batch:
        """Return the step of some rows; prompts up to the last of them are left behind. Raises TableError."""
        wanted = continuations["prompt_id"]
        while self._held.is_empty() or self._held["prompt_id"][-1] < wanted[-1]:
            batch = next(self._batches, None)
            if batch is None:
                break
            self._held = pl.concat([self._held.filter(pl.col("prompt_id") >= wanted[0]), batch])
        passed = pl.col("prompt_id") <= wanted[-1]
        prompts, self._held = self._held.filter(passed), self._held.filter(~passed)
        tables.require_keys(continuations, "prompt_id", prompts, "prompt_id", names="continuations -> prompts")
        return Batch(scores, continuations, prompts)
