"""Audio for browsers: FLAC, or WAV for clips that are too short for their FLAC decoders."""

import io

import soundfile

from alignslm.audio import decode

FLAC_FRAME = 4096
"""Samples of one FLAC frame. Chromium cannot rewind a file of a single one: if it has first loaded only the
metadata, as on phones that save data, its demuxer fails and nothing is played."""


def to_browser_audio(flac: bytes) -> tuple[str, bytes]:
    """Return media type and bytes: the FLAC itself, or WAV of the same samples if they fit in one frame."""
    waveform, sample_rate_hz = decode(flac)
    if len(waveform) > FLAC_FRAME:
        return "audio/flac", flac
    stream = io.BytesIO()
    soundfile.write(stream, waveform, sample_rate_hz, format="WAV", subtype="PCM_16")
    return "audio/wav", stream.getvalue()
