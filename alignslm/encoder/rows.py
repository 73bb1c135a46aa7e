"""Utterances in, units out, row by row (paper, section 3, step 1)."""

from functools import partial

import polars as pl

from alignslm import tables
from alignslm.encoder import Encoder
from alignslm.threads import side_by_side
from alignslm.utterances import decode_at


def encode_utterances(utterances: pl.DataFrame, encoder: Encoder) -> pl.DataFrame:
    """Turn rows of the utterances table into rows of the units table."""
    waveforms = side_by_side(partial(decode_at, sample_rate_hz=encoder.contract.sample_rate_hz), utterances["audio"])
    encoded = encoder.encode(waveforms)
    return utterances.select(
        "utterance_id",
        "split",
        pl.Series("units", [item.units.tolist() for item in encoded], tables.UNITS),
        pl.Series("durations", [item.durations.tolist() for item in encoded], tables.UNITS),
    )
