"""From the list of utterances to rows of the utterances table: audio decoded to be checked, and kept as it came."""

import hashlib
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import soundfile

from alignslm import audio, tables
from alignslm.config.corpora import ParquetPart, Recordings
from alignslm.corpora.index import INDEX, place, refuse
from alignslm.failures import Problem
from alignslm.shards import map_shards
from alignslm.threads import side_by_side

ALIGNMENT_SLACK_S = 0.1  # an aligner's last frame may end a little behind the audio
EMPTY_FLAC_BYTES = 42  # a header alone, which `audio.decode` knows to hold no samples
NO_LENGTH = 2**40  # libsndfile's count of samples that are not counted is 2**63 - 1


class _Read(NamedTuple):
    num_samples: int
    problem: str | None


def read_all(
    index: pl.DataFrame,
    roots: Mapping[str, Path],
    config: Recordings,
    *,
    workers: int,
    shard_rows: int,
    work: Path,
) -> Iterator[pl.DataFrame]:
    """Yield the utterances table shard by shard; see `alignslm.corpora.utterances_of`."""
    problems: list[Problem] = []
    seen: dict[bytes, str] = {}
    shards = map_shards(
        index,
        lambda rows: _read_rows(rows, roots, config, workers=workers),
        folder=work,
        shard_rows=shard_rows,
        label="corpus",
    )
    for shard in shards:
        problems += _problems(shard) + _copies(shard, seen)
        if not problems:  # what is wrong is told for the whole corpus, but a corpus with faults is not written
            yield tables.arrange(shard, tables.UTTERANCES)
    refuse(problems, total=len(index))


def _problems(shard: pl.DataFrame) -> list[Problem]:
    wrong = shard.filter(pl.col("problem").is_not_null())
    return [Problem(what, where) for what, where in wrong.select("problem", "place").iter_rows()]


def _copies(shard: pl.DataFrame, seen: dict[bytes, str]) -> list[Problem]:
    """Return utterances whose audio another one has, byte for byte, and remember the others by their hash."""
    problems = []
    for where, cell in shard.filter(pl.col("problem").is_null()).select("place", "audio").iter_rows():
        digest = hashlib.blake2b(cell["bytes"], digest_size=16).digest()
        first = seen.setdefault(digest, where)
        if first != where:
            problems.append(Problem("audio stands twice", f"{where} (as {first})"))
    return problems


def _read_rows(rows: pl.DataFrame, roots: Mapping[str, Path], config: Recordings, *, workers: int) -> pl.DataFrame:
    """Return rows with audio, num_samples, and `problem` and `place` where something is wrong."""
    encoded = _bytes_of(rows, roots, config)
    given = zip(encoded, rows["word_ends_s"].to_list(), strict=True)
    read = side_by_side(lambda pair: _check(*pair, config), given, threads=workers)
    names = zip(rows["utterance_id"], rows["file"], rows["row"].is_null(), strict=True)
    paths = [
        f"{name}{Path(file).suffix if own else _suffix(data)}"
        for (name, file, own), data in zip(names, encoded, strict=True)
    ]
    cells = [{"bytes": data or b"", "path": path} for data, path in zip(encoded, paths, strict=True)]
    return rows.with_columns(
        pl.lit(None, pl.String).alias("prompt_text"),
        pl.lit(None, pl.String).alias("continuation_text"),
        pl.lit(None, pl.Float64).alias("prompt_end_s"),
        pl.Series("num_samples", [item.num_samples for item in read], pl.Int64),
        pl.lit(config.sample_rate_hz, pl.Int32).alias("sample_rate_hz"),
        pl.Series("audio", cells, tables.AUDIO),
        pl.Series("problem", [item.problem for item in read], pl.String),
        place().alias("place"),
    ).drop([name for name in INDEX if name not in tables.UTTERANCES.schema])


def _suffix(data: bytes | None) -> str:
    """Return what a file of these bytes is called; only for the eye, decoding looks at the bytes."""
    head = (data or b"")[:4]
    return {b"fLaC": ".flac", b"OggS": ".ogg", b"RIFF": ".wav"}.get(head, ".audio")


def _bytes_of(rows: pl.DataFrame, roots: Mapping[str, Path], config: Recordings) -> list[bytes | None]:
    """Return encoded audio in the order of the rows; None where there is none."""
    found: dict[tuple[str, str, int | None], bytes | None] = {}
    for (part, file), some in rows.group_by("part", "file", maintain_order=True):
        layout = config.parts[str(part)]
        if isinstance(layout, ParquetPart):
            from alignslm.corpora.parquet import audio_bytes

            wanted: Sequence[int] = some["row"].to_list()
            cells = audio_bytes(roots[str(part)], str(file), wanted, layout.columns.audio)
            found |= {(str(part), str(file), row): data for row, data in cells.items()}
        else:
            found[str(part), str(file), None] = (roots[str(part)] / str(file)).read_bytes()
    return [found[key] for key in rows.select("part", "file", "row").iter_rows()]


def _check(data: bytes | None, word_ends_s: Sequence[float] | None, config: Recordings) -> _Read:
    """Decode one utterance and say what is wrong with it, if anything."""
    if not data:
        return _Read(0, "no bytes of audio")
    if (length_s := _length_s(data)) == math.inf:
        return _Read(0, "audio whose header tells no length")
    if length_s > config.longest_s:
        return _Read(0, f"audio longer than {config.longest_s:g} s (longest_s)")
    try:
        waveform, rate_hz = audio.decode(data)
    except audio.AudioError as error:
        cause = error.__cause__
        said = cause.error_string if isinstance(cause, soundfile.LibsndfileError) else str(error).partition(",")[0]
        return _Read(0, f"unreadable audio ({said.rstrip('.')})")
    return _Read(len(waveform), _fault(waveform, rate_hz, word_ends_s, config))


def _length_s(data: bytes) -> float:
    """Return how long the audio's header says it is: hours of it are not decoded to find out.

    Infinite where a stream was stored whose length was not known when it began, 0 where the header cannot be read.
    """
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as stored:
            if stored.frames >= NO_LENGTH:
                return math.inf if len(data) > EMPTY_FLAC_BYTES else 0.0
            return stored.frames / stored.samplerate
    except soundfile.LibsndfileError:  # told when it is decoded
        return 0.0


def _fault(waveform: np.ndarray, rate_hz: int, word_ends_s: Sequence[float] | None, config: Recordings) -> str | None:
    if rate_hz != config.sample_rate_hz:
        return f"audio at {rate_hz} Hz, expected {config.sample_rate_hz} Hz"
    if not len(waveform):
        return "audio of 0 samples"
    if not np.isfinite(waveform).all():
        return "audio with NaN or infinite samples"
    if word_ends_s and word_ends_s[-1] > len(waveform) / rate_hz + ALIGNMENT_SLACK_S:
        return "word times beyond the end of the audio"
    return None
