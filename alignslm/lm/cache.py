"""Reading prompts and then unit by unit, with a key-value cache that grows in place.

The one in transformers copies all of its content at every new unit. Models with states use the one in transformers.
"""

from typing import Any

import torch
from transformers import Cache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from alignslm.model_cache import accepts, keeps_states, state_cache


class PreallocatedLayer(DynamicLayer):
    """A dynamic layer with keys and values as views into buffers for `capacity` positions.

    Same values as DynamicLayer. Reordering rows leaves the buffers; the next update takes new ones.
    """

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity = capacity
        self.room: tuple[torch.Tensor, torch.Tensor] | None = None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: object, **__: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append (rows, heads, new, width) states; return all keys and values so far."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        if self.room is None or self.room[0].shape[-2] < end:
            self.room = (
                self._roomier(self.keys, key_states, start, end),
                self._roomier(self.values, value_states, start, end),
            )
        for room, new in zip(self.room, (key_states, value_states), strict=True):
            room[:, :, start:end] = new
        self.keys, self.values = self.room[0][:, :, :end], self.room[1][:, :, :end]
        return self.keys, self.values

    def _roomier(self, held: torch.Tensor | None, new: torch.Tensor, start: int, end: int) -> torch.Tensor:
        rows, heads, _, width = new.shape
        room = new.new_empty(rows, heads, max(self.capacity, end), width)
        if start and held is not None:
            room[:, :, :start] = held
        return room

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        """Keep the rows of these numbers, in their order; a row may come back repeatedly."""
        super().reorder_cache(beam_idx)
        self.room = None


class RowReader:
    """Reads a batch of prompts, then more tokens of every row; rows can be repeated, reordered and dropped between.

    Prompts are padded on the left, see `left_padded`. A model that keeps states wants prompts of equal length.
    """

    def __init__(self, model: PreTrainedModel, *, capacity: int) -> None:
        self.model, self._states = model, keeps_states(model)
        self._cache = state_cache(model) if self._states else {"past_key_values": _roomy_cache(model, capacity)}
        self._mask: torch.Tensor | None = None

    def read(self, tokens: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Read (rows, new) tokens, of which a mask of equal shape says what is real; return fp32 logits after the last.

        The logits are (rows, vocabulary).
        """
        new = torch.ones_like(tokens) if mask is None else mask
        self._mask = new if self._mask is None else torch.cat([self._mask, new], dim=-1)
        given: dict[str, Any] = {"position_ids": (self._mask.cumsum(dim=-1) - 1).clamp(min=0)[:, -tokens.shape[1] :]}
        if self._states:
            given = given if accepts(self.model, "position_ids") else {}
        else:
            given |= {"attention_mask": self._mask, "logits_to_keep": 1}
        return self.model(tokens, use_cache=True, **given, **self._cache).logits[:, -1].float()

    def select(self, rows: Any) -> None:
        """Go on with the rows of these numbers (tensor), in their order."""
        for cache in self._cache.values():
            cache.reorder_cache(rows)
        self._mask = None if self._mask is None else self._mask[rows]


def _roomy_cache(model: PreTrainedModel, capacity: int) -> Cache:
    return Cache(layers=[PreallocatedLayer(capacity) for _ in range(model.config.num_hidden_layers)])
