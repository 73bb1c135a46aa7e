"""What the recogniser hears in recorded utterances: on either side of the place where their prompts end.

Prompts that were cut in the middle of a word get their text from it (paper, step 4). Of true continuations whose text
is known, it tells how much the recogniser mishears when no vocoder stands between.
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Literal, TypeAlias

import polars as pl

from alignslm import audio, tables
from alignslm.asr import Recogniser
from alignslm.asr.rows import transcribe
from alignslm.recordings import Recording, recordings_of

Side: TypeAlias = Literal["prompt", "continuation"]


def transcribe_recorded(
    prompts: pl.DataFrame, utterances: Path, recogniser: Recogniser, *, side: Side, shard_rows: int
) -> Iterator[pl.DataFrame]:
    """Yield transcripts of one side of recordings, source_id = prompt_id, in the order of their utterances' storing.

    The recogniser hears the recording up to `end_s` and nothing after it, or from there on and nothing before, so
    the text is what a listener could know.
    """
    recordings = recordings_of(utterances, prompts)
    while some := list(islice(recordings, shard_rows)):
        yield transcribe(_as_speech(some, side), recogniser)


def transcribe_recorded_of(
    part: Path, recogniser: Recogniser, *, prompts: pl.DataFrame, side: Side, shard_rows: int
) -> pl.DataFrame:
    """Transcribe those prompts' utterances that lie in `part`, one file of the utterances table."""
    here = prompts.join(tables.read(tables.UTTERANCES, part, ["utterance_id"]), on="utterance_id", how="semi")
    nothing = pl.DataFrame(schema=dict(tables.TRANSCRIPTS.schema))
    if here.is_empty():  # a part of a large corpus is not read for nothing
        return nothing
    return pl.concat([nothing, *transcribe_recorded(here, part, recogniser, side=side, shard_rows=shard_rows)])


def _as_speech(recordings: Sequence[Recording], side: Side) -> pl.DataFrame:
    cells = [
        {"bytes": audio.encode_flac(getattr(one, side), one.sample_rate_hz), "path": f"{one.prompt_id}.flac"}
        for one in recordings
    ]
    schema = {"continuation_id": pl.String(), "audio": tables.AUDIO}
    return pl.DataFrame({"continuation_id": [one.prompt_id for one in recordings], "audio": cells}, schema=schema)
