"""Sound as browsers can play it: FLAC, but for clips that are too short for theirs."""

import io

import soundfile

from alignslm.audio import decode

FLAC_FRAME = 4096
"""Samples of one FLAC frame. Chromium cannot rewind a file of a single one: where it has loaded no more than the
metadata first, as on phones that save data, its demuxer fails and nothing is heard."""


def to_browser_audio(flac: bytes) -> tuple[str, bytes]:
    """Return media type and bytes: the FLAC as it is, or WAV of the same samples where one frame holds them all."""
    waveform, sample_rate_hz = decode(flac)
    if len(waveform) > FLAC_FRAME:
        return "audio/flac", flac
    stream = io.BytesIO()
    soundfile.write(stream, waveform, sample_rate_hz, format="WAV", subtype="PCM_16")
    return "audio/wav", stream.getvalue()
