"""A guard against reward hacking: what is measured at every saved step of a training run, and which step is kept."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import polars as pl

from alignslm import metrics, tables
from alignslm.config.guard import MEASURES, Guard, Limit
from alignslm.figures.columns import CONTINUATION, EvalTables, columns_of
from alignslm.statistics import mean_interval

UNIT_RUN = 4  # units: pairs of them recur in any speech
START = 0  # the step of the model that training started from


def measures_of(judged: pl.DataFrame, transcripts: pl.DataFrame, units: Sequence[Sequence[int]]) -> dict[str, float]:
    """Return what a guard may limit, but `kl`, of one step's continuations; what could not be measured is absent.

    `judged` are CONTINUATION_METRICS rows of one model, `units` those of its continuations.
    """
    tabled = EvalTables(judged, pl.DataFrame(schema=dict(tables.ITEM_SCORES.schema)), {judged["model"][0]: transcripts})
    means = {
        metric: mean_interval(column.values, column.clusters).value
        for (benchmark, metric), column in columns_of(tabled, judged["model"][0]).items()
        if benchmark == CONTINUATION
    }
    found = {name: value for name, value in (means | unit_measures(units)).items() if value is not None}
    if {"judge_score", "heldout_judge_score"} <= found.keys():
        found["heldout_less_judge"] = found["heldout_judge_score"] - found["judge_score"]
    return {name: value for name, value in found.items() if name in MEASURES}


def unit_measures(units: Sequence[Sequence[int]]) -> dict[str, float | None]:
    """Return the entropy in bits of the units of all continuations together, and their mean share of repeated runs.

    A run of four units is repeated if it occurs elsewhere in its continuation, too (auto-BLEU-4 of units).
    """
    counts = np.unique(np.concatenate([np.asarray(row, int) for row in units]), return_counts=True)[1]
    shares = counts / counts.sum()
    texts = (" ".join(map(str, row)) for row in units)
    repeated = [metrics.auto_bleu(text, definition="gslm", n=UNIT_RUN) for text in texts]
    measured = [share for share in repeated if share is not None]
    return {
        "unit_entropy": float(-(shares * np.log2(shares)).sum()) if len(counts) else None,
        "unit_repetition": float(np.mean(measured)) if measured else None,
    }


def choose(measured: pl.DataFrame, guard: Guard) -> pl.DataFrame:
    """Return the steps as GUARD rows: `exceeded` names the limits a step is outside of, and one step is `kept`.

    It is the one of the highest `guard.best` among the steps after the start that are inside all limits, the first of
    equal ones; the start if there is none. What was not measured is outside its limit.
    """
    rows = [row | {"exceeded": list(_exceeded(row, guard))} for row in measured.sort("step").to_dicts()]
    inside = [(row[guard.best], -row["step"]) for row in rows if row["step"] != START and not row["exceeded"]]
    kept = -max(inside)[1] if inside else START
    made = [row | {"kept": row["step"] == kept} for row in rows]
    return tables.conform(pl.DataFrame(made, schema=dict(tables.GUARD.schema)), tables.GUARD)


def _exceeded(row: Mapping[str, float | None], guard: Guard) -> Iterator[str]:
    for name, limit in {guard.best: Limit.model_construct(), **guard.limits}.items():
        value = row[name]
        if value is None:
            yield f"{name} was not measured"
        elif limit.at_least is not None and not value >= limit.at_least:
            yield f"{name} {value:.4g} < {limit.at_least:g}"
        elif limit.at_most is not None and not value <= limit.at_most:
            yield f"{name} {value:.4g} > {limit.at_most:g}"


def outcome(chosen: pl.DataFrame, guard: Guard) -> str:
    """Return in words which of the rows of `choose` is kept, and the first step that is outside, with its limits."""
    kept, last = chosen.row(by_predicate=pl.col("kept"), named=True), chosen["step"][-1]
    outside = chosen.filter(pl.col("step") != START, pl.col("exceeded").list.len() > 0)
    first = f"first outside: step {outside['step'][0]} ({', '.join(outside['exceeded'][0])})" if len(outside) else ""
    if kept["step"] == START:
        return (
            f"no saved step of {guard.steps_of} is inside all limits, so {guard.init_from}, its start, is kept; {first}"
        )
    best = f"the highest {guard.best} inside all limits ({kept[guard.best]:.4g})"
    return f"step {kept['step']} of {last} of {guard.steps_of} is kept, {best}; {first or 'every step is inside'}"
