"""Official benchmarks: listed, checked, and encoded shard by shard into the items table."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from alignslm import audio, tables
from alignslm.benchmarks.index import checked, refuse
from alignslm.benchmarks.layouts import find_numbered, find_salmon, find_storycloze
from alignslm.benchmarks.slm21 import find_slm21
from alignslm.config.benchmarks import (
    OfficialBenchmark,
    Salmon,
    Sblimp,
    SlamkitBenchmarkConfig,
    SpokenStoryCloze,
    Swuggy,
)
from alignslm.encoder import Encoded, Encoder
from alignslm.listing import Decoded, Listing, Place, decode, read_audio, until_a_problem
from alignslm.prompts import split_units
from alignslm.shards import map_shards
from alignslm.user_errors import Problem

NO_SAMPLES = np.zeros(0, np.float32)
NOT_ENCODED = Encoded(np.zeros(0, np.uint16), np.zeros(0, np.uint16))


def find_items(config: OfficialBenchmark) -> Listing:
    """List every recording of a release without reading audio, sorted by item.

    Raises BenchmarkError with every problem of the list: recordings that are missing, doubled, unnamed or unpaired.
    """
    return checked(_find(config))


def _find(config: OfficialBenchmark) -> Listing:
    match config:
        case Swuggy() | Sblimp():
            return find_slm21(config)
        case SpokenStoryCloze():
            return find_storycloze(config)
        case SlamkitBenchmarkConfig():
            return find_numbered(config)
        case Salmon():
            return find_salmon(config)


class _Recording(NamedTuple):
    """One item at the encoder's sample rate; the first `context_samples` of the waveform only condition."""

    waveform: np.ndarray
    context_samples: int
    sha256: str
    problem: str | None


def encode_found(found: Listing, encoder: Encoder, *, shard_size: int, work: Path) -> Iterator[pl.DataFrame]:
    """Yield the items table in shards; one shard of audio is in memory at a time, and saved in `work` once encoded.

    The audio itself stays where it is: the table keeps its hash and its units. Raises BenchmarkError at the end with
    every recording that is unreadable, empty, not finite, of several channels, or a whole story instead of an ending.
    """
    problems: list[Problem] = []
    shards = map_shards(
        found.rows,
        lambda rows: _encode_rows(rows, found.root, encoder),
        folder=work,
        shard_size=shard_size,
        label="benchmark",
    )
    for shard in until_a_problem(shards, problems):
        yield tables.conform(shard, tables.ITEMS)
    refuse(problems, where=found.root, total=len(found.rows))


def _encode_rows(rows: pl.DataFrame, root: Path, encoder: Encoder) -> pl.DataFrame:
    contract = encoder.contract
    places = [Place(root / file, row, column) for file, row, column in rows.select("file", "row", "column").iter_rows()]
    contexts = [(root / file).read_bytes() if file else None for file in rows["context_file"]]
    read = [
        _read(data, context, contract.sample_rate_hz)
        for data, context in zip(read_audio(places), contexts, strict=True)
    ]
    encoded = iter(encoder.encode([item.waveform for item in read if item.problem is None]))
    units: list[tuple[list[int], list[int]]] = []
    for item in read:
        found, durations = next(encoded) if item.problem is None else NOT_ENCODED
        end_s = item.context_samples / contract.sample_rate_hz
        units.append(split_units(found.tolist(), durations.tolist(), end_s=end_s, frame_rate_hz=contract.frame_rate_hz))
    paths = rows["file"] + ("#" + rows["row"].cast(pl.String) + "/" + rows["column"]).fill_null("")
    return rows.with_columns(
        pl.Series("context_units", [context for context, _ in units], tables.UNITS),
        pl.Series("units", [target for _, target in units], tables.UNITS),
        pl.Series("num_samples", [len(item.waveform) for item in read], pl.Int64),
        pl.Series("audio_sha256", [item.sha256 for item in read], pl.String),
        pl.Series("audio", [{"bytes": None, "path": path} for path in paths], tables.AUDIO),
        pl.Series("problem", [item.problem for item in read], pl.String),
        pl.col("item_id").alias("place"),
    )


def _read(data: bytes | None, context: bytes | None, sample_rate_hz: int) -> _Recording:
    ending = decode(data)
    before = Decoded(NO_SAMPLES, sample_rate_hz, None) if context is None else decode(context)
    sha256 = hashlib.sha256((context or b"") + (data or b"")).hexdigest()
    if problem := ending.problem or before.problem:
        return _Recording(NO_SAMPLES, 0, sha256, problem)
    tail, head = (
        audio.resample(part.waveform, from_hz=part.sample_rate_hz, to_hz=sample_rate_hz) for part in (ending, before)
    )
    whole = context is not None and audio.begins_with(tail, head)
    problem = "begins with its own mutual file: a whole story, where an ending is expected" if whole else None
    return _Recording(np.concatenate([head, tail]), len(head), sha256, problem)
