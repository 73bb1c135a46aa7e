"""Measures of spoken continuations that need neither text nor judge: silence, and units that do not survive speech."""

import numpy as np
import polars as pl
from rapidfuzz.distance import Levenshtein

from alignslm.encoder import Encoder
from alignslm.utterances import waveforms_at

FRAME_S = 0.02
BELOW_LOUDEST_DB = 40.0
FLOOR_DBFS = -60.0
SCHEMA = {"continuation_id": pl.String, "silence_ratio": pl.Float64, "unit_error_rate": pl.Float64}


def silence_ratio(waveform: np.ndarray, sample_rate_hz: int) -> float | None:
    """Return the fraction of (samples,) in silent frames; None if there are no samples.

    A frame of 20 ms is silent when its power is 40 dB below the loudest frame's, or below -60 dB full scale. The
    first is what listeners perceive as a pause at any loudness; the second makes a hiss all silence.
    """
    if not waveform.size:
        return None
    starts = np.arange(0, waveform.size, max(1, round(FRAME_S * sample_rate_hz)))
    sizes = np.diff(starts, append=waveform.size)
    power = np.add.reduceat(waveform.astype(np.float64) ** 2, starts) / sizes
    least = max(power.max() * 10 ** (-BELOW_LOUDEST_DB / 10), 10 ** (FLOOR_DBFS / 10))
    return float(sizes[power < least].sum() / waveform.size)


def measure_speech(speech: pl.DataFrame, spoken: pl.DataFrame, encoder: Encoder) -> pl.DataFrame:
    """Return continuation_id, silence_ratio and unit_error_rate of SPEECH rows; `spoken` has their units.

    `unit_error_rate` is the edit distance between the synthesized units and those that the encoder finds in the
    sound, over the number spoken: what vocoder and encoder lose between them, without any reference text. Above 1 where
    the audio has more units than intended. Null if nothing was synthesized.
    """
    rate_hz = encoder.contract.sample_rate_hz
    waveforms = waveforms_at(speech["audio"], rate_hz)
    meant = speech.select("continuation_id").join(
        spoken.select("continuation_id", "units"), on="continuation_id", validate="1:1", maintain_order="left"
    )
    encoded = iter(encoder.encode([waveform for waveform in waveforms if waveform.size]))
    errors = [
        _unit_error(next(encoded).units.tolist(), units) if waveform.size else None
        for waveform, units in zip(waveforms, meant["units"].to_list(), strict=True)
    ]
    rows = {
        "continuation_id": meant["continuation_id"],
        "silence_ratio": [silence_ratio(waveform, rate_hz) for waveform in waveforms],
        "unit_error_rate": errors,
    }
    return pl.DataFrame(rows, schema=SCHEMA)


def _unit_error(heard: list[int], meant: list[int]) -> float | None:
    return Levenshtein.distance(heard, meant) / len(meant) if meant else None
