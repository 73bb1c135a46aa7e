"""Every table of the experiment: its schema, and the one door through which it is written and read.

A table is one parquet file or a folder of `part-*.parquet` shards (audio). It is sorted by a unique key, holds
no unexpected null, and carries schema version and unit contract in the file metadata. Writing verifies first
and then renames into place, so a reader never meets half a table.
"""

from alignslm.tables.reading import Slice, batches, contract_of, iterate, parts, read, read_slice, slices
from alignslm.tables.schemas import (
    AUDIO,
    CLIPS,
    CONTINUATION_METRICS,
    CONTINUATIONS,
    ENCODED,
    GUARD,
    ITEM_SCORES,
    ITEMS,
    LABELS,
    MOS,
    PAIRS,
    PROMPTS,
    RATINGS,
    REPLIES,
    REWARDS,
    SCORES,
    SKIPPED_PROMPTS,
    SPEECH,
    TEXTS,
    TRANSCRIPTS,
    UNIT_REWARDS,
    UNITS,
    UTTERANCES,
    Table,
)
from alignslm.tables.validation import TableError, conform, require_keys, verify
from alignslm.tables.writing import GROUP_ROWS, PART_ROWS, open_table, rechunk, write, write_frames, write_shards
