"""A round's pairs by the product's own way, from tables on disk, and the three tables of rows made by hand."""

from pathlib import Path
from typing import NamedTuple

import polars as pl

from alignslm import tables
from alignslm.config.curriculum import JudgedPreferences
from alignslm.config.feedback import QuantileSelector, SelectorConfig, ThresholdSelector, Weights
from alignslm.pairs.counts import PairCounter, PairCounts
from alignslm.pairs.streaming import BATCH_ROWS, Sources, rules_of, stream_pairs
from alignslm.tables import CONTINUATIONS, PROMPTS, SCORES

JUDGE_ALONE = Weights(judge_score=1, ppl=0, auto_bleu=0, num_words=0)
RULES = JudgedPreferences(
    sampled_from="base", min_chosen_score=3, max_rejected_score=2, min_margin=1.5, max_auto_bleu=0.1
)
THRESHOLDS = ThresholdSelector(kind="thresholds", max_chosen_per_prompt=2, max_rejected_per_prompt=2, min_words=2)

QUANTILES = QuantileSelector(
    **THRESHOLDS.model_dump() | {"kind": "quantiles", "chosen_quantile": 0.7, "rejected_quantile": 0.3}
)


class Selection(NamedTuple):
    pairs: pl.DataFrame
    skipped_prompts: pl.DataFrame
    account: PairCounts


def selected(
    sources: Sources,
    *,
    weights: Weights = JUDGE_ALONE,
    selector: SelectorConfig = THRESHOLDS,
    rules: JudgedPreferences = RULES,
    batch_size: int = BATCH_ROWS,
) -> Selection:
    """What the stage `pairs` makes of these tables."""
    books, pairs, skipped_prompts = PairCounter(max_auto_bleu=rules.max_auto_bleu), [], []
    rules = rules_of(sources, weights=weights, selector=selector, rules=rules, batch_size=batch_size)
    for made in stream_pairs(
        sources, weights=weights, selector=selector, round=rules, name="r1", batch_size=batch_size
    ):
        pairs.append(made.pairs)
        skipped_prompts.append(made.skipped_prompts)
        books.add(*made)
    return Selection(
        pl.concat(pairs),
        pl.concat(skipped_prompts),
        books.close(rules if isinstance(selector, ThresholdSelector) else None),
    )


def written(folder: Path, rows: list[dict]) -> Sources:
    """Tables of some rows, in files."""
    sources = Sources(folder / "scores.parquet", folder / "continuations.parquet", folder / "prompts.parquet")
    for frame, table, path in zip(frames(rows), (SCORES, CONTINUATIONS, PROMPTS), sources, strict=True):
        tables.write(frame, table, path)
    return sources


def frames(rows: list[dict]) -> tuple[pl.DataFrame, ...]:
    """Tables from dicts: prompt, units, score, and optionally split, auto_bleu, num_words, status, ppl, id, draw.

    As stages name them, ids begin with their prompt's.
    """
    rows = [
        {"split": "train", "auto_bleu": 0.0, "num_words": 5, "status": "ok", "ppl": 9.0, "sample_index": i}
        | {"units": [i], "id": f"{row['prompt']}-m-{i:02d}"}
        | row
        for i, row in enumerate(rows)
    ]
    common = [{"continuation_id": r["id"], "prompt_id": r["prompt"], "sample_index": r["sample_index"]} for r in rows]
    scores = [
        c | {"judge_score": r["score"]} | {k: r[k] for k in ("ppl", "auto_bleu", "num_words", "status")}
        for c, r in zip(common, rows, strict=True)
    ]
    drawn = [
        c | {"model_id": "m", "seed": 0, "units": r["units"], "finish_reason": "length", "logprob": -1.0}
        for c, r in zip(common, rows, strict=True)
    ]
    splits = {r["prompt"]: r["split"] for r in rows}
    prompts = [
        {"prompt_id": p, "utterance_id": p, "split": s, "end_s": 1.0, "num_units": 1, "units": [7]}
        | {"continuation_units": [8], "prompt_text": None, "continuation_text": None}
        for p, s in splits.items()
    ]
    return tuple(
        tables.conform(pl.DataFrame(content, schema=dict(kind.schema)), kind)
        for content, kind in ((scores, SCORES), (drawn, CONTINUATIONS), (prompts, PROMPTS))
    )
