"""From the list of utterances to rows of the utterances table: audio decoded to be checked, and kept as it came."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import polars as pl

from alignslm import tables
from alignslm.config.corpora import ParquetPart, Recordings
from alignslm.corpora.index import COPY, INDEX, location, refuse
from alignslm.listing import Place, decode, read_audio, until_a_problem
from alignslm.shards import map_shards
from alignslm.threads import thread_map
from alignslm.user_errors import Problem

ALIGNMENT_SLACK_S = 0.1  # an aligner's last frame may end a little behind the audio


def read_all(
    index: pl.DataFrame,
    roots: Mapping[str, Path],
    config: Recordings,
    *,
    workers: int,
    shard_size: int,
    work: Path,
) -> Iterator[pl.DataFrame]:
    """Yield the utterances table shard by shard; see `alignslm.corpora.utterances_of`."""
    problems: list[Problem] = []
    seen: dict[bytes, str] = {}
    shards = map_shards(
        index,
        lambda rows: _read_rows(rows, roots, config, workers=workers),
        folder=work,
        shard_size=shard_size,
        label="corpus",
    )
    for shard in until_a_problem((_with_copies_marked(shard, seen) for shard in shards), problems):
        yield tables.conform(shard, tables.UTTERANCES)
    refuse(problems, total=len(index))


def _with_copies_marked(shard: pl.DataFrame, seen: dict[bytes, str]) -> pl.DataFrame:
    """Make a problem of audio that an earlier utterance has, byte for byte; `seen` has the places by hash."""
    problems, places = shard["problem"].to_list(), shard["place"].to_list()
    for at, cell in enumerate(shard["audio"]):
        if problems[at] is None:
            digest = hashlib.blake2b(cell["bytes"], digest_size=16).digest()
            first = seen.setdefault(digest, places[at])
            if first != places[at]:
                problems[at], places[at] = "audio has a duplicate", f"{places[at]}{COPY}{first})"
    return shard.with_columns(pl.Series("problem", problems, pl.String), pl.Series("place", places, pl.String))


def _read_rows(rows: pl.DataFrame, roots: Mapping[str, Path], config: Recordings, *, workers: int) -> pl.DataFrame:
    """Return rows with audio, num_samples, `place`, and `problem` (null if nothing is wrong)."""
    parts = rows.select("part", "file", "row").iter_rows()
    encoded = read_audio([Place(roots[part] / file, row, _column(part, config)) for part, file, row in parts])
    pairs = zip(encoded, rows["word_ends_s"].to_list(), strict=True)
    read = thread_map(lambda pair: _check(*pair, config), pairs, threads=workers)
    names = zip(rows["utterance_id"], rows["file"], rows["row"].is_null(), encoded, strict=True)
    cells = [
        {"bytes": data or b"", "path": f"{name}{Path(file).suffix if own else _suffix(data)}"}
        for name, file, own, data in names
    ]
    return rows.with_columns(
        pl.lit(None, pl.String).alias("prompt_text"),
        pl.lit(None, pl.String).alias("continuation_text"),
        pl.lit(None, pl.Float64).alias("prompt_end_s"),
        pl.Series("num_samples", [num_samples for num_samples, _ in read], pl.Int64),
        pl.lit(config.sample_rate_hz, pl.Int32).alias("sample_rate_hz"),
        pl.Series("audio", cells, tables.AUDIO),
        pl.Series("problem", [problem for _, problem in read], pl.String),
        location().alias("place"),
    ).drop([name for name in INDEX if name not in tables.UTTERANCES.schema])


def _column(part: str, config: Recordings) -> str | None:
    layout = config.parts[part]
    return layout.columns.audio if isinstance(layout, ParquetPart) else None


def _suffix(data: bytes | None) -> str:
    """Return a file suffix for these bytes; only informative, decoding looks at the bytes."""
    head = (data or b"")[:4]
    return {b"fLaC": ".flac", b"OggS": ".ogg", b"RIFF": ".wav"}.get(head, ".audio")


def _check(data: bytes | None, word_ends_s: Sequence[float] | None, config: Recordings) -> tuple[int, str | None]:
    """Decode one utterance: its number of samples, and what is wrong with it, if anything."""
    waveform, rate_hz, problem = decode(
        data, sample_rate_hz=config.sample_rate_hz, max_duration_s=config.max_duration_s
    )
    if problem is None and word_ends_s and word_ends_s[-1] > len(waveform) / rate_hz + ALIGNMENT_SLACK_S:
        problem = "word times beyond the end of the audio"
    return len(waveform), problem
