"""Tables as the Hub's viewer and the datasets library read them: parquet shards with typed audio columns."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Audio, Features, List, Value

from alignslm.storage import atomic_write

SHARD_ROWS = 500
GROUP_ROWS = 100  # the viewer reads a whole group for every page, and audio is large
PAGE_BYTES = 1 << 22  # pairs of one prompt are adjacent: within a page their repeated audio compresses


def audio(sample_rate_hz: int) -> Audio:
    """Return the feature of an audio column of {bytes, path}."""
    return Audio(sampling_rate=sample_rate_hz)


def features(columns: Mapping[str, str | Audio]) -> Features:
    """Return the features of columns by datasets' type names; `units` is a list of unit numbers."""
    return Features({name: _feature(kind) for name, kind in columns.items()})


def _feature(kind: str | Audio) -> object:
    if isinstance(kind, Audio):
        return kind
    return List(Value("uint16")) if kind == "units" else Value(kind)


def features_of(frame: pl.DataFrame) -> Features:
    """Return the features of a frame of numbers and texts."""
    return Features.from_arrow_schema(_arrow(frame).schema)


def write_split(
    frames: Iterable[pl.DataFrame], form: Features, folder: Path, *, split: str, num_shards: int
) -> list[Path]:
    """Write every frame as a shard, `folder/split-00000-of-00003.parquet` and so on."""
    written = []
    for number, frame in enumerate(frames):
        path = folder / f"{split}-{number:05d}-of-{num_shards:05d}.parquet"
        table = _arrow(frame).select(list(form)).cast(form.arrow_schema)
        with atomic_write(path) as partial:
            pq.write_table(table, partial, compression="zstd", row_group_size=GROUP_ROWS, data_page_size=PAGE_BYTES)
        written.append(path)
    return written


def _arrow(frame: pl.DataFrame) -> pa.Table:
    """Return the frame with plain types that other readers support."""
    table = frame.to_arrow(compat_level=pl.CompatLevel.oldest()).combine_chunks()
    plain = {pa.large_string(): pa.string(), pa.large_binary(): pa.binary()}
    return table.cast(pa.schema([field.with_type(plain.get(field.type, field.type)) for field in table.schema]))
