"""Official benchmarks: listed, checked, and encoded shard by shard into the items table."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from alignslm import audio, tables
from alignslm.benchmarks.index import Found, checked, fingerprint, refuse
from alignslm.config.benchmarks import OfficialBenchmark, Reformatted, Salmon, Sblimp, SpokenStoryCloze, Swuggy
from alignslm.encoder import Encoded, Encoder
from alignslm.failures import Problem
from alignslm.prompts import cut
from alignslm.shards import map_shards

NOT_ENCODED = Encoded(np.zeros(0, np.uint16), np.zeros(0, np.uint16))


def find_items(config: OfficialBenchmark) -> Found:
    """List every recording of a release without reading audio, sorted by item.

    Raises ItemError with every problem of the list: recordings that are missing, doubled, unnamed or without a partner.
    """
    return checked(_find(config))


def _find(config: OfficialBenchmark) -> Found:
    match config:
        case Swuggy() | Sblimp():
            from alignslm.benchmarks import slm21

            return slm21.find(config)
        case SpokenStoryCloze():
            from alignslm.benchmarks import storycloze

            return storycloze.find(config)
        case Reformatted():
            from alignslm.benchmarks import numbered

            return numbered.find(config)
        case Salmon():
            from alignslm.benchmarks import salmon

            return salmon.find(config)


class _Recording(NamedTuple):
    """What was read of one item, at the encoder's sample rate; `context_samples` of the waveform only condition."""

    waveform: np.ndarray
    context_samples: int
    sha256: str
    problem: str | None


def encode_found(found: Found, encoder: Encoder, *, shard_rows: int, work: Path) -> Iterator[pl.DataFrame]:
    """Yield the items table in shards; one shard of audio is in memory at a time, and durable in `work` once encoded.

    The audio itself stays where it is: the table keeps its hash and its units. Raises ItemError at the end with every
    recording that is unreadable, empty, not finite, of several channels, or a whole story beside its beginning.
    """
    problems: list[Problem] = []
    shards = map_shards(
        found.rows,
        lambda rows: _encode_rows(rows, found.root, encoder),
        folder=work,
        shard_rows=shard_rows,
        label="benchmark",
    )
    for shard in shards:
        wrong = shard.filter(pl.col("problem").is_not_null())
        problems += [Problem(kind, where) for kind, where in wrong.select("problem", "item_id").iter_rows()]
        if not problems:  # all that is wrong is told at the end, but a table with faults is not written
            yield tables.arrange(shard, tables.ITEMS)
    refuse(problems, where=found.root, total=len(found.rows))


def _encode_rows(rows: pl.DataFrame, root: Path, encoder: Encoder) -> pl.DataFrame:
    contract = encoder.contract
    read = [_read(data, context, contract.sample_rate_hz) for data, context in _bytes_of(rows, root)]
    encoded = iter(encoder.encode([item.waveform for item in read if item.problem is None]))
    units: list[tuple[list[int], list[int]]] = []
    for item in read:
        found, durations = next(encoded) if item.problem is None else NOT_ENCODED
        end_s = item.context_samples / contract.sample_rate_hz
        units.append(cut(found.tolist(), durations.tolist(), end_s=end_s, frame_rate_hz=contract.frame_rate_hz))
    paths = rows["file"] + ("#" + rows["row"].cast(pl.String) + "/" + rows["column"]).fill_null("")
    return rows.with_columns(
        pl.Series("context_units", [context for context, _ in units], tables.UNITS),
        pl.Series("units", [target for _, target in units], tables.UNITS),
        pl.Series("num_samples", [len(item.waveform) for item in read], pl.Int64),
        pl.Series("audio_sha256", [item.sha256 for item in read], pl.String),
        pl.Series("audio", [{"bytes": None, "path": path} for path in paths], tables.AUDIO),
        pl.Series("problem", [item.problem for item in read], pl.String),
    )


def _bytes_of(rows: pl.DataFrame, root: Path) -> Iterator[tuple[bytes | None, bytes | None]]:
    """Yield the encoded audio of every row, and of its context where it has one."""
    stored: dict[tuple[str, str], list[dict[str, bytes]]] = {}
    for file, row, column, context in rows.select("file", "row", "column", "context_file").iter_rows():
        if row is None:
            before = (root / context).read_bytes() if context else None
            yield (root / file).read_bytes(), before
            continue
        if (file, column) not in stored:
            stored[file, column] = pq.read_table(root / file, columns=[column])[column].to_pylist()
        yield stored[file, column][row]["bytes"], None


def _read(data: bytes | None, context: bytes | None, sample_rate_hz: int) -> _Recording:
    nothing = np.zeros(0, np.float32)
    if not data:
        return _Recording(nothing, 0, "", "no bytes of audio")
    sha256 = hashlib.sha256((context or b"") + data).hexdigest()
    try:
        ending = _decode(data, sample_rate_hz)
        before = nothing if context is None else _decode(context, sample_rate_hz)
    except audio.AudioError as error:
        return _Recording(nothing, 0, sha256, str(error))
    problem = _fault(ending, before, has_context=context is not None)
    return _Recording(np.concatenate([before, ending]), len(before), sha256, problem)


def _decode(data: bytes, sample_rate_hz: int) -> np.ndarray:
    waveform, found_hz = audio.decode(data)
    return audio.resample(waveform, from_hz=found_hz, to_hz=sample_rate_hz)


def _fault(ending: np.ndarray, before: np.ndarray, *, has_context: bool) -> str | None:
    if not len(ending) or (has_context and not len(before)):
        return "audio of 0 samples"
    if not (np.isfinite(ending).all() and np.isfinite(before).all()):
        return "audio with NaN or infinite samples"
    if has_context and np.array_equal(ending[: len(before)], before):
        return "begins with its own mutual file: a whole story, where an ending is expected"
    return None


__all__ = ["Found", "encode_found", "find_items", "fingerprint"]
