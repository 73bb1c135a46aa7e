"""The cache of a causal model: keys and values of every position, or a state.

Keys and values can be padded and cropped. A state, as of Mamba and of the hybrids of today, is overwritten by every
token: rows are read in equal lengths, and sequences with a common beginning are each read from their first token.
"""

import inspect
import sys
from collections.abc import Sequence
from copy import copy

import torch
from transformers import Cache, DynamicCache, PreTrainedConfig, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer


class UnsupportedModelError(ValueError):
    """A model's cache cannot be used: continuations would ignore what came before."""


def keeps_states(model: PreTrainedModel) -> bool:
    """Return whether some layer keeps anything else than keys and values."""
    try:
        layers = DynamicCache(config=model.config).layers
    except KeyError:  # a kind of layer that transformers' own cache does not know
        return True
    plain = all(type(layer) in {DynamicLayer, DynamicSlidingWindowLayer} for layer in layers)
    return bool(model._is_stateful) or not plain or not accepts(model, "past_key_values")  # noqa: SLF001 - no getter


def accepts(model: PreTrainedModel, argument: str) -> bool:
    """Return whether a model's forward pass has an argument of this name."""
    return argument in inspect.signature(type(model).forward).parameters


def has_window(model: PreTrainedModel) -> bool:
    """Return whether some layers see only the last so many positions, among which padding would count."""
    config = model.config.get_text_config()
    kinds = getattr(config, "layer_types", None) or ["sliding_attention"]
    return getattr(config, "sliding_window", None) is not None and "sliding_attention" in kinds


def after_padding(lengths: torch.Tensor, *, held: int, new: int) -> dict[str, torch.Tensor]:
    """Return what lets `new` tokens of a row follow the first `lengths` (rows,) of the `held` positions in a cache.

    `attention_mask` (rows, held + new) hides the padding between them; `position_ids` (rows, new) do not count it.
    """
    real, device = lengths[:, None], lengths.device
    mask = torch.ones(len(lengths), held + new, dtype=torch.long, device=device)
    mask[:, :held] = (torch.arange(held, device=device) < real).long()
    return {"attention_mask": mask, "position_ids": real + torch.arange(new, device=device)}


def selected_rows(cache: Cache, rows: torch.Tensor) -> Cache:
    """Copy rows of a cache; the original stays as it is."""
    chosen = copy(cache)
    chosen.layers = [copy(layer) for layer in cache.layers]
    chosen.batch_select_indices(rows)
    return chosen


def max_positions(config: PreTrainedConfig) -> int:
    """Return how many tokens a model can read; a model whose config names no limit has none (sys.maxsize)."""
    limit = getattr(config, "max_position_embeddings", None)
    return sys.maxsize if limit is None else int(limit)


def state_cache(model: PreTrainedModel) -> dict[str, Cache]:
    """Return transformers' own cache for a model, empty, under the name that its forward pass takes it by.

    Raises UnsupportedModelError if it takes none.
    """
    for argument in ("past_key_values", "cache_params"):
        if accepts(model, argument):
            return {argument: DynamicCache(config=model.config)}
    raise UnsupportedModelError(
        f"{type(model).__name__} does not take transformers' cache of what it has read, so continuations cannot be "
        "drawn. Choose another model, with attention or with states in that cache, such as Llama, Mamba or Qwen3-Next."
    )


def left_padded(ids: Sequence[Sequence[int]], pad_id: int, *, width: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ids (rows, longest or `width`), padded on the left, and a mask of this shape: 1 for real ones."""
    width = max(width, *map(len, ids))
    padded = [[pad_id] * (width - len(row)) + list(row) for row in ids]
    mask = [[0] * (width - len(row)) + [1] * len(row) for row in ids]
    return torch.tensor(padded), torch.tensor(mask)
