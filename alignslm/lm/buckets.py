"""Batches in which a row's result cannot depend on other rows: its shape depends only on itself."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")
TOKENS_AT_ONCE = 4096  # keeps a GPU busy; more would exceed a CPU's caches
STEP = 8


def padded_length(length: int, *, room: int) -> int:
    """Return the next multiple of STEP, at most `room`: it depends only on the row, yet many rows share it."""
    return min(room, -(-length // STEP) * STEP)


def sliced(rows: Sequence[T], *, length: int, batch_size: int) -> Iterator[Sequence[T]]:
    """Yield consecutive rows of `length` tokens each: at most `batch_size`, and about TOKENS_AT_ONCE tokens."""
    size = max(1, min(batch_size, TOKENS_AT_ONCE // max(1, length)))
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def grouped(rows: Iterable[T], keys: Iterable[int]) -> dict[int, list[T]]:
    """Collect the rows of each key, in order."""
    groups: dict[int, list[T]] = defaultdict(list)
    for row, key in zip(rows, keys, strict=True):
        groups[key].append(row)
    return groups
