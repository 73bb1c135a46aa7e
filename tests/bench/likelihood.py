"""Likelihoods of benchmark pairs: against one forward pass an item."""

import numpy as np
import torch

from alignslm.lm.checkpoint import UnitLM
from alignslm.lm.likelihood import LikelihoodRequest, unit_log_likelihoods
from tests.bench.case import Answer, Case, Cost, max_abs_difference
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


def storycloze(size: Size, *, scale: int, device: str) -> Case:
    """Build the work: pairs of one context of 120 to 260 units and two endings of 30 to 70."""
    shape, rng = SHAPES[size], np.random.default_rng(0)
    count = 2 if size == "tiny" else STORIES * shape.work * scale
    items = []
    for _ in range(count):
        context = _speech(rng, shape, 120, 261)
        items += [LikelihoodRequest(context, _speech(rng, shape, 30, 71), eos=False) for _ in range(2)]
    shown = f"{count} StoryCloze pairs: contexts of 120 to 260 units, endings of 30 to 70"
    return _case("storycloze", shown, shape, items, device)


def sblimp(size: Size, *, scale: int, device: str) -> Case:
    """Build the work: pairs of sentences of 25 to 75 units without a context."""
    shape, rng = SHAPES[size], np.random.default_rng(0)
    count = 4 if size == "tiny" else SENTENCES * shape.work * scale
    items = [LikelihoodRequest([], _speech(rng, shape, 25, 76), eos=False) for _ in range(2 * count)]
    return _case("sblimp", f"{count} sBLIMP pairs of 25 to 75 units", shape, items, device)


def _case(stage: str, shown: str, shape: Shape, items: list[LikelihoodRequest], device: str) -> Case:
    lm = unit_lm(shape, device=device)
    return Case(
        stage=stage,
        shape=shown,
        model=lm.model,
        counted="pairs",
        amount=len(items) / 2,
        paths={"ours": lambda: _ours(lm, items), "item by item": lambda: _item_by_item(lm, items)},
        difference=max_abs_difference,
        tolerance=1e-2 if shape.dtype is torch.float32 else 5.0,  # nats of some fifty units; bfloat16 has 8 bits
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
