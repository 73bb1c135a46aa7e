"""What TRL's losses of pairs are computed of: token ids, references (or none), and weights of pairs."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import polars as pl
import torch
from datasets import Dataset

from alignslm.config.models import PreferenceTrainerConfig
from alignslm.lm.checkpoint import UnitLM
from alignslm.lm.likelihood import continuation_nats
from alignslm.lm.positions import check_max_positions

Rows = Sequence[dict[str, Any]]
WEIGHT = "pair_weight"
LEAST_WEIGHT = 1e-6  # its logarithm is finite


def side_of(pairs: pl.DataFrame, side: str) -> pl.DataFrame:
    """Return `prompt_units`, `units` and `finish_reason` of a side of pairs, chosen or rejected."""
    return pairs.select("prompt_units", units=f"{side}_units", finish_reason=f"{side}_finish_reason")


def reference_log_probs(lm: UnitLM, pairs: pl.DataFrame, side: str, *, batch_size: int) -> list[float]:
    """Return log p(side | prompt) in nats under the frozen model, end of sequence counted if it was sampled."""
    return [*map(float, continuation_nats(lm, side_of(pairs, side), batch_size=batch_size))]


def preference_rows(
    lm: UnitLM, pairs: pl.DataFrame, *, batch_size: int, references: bool = True, margin_weights: bool = False
) -> Dataset:
    """Turn pairs into the columns TRL's collator reads: token ids and, if wanted, `references`: log-probabilities.

    Sampled ids are used as drawn, never re-encoded from audio. An end-of-sequence token follows a side only if
    the model sampled one: a continuation cut at the length limit must not teach that speech ends there.
    """
    encode = lm.vocabulary.encode
    rows: dict[str, list[list[int]]] = {
        "prompt_ids": [encode(units, bos=True) for units in pairs["prompt_units"]],
        **{
            f"{side}_ids": [
                encode(units, bos=False, eos=finish == "eos")
                for units, finish in pairs.select(f"{side}_units", f"{side}_finish_reason").iter_rows()
            ]
            for side in ("chosen", "rejected")
        },
    }
    require_positions(lm, rows)
    sides = ("chosen", "rejected") if references else ()
    found = {f"ref_{side}_logps": reference_log_probs(lm, pairs, side, batch_size=batch_size) for side in sides}
    weights = {WEIGHT: pair_weights(pairs["margin"])} if margin_weights else {}
    return Dataset.from_dict(rows | found | weights)


def row_lengths(prompts: Iterable[Sequence[int]], *sides: Iterable[Sequence[int]]) -> list[int]:
    """Return how many tokens every prompt has with the longest of its continuations."""
    return [len(prompt) + max(map(len, tails)) for prompt, *tails in zip(prompts, *sides, strict=True)]


def require_positions(lm: UnitLM, rows: dict[str, list[list[int]]]) -> None:
    """Raise TooLongError if a prompt and the longer of its two continuations, columns in this order, do not fit."""
    check_max_positions(
        lm.model.config,
        row_lengths(*rows.values()),
        what="preference pairs",
        cure="lower sampling.max_new_units or prompts.max_duration_s",
    )


def pair_weights(margins: pl.Series) -> list[float]:
    """Return each pair's margin over the mean margin.

    A pair without a positive margin (its rejected side was vetoed, said nothing, or has no score) counts as an
    average one. The mean is then 1.
    """
    positive = margins.cast(pl.Float64).set(~(margins > 0).fill_null(value=False), None)
    return (positive / positive.mean()).fill_null(1.0).clip(lower_bound=LEAST_WEIGHT).to_list()


def keep_weights(collate: Callable[[Any], Any]) -> Callable[[Rows], dict[str, torch.Tensor]]:
    """Return TRL's collator, which drops columns that it does not know, with the pairs' weights in its batches."""

    def collated(rows: Rows) -> dict[str, torch.Tensor]:
        weights = torch.tensor([row[WEIGHT] for row in rows])
        return {**collate(rows), WEIGHT: weights}

    return collated


def free_references(config: PreferenceTrainerConfig, completion_mask: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the log-probabilities (pairs,) of a reference under which TRL's losses have none.

    A reference that gives every continuation probability one drops out. `target_margin` (SimPO's gamma, arXiv
    2405.14734, eq. 6) is taken from beta times the difference of means by chosen sides whose units have
    gamma / beta nats each.
    """
    lengths = completion_mask.chunk(2)[0].sum(dim=1).float()
    return {
        "ref_chosen_logps": lengths * (config.target_margin / config.beta),
        "ref_rejected_logps": torch.zeros_like(lengths),
    }


@contextlib.contextmanager
def weighted(model: torch.nn.Module, weights: torch.Tensor) -> Iterator[None]:
    """Let TRL's WPO weights, exp(mean of logprob - log_sum_sq_probs) per side, be `weights` (pairs,) while it computes.

    Half of the logarithm on each side.
    """
    logs = (weights.log() / 2).repeat(2).unsqueeze(1)

    def replaced(_model: torch.nn.Module, _inputs: object, outputs: Any) -> None:
        outputs.log_sum_sq_probs = outputs.log_probs.detach() - logs

    hook = model.register_forward_hook(replaced)
    try:
        yield
    finally:
        hook.remove()
