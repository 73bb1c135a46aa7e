"""Utterances in, units out, row by row (paper, section 3, step 1)."""

import polars as pl

from alignslm import tables
from alignslm.encoder import Encoder
from alignslm.utterances import waveforms_at


def encode_utterances(utterances: pl.DataFrame, encoder: Encoder) -> pl.DataFrame:
    """Turn rows of the utterances table into rows of the units table."""
    encoded = encoder.encode(waveforms_at(utterances["audio"], encoder.contract.sample_rate_hz))
    return utterances.select(
        "utterance_id",
        "split",
        pl.Series("units", [item.units.tolist() for item in encoded], tables.UNITS),
        pl.Series("durations", [item.durations.tolist() for item in encoded], tables.UNITS),
    )
