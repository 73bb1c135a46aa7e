"""Audio of utterances: decoding cells, reading the wanted ones, choosing which to fit on."""

from collections.abc import Collection, Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl

from alignslm import audio, tables
from alignslm.provenance import content_id
from alignslm.threads import thread_map


def decode_at(record: dict[str, bytes], sample_rate_hz: int) -> np.ndarray:
    """Decode an audio cell ({bytes, path}) and resample it to the rate a model wants. No bytes: no samples."""
    if not record["bytes"]:
        return np.zeros(0, np.float32)
    waveform, found_hz = audio.decode(record["bytes"])
    return audio.resample(waveform, from_hz=found_hz, to_hz=sample_rate_hz)


def waveforms_at(cells: Iterable[dict[str, bytes]], sample_rate_hz: int) -> list[np.ndarray]:
    """Decode audio cells as `decode_at` does, side by side: libsndfile lets go of the interpreter."""
    return thread_map(partial(decode_at, sample_rate_hz=sample_rate_hz), cells)


def iter_audio_cells(path: Path, utterance_ids: Collection[str]) -> Iterator[pl.DataFrame]:
    """Yield utterance_id and audio cell of those wanted utterances that the table holds, one file of it at a time.

    `path` is the utterances table or one of its files. Audio is only read from files with a wanted utterance: a
    corpus may be large.
    """
    if not utterance_ids:  # a published model needs none, and there may be no corpus
        return
    wanted = pl.DataFrame({"utterance_id": list(utterance_ids)}, schema={"utterance_id": pl.String})
    for part in tables.parts(path):
        here = tables.read(tables.UTTERANCES, part, ["utterance_id"])
        if not here.join(wanted, on="utterance_id", how="semi").is_empty():
            cells = tables.read(tables.UTTERANCES, part, ["utterance_id", "audio"])
            yield cells.join(wanted, on="utterance_id", how="semi", maintain_order="left")


def iter_waveforms(path: Path, utterance_ids: Collection[str], sample_rate_hz: int) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (utterance_id, waveform) of the wanted utterances, as `iter_audio_cells` reads them."""
    for cells in iter_audio_cells(path, utterance_ids):
        for utterance_id, record in cells.iter_rows():
            yield utterance_id, decode_at(record, sample_rate_hz)


def select_by_hash(utterances: pl.DataFrame, split: str, count: int, purpose: str) -> list[str]:
    """Choose `count` utterance ids of a split by hash, so a larger count includes the ids of a smaller one."""
    ids = utterances.filter(pl.col("split") == split)["utterance_id"].to_list()
    return sorted(ids, key=lambda name: content_id(purpose, name))[:count]


def speech_cells(speech: Path, continuation_ids: Collection[str]) -> pl.DataFrame:
    """Return continuation_id and audio cell of the wanted continuations in a speech table; only their audio is read."""
    wanted = pl.scan_parquet(tables.parts(speech)).filter(pl.col("continuation_id").is_in(list(continuation_ids)))
    return wanted.select("continuation_id", "audio").collect()
