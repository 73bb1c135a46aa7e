"""A key-value cache that grows in place: that of transformers copies all of its content at every new unit."""

import torch
from transformers import Cache, PreTrainedModel
from transformers.cache_utils import DynamicLayer


class PreallocatedLayer(DynamicLayer):
    """A dynamic layer whose keys and values are views into buffers with room for `capacity` positions.

    Same values as DynamicLayer. Selecting or repeating rows leaves the buffers; the next update takes new ones.
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

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat every row `repeats` times, copies side by side."""
        super().batch_repeat_interleave(repeats)
        self.room = None

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep the rows at `indices`."""
        super().batch_select_indices(indices)
        self.room = None


def preallocated_cache(model: PreTrainedModel, *, capacity: int) -> Cache:
    """Return an empty cache for `model` with room for `capacity` positions per row."""
    return Cache(layers=[PreallocatedLayer(capacity) for _ in range(model.config.num_hidden_layers)])
