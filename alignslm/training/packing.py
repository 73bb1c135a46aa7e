"""Both sides of a pair in one row, so that a model reads once what they have in common: the prompt.

A row is the chosen side with its prompt, then what the rejected side has beyond their common beginning. That does not
see what the chosen side has beyond it, and its positions go on from there. A causal model's states are then those of
the two rows apart, and are put back in their places before its head: losses notice nothing.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicSlidingWindowLayer

from alignslm.buckets import rounded
from alignslm.lm.probe import AGREEMENT, FAULTS
from alignslm.model_cache import UnsupportedModelError, accepts
from alignslm.training.passes import ignores_right_padding, unadapted


@dataclass(frozen=True)
class PackedPairs:
    """Ids and positions (pairs, width), what each position sees (pairs, 1, width, width), and places.

    `places` (2 x pairs, length) tells where in its packed row a token of a plain row is.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    seen: torch.Tensor
    places: torch.Tensor


def pack_pairs(ids: torch.Tensor, mask: torch.Tensor, *, multiple_of: int = 1) -> PackedPairs:
    """Pack rows (2 x pairs, length) padded on the right, chosen sides first; `mask` is 1 for real tokens."""
    chosen, rejected = ids.chunk(2)
    num_chosen, num_rejected = (part.sum(dim=1, keepdim=True) for part in mask.chunk(2))
    alike = (chosen == rejected) & mask.bool().chunk(2)[0] & mask.bool().chunk(2)[1]
    shared = alike.long().cumprod(dim=1).sum(dim=1, keepdim=True)
    longest = int((num_chosen + num_rejected - shared).max())
    width, length = rounded(longest, multiple_of), ids.shape[1]
    at = torch.arange(width, device=ids.device)
    second = at >= num_chosen
    positions = torch.where(second, at - num_chosen + shared, at).clamp(max=length - 1)
    hidden = second[:, :, None] & ((at >= shared) & (at < num_chosen))[:, None, :]
    plain = torch.arange(length, device=ids.device).expand(len(chosen), length)
    moved = torch.where(plain < shared, plain, plain - shared + num_chosen)
    return PackedPairs(
        ids=torch.where(second, rejected.gather(1, positions), chosen.gather(1, positions)),
        positions=positions,
        seen=((at[:, None] >= at) & ~hidden)[:, None],
        places=torch.cat([plain, moved]).clamp(max=width - 1),
    )


@contextlib.contextmanager
def reading_packed(model: torch.nn.Module, inputs: dict[str, torch.Tensor], *, multiple_of: int = 1) -> Iterator[None]:
    """Let a model read packed rows when it is given those of `inputs`, and answer as if it had read these."""
    packed = pack_pairs(inputs["input_ids"], inputs["attention_mask"], multiple_of=multiple_of)
    base: Any = unadapted(model)
    seen, rows = packed.seen, torch.arange(len(packed.ids), device=packed.ids.device).repeat(2).unsqueeze(1)
    if base.config._attn_implementation == "eager":  # noqa: SLF001 - has no getter; adds masks to logarithms
        seen = torch.zeros(seen.shape, dtype=base.dtype, device=seen.device).masked_fill(~seen, -torch.inf)
    replaced = {"input_ids": packed.ids, "attention_mask": seen, "position_ids": packed.positions}

    def before(_model: torch.nn.Module, args: Any, given: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return args[1:], given | replaced  # some architectures give their ids by place

    def after(_model: torch.nn.Module, _args: object, found: Any) -> None:
        found.last_hidden_state = found.last_hidden_state[rows, packed.places]

    hooks = [
        base.base_model.register_forward_pre_hook(before, with_kwargs=True),
        base.base_model.register_forward_hook(after),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def require_packable(model: PreTrainedModel) -> None:
    """Raise UnsupportedModelError if a model would not read packed rows as it reads plain ones: two pairs are tried."""
    windows = any(isinstance(layer, DynamicSlidingWindowLayer) for layer in DynamicCache(config=model.config).layers)
    if windows or not ignores_right_padding(model) or not accepts(model, "position_ids") or not _reads_packed(model):
        raise UnsupportedModelError(
            f"pack_pairs: true in the trainer's YAML needs a model whose every position reads all before it, and "
            f"{type(model).__name__} keeps states, looks back a window only, balances experts or does not go by the "
            "positions it is given. Set pack_pairs to false: results do not change."
        )


@torch.no_grad()
def _reads_packed(model: PreTrainedModel) -> bool:
    ids = torch.arange(4 * 6).reshape(4, 6) % min(model.config.get_text_config().vocab_size, 7)
    ids[2:, :2] = ids[:2, :2]  # what two sides have in common
    inputs = {"input_ids": ids.to(model.device), "attention_mask": torch.ones_like(ids).to(model.device)}
    plain = model(**inputs, use_cache=False).logits.float().log_softmax(-1)
    try:
        with reading_packed(model, inputs):
            packed = model(**inputs, use_cache=False).logits.float().log_softmax(-1)
    except FAULTS:
        return False
    return bool((packed - plain).abs().mean() <= AGREEMENT[model.dtype])
