"""The books of a round's pairs: counts that close, margins and length differences."""

from dataclasses import dataclass

import polars as pl

from alignslm.pairs.selection import REASONS


@dataclass(frozen=True)
class PairAccount:
    """One split of one round. `prompts` = `prompts_with_pairs` + the sum of `reasons`.

    Lengths are in deduplicated units; a positive mean difference says the chosen ones are longer, which DPO's
    summed log-probabilities would turn into a taste for length. Means are None where there is nothing to average.
    """

    prompts: int
    prompts_with_pairs: int
    pairs: int
    reasons: dict[str, int]
    mean_margin: float | None
    mean_length_difference_units: float | None
    vetoed_rejected_share: float | None
    empty_rejected_share: float | None

    def metrics(self) -> dict[str, float | None]:
        """Return flat figures for a metrics file; reasons become `rejected: <reason>`."""
        figures: dict[str, float | None] = {
            "prompts": self.prompts,
            "prompts_with_pairs": self.prompts_with_pairs,
            "pairs": self.pairs,
            "mean_margin": self.mean_margin,
            "mean_length_difference_units": self.mean_length_difference_units,
            "vetoed_rejected_share": self.vetoed_rejected_share,
            "empty_rejected_share": self.empty_rejected_share,
        }
        return figures | {f"rejected: {reason}": count for reason, count in self.reasons.items()}


def account(
    pairs: pl.DataFrame, rejections: pl.DataFrame, scores: pl.DataFrame, *, split: str, auto_bleu_max: float
) -> PairAccount:
    """Count one split of a round. Shares are over pairs; `scores` tells which rejected ones were vetoed or empty."""
    pairs, rejections = pairs.filter(split=split), rejections.filter(split=split)
    side = scores.select(pl.col("continuation_id").alias("rejected_id"), "auto_bleu", "status")
    figures = pairs.join(side, on="rejected_id", how="left").select(
        margin=pl.col("margin").mean(),
        length=(pl.col("chosen_units").list.len().cast(pl.Int64) - pl.col("rejected_units").list.len()).mean(),
        vetoed=((pl.col("status") == "ok") & (pl.col("auto_bleu") > auto_bleu_max)).fill_null(value=False).mean(),
        empty=(pl.col("status") == "empty").mean(),
    )
    counts = dict(rejections["reason"].value_counts().iter_rows())
    with_pairs = pairs["prompt_id"].n_unique()
    return PairAccount(
        prompts=with_pairs + rejections.height,
        prompts_with_pairs=with_pairs,
        pairs=pairs.height,
        reasons={reason: counts.get(reason, 0) for reason in REASONS},
        mean_margin=figures["margin"][0],
        mean_length_difference_units=figures["length"][0],
        vetoed_rejected_share=figures["vetoed"][0],
        empty_rejected_share=figures["empty"][0],
    )
