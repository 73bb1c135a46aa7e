"""Transcripts of recorded utterances, on either side of the end of their prompts.

They are the text of prompts that were cut inside a word (paper, step 4). Transcripts of ground-truth continuations with
a known text measure the ASR model's errors without a vocoder.
"""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Literal, TypeAlias

import polars as pl

from alignslm import audio, tables
from alignslm.asr import ASRModel
from alignslm.asr.rows import transcribe
from alignslm.recordings import Recording, recordings_in

Side: TypeAlias = Literal["prompt", "continuation"]


def transcribe_recordings(
    part: Path, asr: ASRModel, *, prompts: pl.DataFrame, side: Side, shard_size: int
) -> pl.DataFrame:
    """Return transcripts of one side of recordings, source_id = prompt_id, in the order of their utterances' storing.

    Only of prompts with utterances in `part`, one file of the utterances table. The ASR model gets the recording up
    to `end_s`, or from there on, so the text contains only what was heard so far.
    """
    recordings = recordings_in(part, prompts)
    heard = [pl.DataFrame(schema=dict(tables.TRANSCRIPTS.schema))]
    while some := list(islice(recordings, shard_size)):
        heard.append(transcribe(_as_speech(some, side), asr))
    return pl.concat(heard)


def _as_speech(recordings: Sequence[Recording], side: Side) -> pl.DataFrame:
    cells = [
        {"bytes": audio.encode_flac(getattr(one, side), one.sample_rate_hz), "path": f"{one.prompt_id}.flac"}
        for one in recordings
    ]
    schema = {"continuation_id": pl.String(), "audio": tables.AUDIO}
    return pl.DataFrame({"continuation_id": [one.prompt_id for one in recordings], "audio": cells}, schema=schema)
