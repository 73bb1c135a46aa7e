"""From rows of the prompts table to rows of the continuations table, none dropped (paper, section 3, step 2)."""

import polars as pl

from alignslm import tables
from alignslm.config.feedback import Sampling
from alignslm.lm.checkpoint import UnitLM
from alignslm.lm.positions import named_rows
from alignslm.lm.sampling import sample
from alignslm.provenance import content_id, row_seed


def sample_continuations(
    prompts: pl.DataFrame,
    lm: UnitLM,
    sampling: Sampling,
    *,
    seed: int,
    purpose: str,
    batch_size: int,
    batch_invariant: bool = False,
) -> pl.DataFrame:
    """Continue every prompt `sampling.num_continuations` times: rows of the continuations table.

    `purpose` (the round, or "evaluation") enters every draw's seed, so that rounds draw independently, while
    systems compared on the same prompts share their random numbers, which narrows their paired difference.
    `batch_invariant` as in `sample`.
    """
    seeds = [
        [row_seed(seed, purpose, f"{prompt_id}/{draw}") for draw in range(sampling.num_continuations)]
        for prompt_id in prompts["prompt_id"]
    ]
    with named_rows(prompts["prompt_id"]):
        drawn = sample(
            lm, prompts["units"].to_list(), seeds, sampling, batch_size=batch_size, batch_invariant=batch_invariant
        )
    rows = [
        {
            "continuation_id": continuation_id(prompt_id, purpose, lm.model_id, draw),
            "prompt_id": prompt_id,
            "sample_index": draw,
            "model_id": lm.model_id,
            "seed": seeds[number][draw],
            "units": item.units,
            "finish_reason": item.finish_reason,
            "logprob": round(item.logprob, 2),  # batch shape may show in the last bits, see sampling.py
        }
        for number, prompt_id in enumerate(prompts["prompt_id"])
        for draw, item in enumerate(drawn[number])
    ]
    return pl.DataFrame(rows, schema=dict(tables.CONTINUATIONS.schema))


def continuation_id(prompt_id: str, purpose: str, model_id: str, draw: int) -> str:
    """Return the id of one continuation. It starts with the prompt's id, so they are contiguous in every table."""
    return f"{prompt_id}-{content_id(purpose, model_id)[:6]}-{draw}"
