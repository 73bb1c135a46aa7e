"""Predicted scores of a system's clips, row by row: nothing is dropped, everything has a status."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

import numpy as np
import polars as pl

from alignslm import tables
from alignslm.mos import MOSPrediction, MOSPredictor
from alignslm.recordings import listening_sort_key

T = TypeVar("T")
BLOCK = 64  # clips decoded at once
SKIPPED = MOSPrediction("skipped", None)


def select_clips(clips: pl.DataFrame, max_clips: int | None) -> list[str]:
    """Choose clips (source_id, prompt_id, sample_index) by their prompts' hash, first samples first.

    Systems that answer the same prompts are so compared on the same prompts, whatever their own ids; a larger count
    includes those of a smaller one.
    """
    order = sorted(
        clips.select("sample_index", "prompt_id", "source_id").iter_rows(),
        key=lambda clip: (clip[0], listening_sort_key(clip[1]), clip[2]),
    )
    return [source_id for _, _, source_id in order[:max_clips]]


def rate(
    clips: pl.DataFrame,
    heard: Sequence[str],
    sounds: Iterable[tuple[str, np.ndarray]],
    predictor: MOSPredictor,
    *,
    system: str,
) -> pl.DataFrame:
    """Rate a system's clips (source_id, prompt_id, sample_index): rows of the MOS table, one per clip and metric.

    `sounds` gives (source_id, waveform) of the `heard` clips at the predictor's rate, in any order. The other clips
    are status `skipped`. TableError if a clip to be rated has no sound.
    """
    opinions: dict[str, MOSPrediction] = {}
    for block in batched(sounds, BLOCK):
        predictions = predictor.predict([waveform for _, waveform in block])
        opinions |= zip((source_id for source_id, _ in block), predictions, strict=True)
    if silent := set(heard) - opinions.keys():
        raise tables.TableError(f"{len(silent)} clips of {system!r} have no sound to rate, first {min(silent)!r}")
    unmeasured = (None,) * len(predictor.metrics)
    rows = [
        (system, source_id, prompt_id, metric, value, opinion.status)
        for source_id, prompt_id in clips.select("source_id", "prompt_id").iter_rows()
        for opinion in (opinions.get(source_id, SKIPPED),)
        for metric, value in zip(predictor.metrics, opinion.values or unmeasured, strict=True)
    ]
    return tables.conform(pl.DataFrame(rows, schema=dict(tables.MOS.schema), orient="row"), tables.MOS)


def batched(items: Iterable[T], size: int) -> Iterator[tuple[T, ...]]:
    """Yield tuples of `size` items, the last perhaps shorter."""
    iterator = iter(items)
    while block := tuple(islice(iterator, size)):
        yield block
