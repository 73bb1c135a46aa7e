"""Counts of a round's pairs that add up, margins and length differences."""

import polars as pl

from alignslm.config.curriculum import JudgedPreferences
from alignslm.config.model import Config
from alignslm.pairs.selection import REASONS, SPLITS


class SplitPairCounts(Config):
    """One split of one round. `prompts` = `prompts_with_pairs` + the sum of `skipped_prompts`, a count per reason.

    Lengths are in deduplicated units; a positive mean difference says the chosen ones are longer, which DPO's
    summed log-probabilities would turn into a taste for length. The margin is over pairs that have one; shares are
    over pairs. None if there is nothing to average.
    """

    prompts: int
    prompts_with_pairs: int
    pairs: int
    skipped_prompts: dict[str, int]
    mean_margin: float | None
    mean_length_difference_units: float | None
    vetoed_rejected_share: float | None
    empty_rejected_share: float | None


class PairCounts(Config):
    """One round: what trains, what chooses the checkpoint, and the thresholds of utility, None if it had none.

    Under `quantiles` the thresholds are the scores that they became.
    """

    train: SplitPairCounts
    valid: SplitPairCounts
    min_chosen_score: float | None = None
    max_rejected_score: float | None = None


class PairCounter:
    """A round's pairs, counted step by step; stores about 14 bytes per pair, for exact means."""

    def __init__(self, *, max_auto_bleu: float) -> None:
        self._max_auto_bleu = max_auto_bleu
        self._facts: dict[str, list[pl.DataFrame]] = {split: [] for split in SPLITS}
        self._prompts = dict.fromkeys(SPLITS, 0)
        self._skipped_prompts = {split: dict.fromkeys(REASONS, 0) for split in SPLITS}

    def add(self, pairs: pl.DataFrame, skipped_prompts: pl.DataFrame, scores: pl.DataFrame) -> None:
        """Count some prompts' pairs, or why they were skipped; nothing else of them comes; `scores` has their rows."""
        side = scores.select(pl.col("continuation_id").alias("rejected_id"), "auto_bleu", "status")
        joined = pairs.join(side, on="rejected_id", how="left", maintain_order="left")
        for split in SPLITS:
            in_split = joined.filter(split=split)
            self._prompts[split] += in_split["prompt_id"].n_unique()
            self._facts[split].append(_facts(in_split, self._max_auto_bleu))
            for reason, count in skipped_prompts.filter(split=split)["reason"].value_counts().iter_rows():
                self._skipped_prompts[split][reason] += count

    def close(self, rules: JudgedPreferences | None) -> PairCounts:
        """Return the counts with these rules, None if they had no thresholds."""
        return PairCounts(
            train=self._split("train"),
            valid=self._split("valid"),
            min_chosen_score=None if rules is None else rules.min_chosen_score,
            max_rejected_score=None if rules is None else rules.max_rejected_score,
        )

    def _split(self, split: str) -> SplitPairCounts:
        facts = pl.concat(self._facts[split], rechunk=True)  # a mean must not depend on where steps were cut
        skipped_prompts, with_pairs = self._skipped_prompts[split], self._prompts[split]
        return SplitPairCounts(
            prompts=with_pairs + sum(skipped_prompts.values()),
            prompts_with_pairs=with_pairs,
            pairs=facts.height,
            skipped_prompts=skipped_prompts,
            **facts.select(pl.all().mean()).row(0, named=True),
        )


def _facts(pairs: pl.DataFrame, max_auto_bleu: float) -> pl.DataFrame:
    """Return the values of each pair to average, by the names of SplitAccount."""
    length = pl.col("chosen_units").list.len().cast(pl.Int32) - pl.col("rejected_units").list.len().cast(pl.Int32)
    vetoed = (pl.col("status") == "ok") & (pl.col("auto_bleu") > max_auto_bleu).fill_null(value=False)
    return pairs.select(
        mean_margin=pl.col("margin"),
        mean_length_difference_units=length,
        vetoed_rejected_share=vetoed,
        empty_rejected_share=pl.col("status") == "empty",
    )
