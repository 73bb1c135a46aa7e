"""Benchmark items as a table: spoken, encoded, paired by key."""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import polars as pl

from alignslm import audio, tables
from alignslm.benchmarks import BenchmarkError
from alignslm.encoder import Encoder
from alignslm.prompts import split_units
from alignslm.provenance import content_id


class SpokenItem(NamedTuple):
    """One side of a pair, spoken. `context_end_s` says where the part that only conditions ends, None: nowhere."""

    pair_id: str
    polarity: str
    subtype: str
    voice: str
    text: str | None
    waveform: np.ndarray
    context_end_s: float | None


def item_id(pair_id: str, polarity: str) -> str:
    """Return the key of one side of a pair."""
    return content_id(pair_id, polarity)


def encode_items(spoken: Sequence[SpokenItem], encoder: Encoder, *, sample_rate_hz: int) -> pl.DataFrame:
    """Encode items into rows of the items table. Context and target end at a run boundary (see `prompts.cut_at`)."""
    rate = encoder.contract.sample_rate_hz
    encoded = encoder.encode([audio.resample(item.waveform, from_hz=sample_rate_hz, to_hz=rate) for item in spoken])
    rows = []
    for item, (units, durations) in zip(spoken, encoded, strict=True):
        end_s = item.context_end_s or 0.0
        context, target = split_units(
            units.tolist(), durations.tolist(), end_s=end_s, frame_rate_hz=encoder.contract.frame_rate_hz
        )
        name = item_id(item.pair_id, item.polarity)
        flac = audio.encode_flac(item.waveform, sample_rate_hz)
        rows.append(
            {
                "item_id": name,
                "pair_id": item.pair_id,
                "polarity": item.polarity,
                "subtype": item.subtype,
                "voice": item.voice,
                "text": item.text,
                "context_units": context,
                "units": target,
                "num_samples": len(item.waveform),
                "audio_sha256": hashlib.sha256(flac).hexdigest(),
                "audio": {"bytes": flac, "path": f"{name}.flac"},
            }
        )
    return tables.conform(pl.DataFrame(rows, schema=dict(tables.ITEMS.schema)), tables.ITEMS)


def incomplete_pairs(items: pl.DataFrame) -> pl.DataFrame:
    """Return every (pair_id, voice, sides) that is not one positive and one negative of one type and subtype."""
    sides = items.group_by("pair_id", "voice").agg(
        sides=pl.col("polarity").sort().str.join("+"), kinds=pl.struct("type", "subtype").n_unique()
    )
    odd = sides.filter((pl.col("sides") != "negative+positive") | (pl.col("kinds") != 1))
    return odd.sort("pair_id", "voice").drop("kinds")


def paired(items: pl.DataFrame) -> pl.DataFrame:
    """Join the positive and the negative of every pair in every voice; never by position.

    Raises BenchmarkError listing the pairs that are not one positive and one negative of one subtype.
    """
    faults = incomplete_pairs(items)
    if len(faults):
        listed = "; ".join(f"{pair} (voice {voice!r}): {found}" for pair, voice, found in faults.head(5).iter_rows())
        total = items.n_unique(["pair_id", "voice"])
        raise BenchmarkError(f"{len(faults)} of {total} pairs are not one positive and one negative ({listed})")
    positive, negative = (items.filter(pl.col("polarity") == side) for side in ("positive", "negative"))
    joined = positive.join(negative, on=["pair_id", "voice"], suffix="_negative", validate="1:1")
    return joined.sort("pair_id", "voice")
