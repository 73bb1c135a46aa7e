"""From units to prompts and their true continuations (paper, section 3: about three seconds of speech)."""

import numpy as np
import polars as pl

from alignslm import tables
from alignslm.config.models import Prompts
from alignslm.provenance import content_id


class PromptError(ValueError):
    """A split cannot supply the prompts asked of it."""


def cut(units: list[int], durations: list[int], *, end_s: float, frame_rate_hz: float) -> tuple[list[int], list[int]]:
    """Cut deduplicated units at a time: the prompt's units, then the rest.

    The cut falls on a run boundary, at or before `end_s`: a run cut in two would repeat its unit across the cut,
    and the language model has never seen a repeat.
    """
    ends = np.cumsum(durations)
    keep = int(np.searchsorted(ends, end_s * frame_rate_hz + 1e-6, side="right"))
    return units[:keep], units[keep:]


def _end_s(row: dict[str, float | None], config: Prompts) -> float:
    if config.cut == "raw":
        return config.max_s
    if row["prompt_end_s"] is None:
        raise PromptError(
            f"utterance {row['utterance_id']!r} has no prompt_end_s, so it cannot be cut by {config.cut!r}. "
            "Set prompts.cut: raw in params.yaml, or give the corpus alignments."
        )
    return min(row["prompt_end_s"], config.max_s)


def make_prompts(
    encoded: pl.DataFrame, utterances: pl.DataFrame, config: Prompts, *, frame_rate_hz: float
) -> pl.DataFrame:
    """Cut every split's first utterances (by hash) into prompt and true continuation: rows of the prompts table.

    Raises PromptError where a split has too few utterances whose prompt holds `min_units` and is followed by speech.
    """
    joined = encoded.join(utterances, on="utterance_id", validate="1:1")
    made = []
    for split, wanted in {s: getattr(config, s) for s in ("train", "valid", "dev", "test")}.items():
        rows = joined.filter(pl.col("split") == split).to_dicts()
        usable = []
        for row in sorted(rows, key=lambda row: content_id("prompt", row["utterance_id"])):
            end_s = _end_s(row, config)
            head, tail = cut(row["units"], row["durations"], end_s=end_s, frame_rate_hz=frame_rate_hz)
            if len(head) >= config.min_units and tail:
                usable.append(_prompt_row(row, head, tail, end_s))
            if len(usable) == wanted:
                break
        if len(usable) < wanted:
            raise PromptError(
                f"split {split!r} gives {len(usable)} prompts of at least {config.min_units} units from {len(rows)} "
                f"utterances, {wanted} were asked for. Lower prompts.{split} or prompts.min_units, "
                "or enlarge the corpus."
            )
        made += usable
    return tables.arrange(pl.DataFrame(made, schema=dict(tables.PROMPTS.schema)), tables.PROMPTS)


def _prompt_row(row: dict[str, object], head: list[int], tail: list[int], end_s: float) -> dict[str, object]:
    return {
        "prompt_id": content_id("prompt", row["utterance_id"], end_s),
        "utterance_id": row["utterance_id"],
        "split": row["split"],
        "end_s": end_s,
        "num_units": len(head),
        "units": head,
        "continuation_units": tail,
        "prompt_text": row["prompt_text"],
        "continuation_text": row["continuation_text"],
    }
