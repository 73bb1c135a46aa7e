"""Recorded utterances cut into prompt and continuation, for comparison with synthetic speech."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from alignslm import audio, tables
from alignslm.provenance import content_id
from alignslm.utterances import iter_audio_cells


class Recording(NamedTuple):
    """One prompt's utterance as recorded: the prompt and the true continuation, (samples,) float32 each."""

    prompt_id: str
    prompt: np.ndarray
    continuation: np.ndarray
    sample_rate_hz: int


def listening_sort_key(prompt_id: str) -> str:
    """Return the sort key by which listeners and predictors get the same few prompts."""
    return content_id("heard", prompt_id)


def recordings_of(utterances: Path, prompts: pl.DataFrame) -> Iterator[Recording]:
    """Yield the recordings of prompts as `recordings_in` does; TableError if an utterance is missing."""
    known = tables.read(tables.UTTERANCES, utterances, ["utterance_id"])
    missing = prompts.join(known, on="utterance_id", how="anti")["utterance_id"]
    if len(missing):
        raise tables.TableError(
            f"{utterances}: {missing.n_unique()} utterances of prompts are absent, first {missing.min()!r}"
        )
    yield from recordings_in(utterances, prompts)


def recordings_in(utterances: Path, prompts: pl.DataFrame) -> Iterator[Recording]:
    """Yield the recordings of prompts (prompt_id, utterance_id, end_s) with utterances in the table.

    Cut at `end_s`, to the sample; several prompts may be cut from one utterance. `utterances` is the table or one of
    its files, of which one is in memory at a time, and only those that prompts need.
    """
    wanted = prompts.select("prompt_id", "utterance_id", "end_s")
    for cells in iter_audio_cells(utterances, set(wanted["utterance_id"])):
        found = wanted.join(cells, on="utterance_id", how="inner", maintain_order="left")
        for prompt_id, _, end_s, record in found.iter_rows():
            waveform, rate_hz = audio.decode(record["bytes"])
            at = round(end_s * rate_hz)
            yield Recording(prompt_id, waveform[:at], waveform[at:], rate_hz)
