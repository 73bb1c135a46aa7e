"""The books of a round's pairs: counts that close, margins and length differences."""

import polars as pl

from alignslm.config.model import Config
from alignslm.pairs.selection import REASONS, SPLITS


class SplitAccount(Config):
    """One split of one round. `prompts` = `prompts_with_pairs` + the sum of `rejections`, a count for every reason.

    Lengths are in deduplicated units; a positive mean difference says the chosen ones are longer, which DPO's
    summed log-probabilities would turn into a taste for length. The margin is over pairs that have one; shares are
    over pairs. None where there is nothing to average.
    """

    prompts: int
    prompts_with_pairs: int
    pairs: int
    rejections: dict[str, int]
    mean_margin: float | None
    mean_length_difference_units: float | None
    vetoed_rejected_share: float | None
    empty_rejected_share: float | None


class PairAccount(Config):
    """One round: what trains, and what chooses the checkpoint."""

    train: SplitAccount
    valid: SplitAccount


def account(
    pairs: pl.DataFrame, rejections: pl.DataFrame, scores: pl.DataFrame, *, auto_bleu_max: float
) -> PairAccount:
    """Count a round's pairs; `scores` and `auto_bleu_max` tell which rejected ones were vetoed or empty."""
    side = scores.select(pl.col("continuation_id").alias("rejected_id"), "auto_bleu", "status")
    told = pairs.join(side, on="rejected_id", how="left")
    splits = {
        split: _split(told.filter(split=split), rejections.filter(split=split), auto_bleu_max) for split in SPLITS
    }
    return PairAccount(**splits)


def _split(pairs: pl.DataFrame, rejections: pl.DataFrame, auto_bleu_max: float) -> SplitAccount:
    length = pl.col("chosen_units").list.len().cast(pl.Int64) - pl.col("rejected_units").list.len().cast(pl.Int64)
    vetoed = (pl.col("status") == "ok") & (pl.col("auto_bleu") > auto_bleu_max).fill_null(value=False)
    figures = pairs.select(
        mean_margin=pl.col("margin").mean(),
        mean_length_difference_units=length.mean(),
        vetoed_rejected_share=vetoed.mean(),
        empty_rejected_share=(pl.col("status") == "empty").mean(),
    )
    counts = dict(rejections["reason"].value_counts().iter_rows())
    with_pairs = pairs["prompt_id"].n_unique()
    return SplitAccount(
        prompts=with_pairs + rejections.height,
        prompts_with_pairs=with_pairs,
        pairs=pairs.height,
        rejections={reason: counts.get(reason, 0) for reason in REASONS},
        **figures.row(0, named=True),
    )
