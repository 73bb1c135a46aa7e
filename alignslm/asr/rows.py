"""Speech in, transcripts out, row by row (paper, section 3, step 4)."""

import polars as pl

from alignslm import tables
from alignslm.asr import ASRModel
from alignslm.utterances import waveforms_at


def transcribe(speech: pl.DataFrame, model: ASRModel) -> pl.DataFrame:
    """Transcribe stored audio (after FLAC). Return rows of the transcripts table."""
    outputs = model.transcribe(waveforms_at(speech["audio"], model.sample_rate_hz))
    columns = ("text", "status", "confidence", "raw_text", "no_speech_prob", "compression_ratio")
    return speech.select(pl.col("continuation_id").alias("source_id")).with_columns(
        pl.Series(name, [getattr(item, name) for item in outputs], tables.TRANSCRIPTS.schema[name]) for name in columns
    )
