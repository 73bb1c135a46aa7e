"""Discrete speech units: run-length deduplication and the map between unit numbers and model token ids."""

from collections.abc import Sequence

import numpy as np

from alignslm.config.model import Config, Count, PositiveCount


def deduplicate(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Collapse consecutive repeats: (frames,) -> units (runs,) uint16 and durations (runs,) uint16 in frames.

    Inverse of `expand`. A run longer than 65535 frames raises ValueError (45 minutes at 25 Hz: not speech).
    """
    if frames.ndim != 1:
        raise ValueError(f"frames must be one-dimensional, got shape {frames.shape}")
    if frames.size == 0:
        return np.zeros(0, np.uint16), np.zeros(0, np.uint16)
    starts = np.flatnonzero(np.concatenate(([True], frames[1:] != frames[:-1])))
    durations = np.diff(np.concatenate((starts, [frames.size])))
    if durations.max() > np.iinfo(np.uint16).max:
        raise ValueError(f"one unit repeats for {durations.max()} frames; the audio is silent or corrupt")
    return frames[starts].astype(np.uint16), durations.astype(np.uint16)


def expand(units: Sequence[int] | np.ndarray, durations: Sequence[int] | np.ndarray) -> np.ndarray:
    """Repeat every unit for its duration in frames. Inverse of `deduplicate`."""
    return np.repeat(np.asarray(units, np.uint16), np.asarray(durations, np.int64))


class UnitVocabulary(Config):
    """How a language model numbers units: token id = unit + offset; special tokens are outside that range.

    `bos_id` None means prompts start with their first unit (TWIST); then the first unit is never scored.
    """

    num_units: PositiveCount
    offset: Count
    bos_id: int | None
    eos_id: int | None
    pad_id: int

    def encode(self, units: Sequence[int] | np.ndarray, *, bos: bool, eos: bool = False) -> list[int]:
        """Turn units into token ids; `bos` and `eos` add the special token if the vocabulary has one."""
        ids = [int(unit) + self.offset for unit in units]
        if ids and not (self.offset <= min(ids) and max(ids) < self.offset + self.num_units):
            raise ValueError(f"units must be in [0, {self.num_units}), got {min(units)}..{max(units)}")
        head = [self.bos_id] if bos and self.bos_id is not None else []
        tail = [self.eos_id] if eos and self.eos_id is not None else []
        return head + ids + tail

    def decode(self, ids: Sequence[int]) -> list[int]:
        """Turn token ids into units. A special token among them is an error: strip specials first."""
        units = [int(i) - self.offset for i in ids]
        if any(not 0 <= unit < self.num_units for unit in units):
            raise ValueError(f"token ids {[i for i in ids if not 0 <= i - self.offset < self.num_units]} are not units")
        return units
