"""Recordings in files, as corpora, benchmarks and preferences have them: listed first, then decoded and checked.

A layout lists its recordings without reading audio (`Listing`). Everything wrong with the list, and later with the
audio, becomes a `Problem`, so that one error can name all of them.
"""

import codecs
import hashlib
import io
import math
import os
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile

from alignslm import audio
from alignslm.user_errors import Problem, format_problems

Schema: TypeAlias = Mapping[str, pl.DataType | type[pl.DataType]]

UNKNOWN_LENGTH = 2**40  # libsndfile says 2**63 - 1 samples of a stream that was stored without its length
NO_AUDIO = "no audio bytes (a path in a parquet file is not followed)"
_UNREADABLE = (OSError, pa.ArrowException)


class Listing(NamedTuple):
    """Recordings below one folder: a row per recording, and the problems of the list.

    `over_limit` counts recordings that a layout skipped because it is too large for memory.
    """

    rows: pl.DataFrame
    root: Path
    problems: list[Problem]
    over_limit: int = 0


class Place(NamedTuple):
    """Where a recording is: a whole file, or one cell of a parquet file (`row` counts from 0)."""

    file: Path
    row: int | None = None
    column: str | None = None


class Decoded(NamedTuple):
    """A recording, (samples,) float32 at `sample_rate_hz`; `problem` says why it cannot be used, None if it can."""

    waveform: np.ndarray
    sample_rate_hz: int
    problem: str | None


def index_frame(rows: Iterable[Mapping[str, object]], schema: Schema) -> pl.DataFrame:
    """Return rows of a list as a frame; columns that a layout does not know are null."""
    return pl.DataFrame([{name: row.get(name) for name in schema} for row in rows], schema=dict(schema))


def raise_problems(error: type[ValueError], problems: Sequence[Problem], *, among: str, cure: str) -> None:
    """Raise `error` listing the problems by kind, if there are any. `among` says of what, such as "5 utterances"."""
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise error("\n".join([f"{count} among {among}:", *format_problems(problems), cure]))


def problems_of(rows: pl.DataFrame) -> list[Problem]:
    """Return the problems of checked rows: those with `problem`, each at its `place`."""
    wrong = rows.filter(pl.col("problem").is_not_null())
    return [Problem(kind, where) for kind, where in wrong.select("problem", "place").iter_rows()]


def until_a_problem(shards: Iterable[pl.DataFrame], problems: list[Problem]) -> Iterator[pl.DataFrame]:
    """Yield checked shards up to the first problem, and add the problems of all shards to `problems`.

    All that is wrong is reported at the end, but a table with problems is not written.
    """
    for shard in shards:
        problems += problems_of(shard)
        if not problems:
            yield shard


def fingerprint(rows: pl.DataFrame, files: Mapping[str, Path]) -> str:
    """Return a hash of the list and of every file's name, size and time of change, without reading any.

    Work that an interrupted run left behind is reused only under an equal fingerprint.
    """
    digest = hashlib.sha256()
    for name, file in sorted(files.items()):
        stat = file.stat()
        digest.update(f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode())
    for row in rows.iter_rows():
        digest.update(repr(row).encode())
    return digest.hexdigest()


def read_audio(places: Sequence[Place]) -> list[bytes | None]:
    """Return the encoded audio of each place, in order; None if a cell has none.

    Each row group of a parquet file that has a wanted row is read once, and one is in memory at a time.
    """
    wanted: dict[tuple[Path, str], set[int]] = defaultdict(set)
    for place in places:
        if place.row is not None and place.column is not None:
            wanted[place.file, place.column].add(place.row)
    cells: dict[Place, bytes | None] = {}
    for (file, column), numbers in wanted.items():
        rows = sorted(numbers)
        for row, values in zip(rows, parquet_rows(file, rows, [column]), strict=True):
            cells[Place(file, row, column)] = (values[column] or {}).get("bytes")
    return [place.file.read_bytes() if place.row is None else cells[place] for place in places]


def named_file(name: str, folder: Path, *, root: Path) -> Path | str:
    """Return the file that a row names in its folder, or what is wrong with it; a file outside `root` is never read.

    In the Hub's cache a file is a link to the folder blobs next to the snapshots, which therefore counts as inside.
    """
    file = Path(os.path.normpath(folder / name))
    try:
        found, inside = file.is_file(), [root.resolve(), root.parent.parent.resolve() / "blobs"]
        if not file.is_relative_to(os.path.normpath(root)) or not any(map(file.resolve().is_relative_to, inside)):
            return f"file is outside {root.name or root}"
    except (OSError, ValueError):  # a text: too long for a name, or with a zero byte
        found = False
    return file if found else "no such audio file"


class EncodingError(ValueError):
    """A text is neither UTF-8 nor UTF-16 with its mark."""


def text_lines(file: Path) -> Iterator[str]:
    """Yield the lines of a text, ends included: UTF-8, or UTF-16 if its first two bytes say so.

    Raises EncodingError naming the first line that is neither.
    """
    with file.open("rb") as binary:
        head = binary.read(2)
    encoding = "utf-16" if head in {codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE} else "utf-8-sig"
    if b"\0" in head:
        raise _encoding_error(file, "utf-8, nor UTF-16 with its mark")
    try:
        with file.open(encoding=encoding, newline="") as stream:
            yield from stream
    except UnicodeError as error:
        raise _encoding_error(file, encoding.removesuffix("-sig")) from error


def _encoding_error(file: Path, expected: str) -> EncodingError:
    lines = enumerate(file.read_bytes().split(b"\n"), 1)
    number = next((number for number, line in lines if "\ufffd" in line.decode("utf-8", "replace")), 1)
    return EncodingError(
        f"line {number} is not {expected} (latin-1?). Save the file as UTF-8: "
        f"iconv -f latin1 -t utf-8 {file.name} > new"
    )


def decode(data: bytes | None, *, sample_rate_hz: int | None = None, max_duration_s: float = math.inf) -> Decoded:
    """Decode a recording and check it; `sample_rate_hz` is the rate that it must have, None if any will do.

    A header is believed about its length: hours of audio are not decoded to find out that they are too long.
    """
    if not data:
        return _unusable(NO_AUDIO)
    length_s = _length_s(data)
    if length_s == math.inf:
        return _unusable("audio without a length in its header")
    if length_s > max_duration_s:
        return _unusable(f"audio longer than {max_duration_s:g} s (max_duration_s)")
    try:
        waveform, found_hz = audio.decode(data)
    except audio.AudioError as error:
        cause = error.__cause__
        reason = cause.error_string if isinstance(cause, soundfile.LibsndfileError) else str(error).partition(",")[0]
        return _unusable(f"unreadable audio ({reason.rstrip('.')})")
    return Decoded(waveform, found_hz, _problem(waveform, found_hz, sample_rate_hz))


def _unusable(problem: str) -> Decoded:
    return Decoded(np.zeros(0, np.float32), 0, problem)


def _problem(waveform: np.ndarray, found_hz: int, expected_hz: int | None) -> str | None:
    if expected_hz not in {None, found_hz}:
        return f"audio at {found_hz} Hz, expected {expected_hz} Hz"
    if not waveform.size:
        return "audio of 0 samples"
    return None if np.isfinite(waveform).all() else "audio with NaN or infinite samples"


def _length_s(data: bytes) -> float:
    """Return the length that the header gives, infinity if it gives none, 0 if it cannot be read."""
    if audio.is_empty_flac(data):
        return 0.0
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as stored:
            return math.inf if stored.frames >= UNKNOWN_LENGTH else stored.frames / stored.samplerate
    except soundfile.LibsndfileError:  # decoding says why
        return 0.0


def parquet_schema(file: Path, columns: Sequence[str]) -> pa.Schema | str:
    """Return the schema of a parquet file that has these columns, or what is wrong with it."""
    try:
        schema = pq.read_schema(file)
    except _UNREADABLE as error:
        return f"unreadable parquet ({error})"
    absent = [column for column in columns if column not in schema.names]
    return f"no column {', '.join(absent)}; columns are {', '.join(schema.names)}" if absent else schema


def parquet_columns(file: Path, columns: Sequence[str], *, sound: Sequence[str] = ()) -> pl.DataFrame | str:
    """Return some columns of a parquet file, or what is wrong with it or with its audio columns (not read)."""
    schema = parquet_schema(file, [*columns, *sound])
    if isinstance(schema, str):
        return schema
    for column in sound:
        if problem := _sound_problem(schema, column):
            return problem
    try:
        return pl.DataFrame(pl.from_arrow(pq.read_table(file, columns=list(columns))))
    except _UNREADABLE as error:
        return f"unreadable parquet ({error})"


def _sound_problem(schema: pa.Schema, column: str) -> str | None:
    kind = schema.field(column).type
    at = kind.get_field_index("bytes") if pa.types.is_struct(kind) else -1
    known = at >= 0 and kind.field(at).type in {pa.binary(), pa.large_binary(), pa.null()}
    return None if known else f"column {column} is {kind}, expected a struct of bytes (binary) and path"


def parquet_rows(file: Path, rows: Sequence[int], columns: Sequence[str] | None) -> Iterator[dict[str, Any]]:
    """Yield some rows of a parquet file, given in rising order, reading only the row groups that have one."""
    with pq.ParquetFile(file) as stored:
        start = 0
        for group in range(stored.num_row_groups):
            end = start + stored.metadata.row_group(group).num_rows
            wanted = rows[bisect_left(rows, start) : bisect_left(rows, end)]
            if wanted:
                table = stored.read_row_group(group, columns=None if columns is None else list(columns))
                for row in wanted:
                    yield table.slice(row - start, 1).to_pylist()[0]
            start = end
