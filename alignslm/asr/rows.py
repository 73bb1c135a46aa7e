"""Speech in, transcripts out, row by row (paper, section 3, step 4)."""

import polars as pl

from alignslm.asr import Recogniser
from alignslm.utterances import decode_at


def transcribe(speech: pl.DataFrame, recogniser: Recogniser) -> pl.DataFrame:
    """Transcribe what was spoken, as stored (after FLAC): rows of the transcripts table."""
    heard = recogniser.transcribe([decode_at(record, recogniser.sample_rate_hz) for record in speech["audio"]])
    return speech.select(pl.col("continuation_id").alias("source_id")).with_columns(
        pl.Series("text", [item.text for item in heard], pl.String),
        pl.Series("status", [item.status for item in heard], pl.String),
        pl.Series("confidence", [item.confidence for item in heard], pl.Float64),
    )
