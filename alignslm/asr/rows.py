"""Speech in, transcripts out, row by row (paper, section 3, step 4)."""

from functools import partial

import polars as pl

from alignslm import tables
from alignslm.asr import Recogniser
from alignslm.threads import side_by_side
from alignslm.utterances import decode_at


def transcribe(speech: pl.DataFrame, recogniser: Recogniser) -> pl.DataFrame:
    """Transcribe what was spoken, as stored (after FLAC): rows of the transcripts table."""
    waveforms = side_by_side(partial(decode_at, sample_rate_hz=recogniser.sample_rate_hz), speech["audio"])
    heard = recogniser.transcribe(waveforms)
    columns = ("text", "status", "confidence", "raw_text", "no_speech_prob", "compression_ratio")
    return speech.select(pl.col("continuation_id").alias("source_id")).with_columns(
        pl.Series(name, [getattr(item, name) for item in heard], tables.TRANSCRIPTS.schema[name]) for name in columns
    )
