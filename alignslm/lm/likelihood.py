"""Log-likelihoods of unit sequences; the softmax is taken in fp32 whatever the model computes in."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import polars as pl
import torch
from transformers import Cache, DynamicCache

from alignslm.buckets import Shapes, grouped, rounded, shapes_of
from alignslm.lm.checkpoint import UnitLM
from alignslm.lm.positions import check_max_positions
from alignslm.model_cache import after_padding, has_window, keeps_states, max_positions, selected_rows
from alignslm.speed.onednn import fast_linear

Ids: TypeAlias = tuple[int, ...]


class LikelihoodRequest(NamedTuple):
    """A sequence to score: `target` is scored, conditioned on `context`.

    With an empty context the target is scored from the begin-of-sequence token; in a vocabulary without one the
    first unit then only conditions (it has no predecessor to be predicted from). `eos` scores the end as well.
    """

    context: Sequence[int]
    target: Sequence[int]
    eos: bool


class LogLikelihoods(NamedTuple):
    """Log-likelihoods in nats of a sequence's scored units, float64: of context (units,) and target (units,)."""

    context: np.ndarray
    target: np.ndarray


class _Split(NamedTuple):
    """Token ids of a sequence: begin-of-sequence token and context, then the target.

    If that leaves nothing to predict the first token from, that token is the head.
    """

    head: Ids
    tail: Ids


def _split(lm: UnitLM, item: LikelihoodRequest) -> _Split:
    head = lm.vocabulary.encode(item.context, bos=True)
    ids = (*head, *lm.vocabulary.encode(item.target, bos=False, eos=item.eos))
    return _Split(ids[: max(1, len(head))], ids[max(1, len(head)) :])


def unit_log_likelihoods(lm: UnitLM, items: Sequence[LikelihoodRequest], *, batch_size: int) -> list[np.ndarray]:
    """Return one float64 array a sequence: log p of every unit of its target given all before it, in nats.

    Their sum is the target's log-likelihood, their mean the length-normalised one, their length the count to
    report next to it. Raises TooLongError if a sequence exceeds the model's positions.
    """
    return [found.target for found in log_likelihoods(lm, items, batch_size=batch_size)]


def continuation_nats(lm: UnitLM, rows: pl.DataFrame, *, batch_size: int) -> np.ndarray:
    """Return log p(continuation | prompt) in nats, (rows,) float64; the end of sequence counts if it was sampled.

    Rows have `prompt_units`, `units` and `finish_reason`. Raises TooLongError as `unit_log_likelihoods` does.
    """
    found = rows.select("prompt_units", "units", "finish_reason").iter_rows()
    items = [LikelihoodRequest(prompt, units, eos=finish == "eos") for prompt, units, finish in found]
    return np.array([nats.sum() for nats in unit_log_likelihoods(lm, items, batch_size=batch_size)])


@torch.inference_mode()
def log_likelihoods(
    lm: UnitLM, items: Sequence[LikelihoodRequest], *, batch_size: int, shapes: Shapes | None = None
) -> list[LogLikelihoods]:
    """Return log p of every unit of context and target given all before it: what any convention sums or averages.

    Equal sequences are computed once, and so are contexts of more than `shapes.apart` tokens (by default those that
    `shapes_of` says): their keys and values serve all their targets. Others are read anew with every target. On a CPU
    all contexts are read apart, for what is computed is what counts there. On a GPU long ones are: that saves a
    context's length for every target but the first, less one step of rounding, and costs one more pass, a mask of the
    padding between context and target, and more shapes. How many share a context in this call does not matter: the
    values would then depend on it. Models that keep states, or see only a window (which would count the padding), read
    every sequence whole if lengths of contexts are padded; the former always.

    All lengths follow from the sequence alone, so that neither batch nor neighbours change a value in float32.
    (bfloat16 products may round by the shape of the batch, as they do if a processor has no instructions for them.)
    Raises TooLongError as `unit_log_likelihoods` does.
    """
    splits = [_split(lm, item) for item in items]
    check_max_positions(
        lm.model.config,
        [len(head) + len(tail) - 1 for head, tail in splits],  # the last token is only predicted
        what="sequences to be scored",
        cure="leave them out, or choose a model with more positions",
    )
    with fast_linear(lm.device):
        known = _Reader(lm, shapes or shapes_of(lm.model), batch_size).read([*dict.fromkeys(splits)])
    return [known[split] for split in splits]


@dataclass(frozen=True)
class _Reader:
    """Forward passes over sequences, in given shapes."""

    lm: UnitLM
    shapes: Shapes
    batch_size: int

    @property
    def limit(self) -> int:
        return max_positions(self.lm.model.config)

    def read(self, splits: Sequence[_Split]) -> dict[_Split, LogLikelihoods]:
        """Score every sequence, after its head or together with it."""
        whole = keeps_states(self.lm.model)  # a state cannot be taken back to the end of a head
        whole |= self.shapes.context > 1 and has_window(self.lm.model)
        tails: dict[Ids, list[Ids]] = defaultdict(list)
        for head, tail in splits:
            if not whole and len(head) > self.shapes.apart:
                tails[head].append(tail)
        known = self.of_whole([split for split in splits if split.head not in tails])
        widths = [rounded(len(head) - 1, self.shapes.context, room=self.limit) for head in tails]
        for held, heads in sorted(grouped(tails, widths).items()):
            for some, full in self.shapes.passes(heads, length=held + 1, batch_size=self.batch_size):
                known |= self.of_heads(full, [tails[head] for head in some], held=held)
        return known

    def of_whole(self, splits: Sequence[_Split]) -> dict[_Split, LogLikelihoods]:
        """Read sequences from their first token."""
        widths = [rounded(len(head) + len(tail) - 1, self.shapes.target, room=self.limit) for head, tail in splits]
        known: dict[_Split, LogLikelihoods] = {}
        for width, group in sorted(grouped(splits, widths).items()):
            for batch, full in self.shapes.passes(group, length=width, batch_size=self.batch_size):
                found = self.predict([head + tail for head, tail in full], width=width)
                for split, nats in zip(batch, found, strict=False):
                    past = len(split.head) - 1
                    known[split] = LogLikelihoods(nats[:past], nats[past:])
        return known

    def of_heads(self, heads: Sequence[Ids], tails: Sequence[list[Ids]], *, held: int) -> dict[_Split, LogLikelihoods]:
        """Read heads once, `held` positions of each, and then the tails of the first ones; the others are fillers."""
        cache = DynamicCache() if held else None
        width = rounded(held, self.shapes.target, room=self.limit)
        before = self.predict(heads, width=width, cache=cache)
        if cache and width > held:
            cache.crop(held - width)  # off with the keys and values of padding
        rows = [(number, heads[number][-1:] + tail) for number, some in enumerate(tails) for tail in some]
        widths = [
            rounded(len(ids) - 1, self.shapes.target, room=self.limit - len(heads[number]) + 1) for number, ids in rows
        ]
        known: dict[_Split, LogLikelihoods] = {}
        for width, group in sorted(grouped(rows, widths).items()):
            for batch, full in self.shapes.passes(group, length=width, held=held, batch_size=self.batch_size):
                after = self.after(cache, heads, full, held=held, width=width)
                for (number, ids), nats in zip(batch, after, strict=False):
                    known[_Split(heads[number], ids[1:])] = LogLikelihoods(before[number], nats)
        return known

    def after(
        self, cache: Cache | None, heads: Sequence[Ids], rows: Sequence[tuple[int, Ids]], *, held: int, width: int
    ) -> list[np.ndarray]:
        """Predict the ids of each row after the cached head of its number."""
        ids = [ids for _, ids in rows]
        if cache is None:
            return self.predict(ids, width=width)
        numbers, device = [number for number, _ in rows], self.lm.device
        chosen = selected_rows(cache, torch.tensor(numbers, device=device))
        if self.shapes.context == 1:
            return self.predict(ids, width=width, cache=chosen)
        past = torch.tensor([len(heads[number]) - 1 for number in numbers], device=device)
        return self.predict(ids, width=width, cache=chosen, **after_padding(past, held=held, new=width))

    def predict(
        self, rows: Sequence[Ids], *, width: int, cache: Cache | None = None, **given: torch.Tensor
    ) -> list[np.ndarray]:
        """Predict every token of each row but its first, after the content of the cache, to which they are added.

        Rows are filled up to `width` tokens to predict, never none: a matrix product of a single row is rounded
        otherwise than one of several. The last token fills them, and nothing real sees that.
        """
        if not width:
            return [np.zeros(0)] * len(rows)
        ids = torch.tensor([row + row[-1:] * (width + 1 - len(row)) for row in rows], device=self.lm.device)
        options: dict[str, Any] = {**given} if cache is None else {"past_key_values": cache, **given}
        logits = self.lm.model(ids[:, :-1], use_cache=cache is not None, **options).logits.float()
        nats = logits.log_softmax(dim=-1).gather(-1, ids[:, 1:].unsqueeze(-1)).squeeze(-1).double().cpu().numpy()
        return [found[: len(row) - 1] for found, row in zip(nats, rows, strict=True)]
