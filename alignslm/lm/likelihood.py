"""Log-likelihoods of unit sequences; the softmax is taken in fp32 whatever the model computes in."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from typing import NamedTuple, TypeAlias

import numpy as np
import polars as pl
import torch
from transformers import Cache, DynamicCache

from alignslm.lm.buckets import grouped, padded_length, sliced
from alignslm.lm.checkpoint import UnitLM
from alignslm.lm.positions import check_max_positions, max_positions
from alignslm.model_cache import keeps_states
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
def log_likelihoods(lm: UnitLM, items: Sequence[LikelihoodRequest], *, batch_size: int) -> list[LogLikelihoods]:
    """Return log p of every unit of context and target given all before it: what any convention sums or averages.

    Shared parts are computed once: equal sequences, and a common context's keys and values. Contexts are
    batched by exact length, targets padded on the right to a length that depends only on the sequence, so that
    neither batch nor neighbours change a value in float32. (bfloat16 products may round by the shape of the batch, as
    they do if a processor has no instructions for them.) Raises TooLongError as `unit_log_likelihoods` does.
    """
    splits = [_split(lm, item) for item in items]
    check_max_positions(
        lm.model.config,
        [len(head) + len(tail) - 1 for head, tail in splits],  # the last token is only predicted
        what="sequences to be scored",
        cure="leave them out, or choose a model with more positions",
    )
    tails: dict[Ids, dict[Ids, None]] = defaultdict(dict)  # of every head, an ordered set
    for head, tail in splits:
        tails[head][tail] = None
    known: dict[_Split, LogLikelihoods] = {}
    with fast_linear(lm.device):
        if keeps_states(lm.model):
            known, tails = _of_whole(lm, dict.fromkeys(splits), batch_size=batch_size), {}
        for length, heads in sorted(grouped(tails, map(len, tails)).items()):
            for some in sliced(heads, length=length, batch_size=batch_size):
                known |= _of_heads(lm, {head: tails[head] for head in some}, batch_size=batch_size)
    return [known[split] for split in splits]


def _of_whole(lm: UnitLM, splits: Iterable[_Split], *, batch_size: int) -> dict[_Split, LogLikelihoods]:
    """Read every sequence from its first token: a state cannot be taken back to the end of a context."""
    limit = max_positions(lm.model.config)
    rows = list(splits)
    widths = [padded_length(len(head) + len(tail) - 1, room=limit) for head, tail in rows]
    known: dict[_Split, LogLikelihoods] = {}
    for width, group in sorted(grouped(rows, widths).items()):
        for batch in sliced(group, length=width, batch_size=batch_size):
            for split, nats in zip(
                batch, _predict(lm, [head + tail for head, tail in batch], width=width, cache=None), strict=True
            ):
                past = len(split.head) - 1
                known[split] = LogLikelihoods(nats[:past], nats[past:])
    return known


def _of_heads(lm: UnitLM, tails: Mapping[Ids, Iterable[Ids]], *, batch_size: int) -> dict[_Split, LogLikelihoods]:
    """Read equally long heads once, then score all that follows them."""
    heads = list(tails)
    past = len(heads[0]) - 1
    limit = max_positions(lm.model.config)
    cache = DynamicCache() if past else None
    width = padded_length(past, room=limit)
    before = _predict(lm, heads, width=width, cache=cache)
    if cache and width > past:
        cache.crop(past - width)  # off with the keys and values of padding
    rows = [(number, head[-1:] + tail) for number, head in enumerate(heads) for tail in tails[head]]
    widths = [padded_length(len(ids) - 1, room=limit - past) for _, ids in rows]
    known: dict[_Split, LogLikelihoods] = {}
    for width, group in sorted(grouped(rows, widths).items()):
        for batch in sliced(group, length=width, batch_size=batch_size):
            copied = _select(lm, cache, [number for number, _ in batch]) if cache else None
            after = _predict(lm, [ids for _, ids in batch], width=width, cache=copied)
            for (number, ids), nats in zip(batch, after, strict=True):
                known[_Split(heads[number], ids[1:])] = LogLikelihoods(before[number], nats)
    return known


def _select(lm: UnitLM, cache: Cache, rows: list[int]) -> Cache:
    """Copy rows of a cache; the original stays as it is, for the next batch of targets."""
    chosen = copy(cache)
    chosen.layers = [copy(layer) for layer in cache.layers]
    chosen.batch_select_indices(torch.tensor(rows, device=lm.device))
    return chosen


def _predict(lm: UnitLM, rows: Sequence[Ids], *, width: int, cache: Cache | None) -> list[np.ndarray]:
    """Predict every token of each row but its first, after the content of the cache, to which they are added.

    Rows are filled up to `width` tokens to predict, never none: a matrix product of a single row is rounded otherwise
    than one of several. The last token fills them, and nothing real sees that.
    """
    if not width:
        return [np.zeros(0)] * len(rows)
    ids = torch.tensor([row + row[-1:] * (width + 1 - len(row)) for row in rows], device=lm.device)
    given = {} if cache is None else {"past_key_values": cache}
    logits = lm.model(ids[:, :-1], use_cache=cache is not None, **given).logits.float()
    nats = logits.log_softmax(dim=-1).gather(-1, ids[:, 1:].unsqueeze(-1)).squeeze(-1).double().cpu().numpy()
    return [found[: len(row) - 1] for found, row in zip(nats, rows, strict=True)]
