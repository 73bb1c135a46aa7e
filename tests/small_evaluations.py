"""Evaluations of a few rows, written through the real tables."""

from pathlib import Path

import polars as pl

from alignslm import tables
from alignslm.provenance import content_id

Correct = dict[str, float | None]  # 1, .5, 0 or None by `pair` or `pair/voice`


def write_evaluation(
    artifacts: Path, model: str, scores: dict[str, list[float | None]], correct: Correct | None = None
) -> None:
    """Write a judge's scores of draws by prompt, and the answers on a benchmark `swuggy`, as artifacts/eval/MODEL."""
    judged = [
        (model, content_id(model, prompt, draw), prompt, draw, "judge_score", value)
        for prompt, draws in scores.items()
        for draw, value in enumerate(draws)
    ]
    folder = artifacts / "eval" / model
    tables.write(_frame(judged, tables.CONTINUATION_METRICS), tables.CONTINUATION_METRICS, folder / "judged.parquet")
    items = [item_score(model, name, value) for name, value in (correct or {}).items()]
    tables.write(_frame(items, tables.ITEM_SCORES), tables.ITEM_SCORES, folder / "item_scores.parquet")


def item_score(model: str, name: str, correct: float | None) -> tuple[object, ...]:
    """Return one ITEM_SCORES row whose likelihoods give `correct`."""
    pair, _, voice = name.partition("/")
    positive, negative = (None, None) if correct is None else (2 * correct - 5, -4.0)
    parts = [(0.0, 0, -4.0 if nats is None else nats, 3, None) for nats in (positive, negative)]
    row = ("swuggy", pair, voice or "v", model, None, "", None, None, positive, negative, 3, 3, correct)
    return (*row, *parts[0], *parts[1])


def _frame(rows: list[tuple[object, ...]], table: tables.Table) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=dict(table.schema), orient="row")
