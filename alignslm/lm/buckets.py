"""Exact-length batches: no padding, so a row's result cannot depend on its neighbours' lengths."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any


def exact_length_batches(sequences: Sequence[Sequence[Any]], *, batch_rows: int) -> Iterator[list[int]]:
    """Yield lists of at most `batch_rows` indices whose sequences have equal length, shortest first."""
    by_length: dict[int, list[int]] = defaultdict(list)
    for index, sequence in enumerate(sequences):
        by_length[len(sequence)].append(index)
    for length in sorted(by_length):
        rows = by_length[length]
        for start in range(0, len(rows), batch_rows):
            yield rows[start : start + batch_rows]
