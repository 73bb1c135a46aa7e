"""Continuations in, speech out, row by row (paper, section 3, step 3)."""

from functools import partial

import polars as pl

from alignslm import audio, tables
from alignslm.threads import thread_map
from alignslm.vocoder import Vocoder


def synthesize_rows(continuations: pl.DataFrame, vocoder: Vocoder) -> pl.DataFrame:
    """Speak every continuation: rows of the speech table. A continuation without units is status `empty`."""
    waveforms = vocoder.synthesize(continuations["units"].to_list())
    encoded = thread_map(partial(audio.encode_flac, sample_rate_hz=vocoder.sample_rate_hz), waveforms)
    rows = [
        {
            "continuation_id": name,
            "audio": {"bytes": flac, "path": f"{name}.flac"},
            "num_samples": len(waveform),
            "sample_rate_hz": vocoder.sample_rate_hz,
            "status": "ok" if len(waveform) else "empty",
        }
        for name, waveform, flac in zip(continuations["continuation_id"], waveforms, encoded, strict=True)
    ]
    return pl.DataFrame(rows, schema=dict(tables.SPEECH.schema))
