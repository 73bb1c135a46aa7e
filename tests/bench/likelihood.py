"""Likelihoods of benchmark pairs: against one forward pass an item."""

from collections.abc import Sequence

import numpy as np
import torch

from alignslm.lm.checkpoint import UnitLM
from alignslm.lm.likelihood import LikelihoodRequest, unit_log_likelihoods
from tests.bench.case import BF16_NATS, Answer, Case, Cost, max_abs_difference, scaled_difference
from tests.bench.models import SHAPES, Shape, Size, token_flop, unit_lm

BATCH_ROWS = 256
STORIES, SENTENCES = 16, 48  # pairs


@torch.inference_mode()
def _item_by_item(lm: UnitLM, items: list[LikelihoodRequest]) -> Answer:
    """Score each item whole, context included, in a pass of its own."""
    found: Answer = []
    for item in items:
        head = lm.vocabulary.encode(item.context, bos=True)
        ids = torch.tensor([[*head, *lm.vocabulary.encode(item.target, bos=False, eos=item.eos)]], device=lm.device)
        nats = lm.model(ids).logits[:, :-1].float().log_softmax(-1).gather(-1, ids[:, 1:, None])[0, :, 0]
        found.append(nats[len(head) - 1 :].sum(dtype=torch.float64, dim=0, keepdim=True).cpu().numpy())
    return found


def _ours(lm: UnitLM, items: list[LikelihoodRequest]) -> Answer:
    return [nats.sum(keepdims=True) for nats in unit_log_likelihoods(lm, items, batch_size=BATCH_ROWS)]


def _speech(rng: np.random.Generator, shape: Shape, low: int, high: int) -> list[int]:
    return rng.integers(0, shape.num_units, rng.integers(low, high)).tolist()


@torch.inference_mode()
def padded_nats(
    lm: UnitLM, parted: list[tuple[list[int], list[int]]], *, tokens: int, forbidden: Sequence[int] = ()
) -> list[np.ndarray]:
    """Return log p of each token of every tail after its head, in plain passes of some `tokens`.

    Heads have at least one token. Sequences are read whole, sorted by length and padded on the right, which nothing
    before it sees. `forbidden` tokens have no probability.
    """
    found = [np.zeros(0)] * len(parted)
    whole = [head + tail for head, tail in parted]
    order = sorted(range(len(parted)), key=lambda row: -len(whole[row]))
    while order:
        width = len(whole[order[0]])
        some, order = order[: max(1, tokens // width)], order[max(1, tokens // width) :]
        ids = torch.tensor([whole[row] + [0] * (width - len(whole[row])) for row in some], device=lm.device)
        logits = lm.model(ids, use_cache=False).logits[:, :-1].float()
        logits[..., list(forbidden)] = -torch.inf
        nats = logits.log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0].double().cpu().numpy()
        for row, values in zip(some, nats, strict=True):
            found[row] = values[len(parted[row][0]) - 1 : len(whole[row]) - 1]
    return found


def _padded(lm: UnitLM, items: list[LikelihoodRequest], *, tokens: int) -> Answer:
    encode = lm.vocabulary.encode
    parted = [(encode(item.context, bos=True), encode(item.target, bos=False, eos=item.eos)) for item in items]
    return [nats.sum(keepdims=True) for nats in padded_nats(lm, parted, tokens=tokens)]


def storycloze(size: Size, *, scale: int, device: str, padded: int | None = None) -> Case:
    """Build the work: pairs of one context of 120 to 260 units and two endings of 30 to 70."""
    shape, rng = SHAPES[size], np.random.default_rng(0)
    count = 2 if size == "tiny" else STORIES * shape.work * scale
    items = []
    for _ in range(count):
        context = _speech(rng, shape, 120, 261)
        items += [LikelihoodRequest(context, _speech(rng, shape, 30, 71), eos=False) for _ in range(2)]
    shown = f"{count} StoryCloze pairs: contexts of 120 to 260 units, endings of 30 to 70"
    return _case("storycloze", shown, shape, items, device, padded=padded)


def sblimp(size: Size, *, scale: int, device: str, padded: int | None = None) -> Case:
    """Build the work: pairs of sentences of 25 to 75 units without a context."""
    shape, rng = SHAPES[size], np.random.default_rng(0)
    count = 4 if size == "tiny" else SENTENCES * shape.work * scale
    items = [LikelihoodRequest([], _speech(rng, shape, 25, 76), eos=False) for _ in range(2 * count)]
    return _case("sblimp", f"{count} sBLIMP pairs of 25 to 75 units", shape, items, device, padded=padded)


def _case(
    stage: str, shown: str, shape: Shape, items: list[LikelihoodRequest], device: str, *, padded: int | None
) -> Case:
    """Return the case; the plain path is a pass an item, or of `padded` tokens, as one would write it for a GPU."""
    lm, exact = unit_lm(shape, device=device), shape.dtype is torch.float32
    plain = {"item by item": lambda: _item_by_item(lm, items)}
    if padded is not None:
        plain = {f"padded, {padded} tokens a pass": lambda: _padded(lm, items, tokens=padded)}
    return Case(
        stage=stage,
        shape=shown,
        model=lm.model,
        counted="pairs",
        amount=len(items) / 2,
        paths={"ours": lambda: _ours(lm, items), **plain},
        difference=max_abs_difference if exact else scaled_difference([len(item.target) ** -0.5 for item in items]),
        tolerance=1e-2 if exact else BF16_NATS,
        unit="nats an item" if exact else "nats per root of an item's units",
        cost=Cost(_flop(shape, items, vocab_size=lm.model.config.vocab_size), None),
    )


def _flop(shape: Shape, items: list[LikelihoodRequest], *, vocab_size: int) -> float:
    """Every context read once, every target after it."""
    heads = {tuple(item.context) for item in items}
    flop = sum(len(head) * token_flop(shape, vocab_size=vocab_size, positions=len(head) / 2) for head in heads)
    return flop + sum(
        len(item.target) * token_flop(shape, vocab_size=vocab_size, positions=len(item.context) + len(item.target) / 2)
        for item in items
    )
