"""Recordings decoded, mixed to mono, resampled, trimmed, brought to one loudness and cut at pauses."""

import subprocess
from pathlib import Path
from shutil import which

import numpy as np

from alignslm import audio
from alignslm.ingest.finding import NEEDS_FFMPEG
from alignslm.listening.loudness import common_loudness, normalised

WHOLE_S = 20.0
"""A recording up to this long stays whole: 500 units, what a model of 512 positions reads."""
CUT_S = 10.0
"""Pieces of a longer one are at most this long, and no shorter than a quarter of it."""
SHORTEST_S = 1.0
LOUDNESS_LUFS = -23.0  # EBU R 128
FRAME_S, MARGIN_S = 0.02, 0.1
QUIET_DB, SILENT_RMS = -40.0, 1e-3  # below the loudest frame; and -60 dB full scale, below speech


class SoundError(ValueError):
    """A recording has no usable speech; the message is the reason in the table of exclusions."""


def prepared(path: Path, sample_rate_hz: int) -> list[np.ndarray]:
    """Return the pieces of one recording, (samples,) float32 each. Raises SoundError."""
    waveform, found_hz = _decoded(path)
    if not np.isfinite(waveform).all():
        raise SoundError("samples that are not numbers")
    speech = trimmed(audio.resample(waveform, from_hz=found_hz, to_hz=sample_rate_hz), sample_rate_hz)
    if len(speech) < SHORTEST_S * sample_rate_hz:
        raise SoundError(f"{len(speech) / sample_rate_hz:.1f} s of speech, less than {SHORTEST_S:g} s")
    level = common_loudness([speech], sample_rate_hz, wanted_lufs=LOUDNESS_LUFS)
    speech = normalised(speech, sample_rate_hz, lufs=level).clip(-1, 1)
    return [speech] if len(speech) <= WHOLE_S * sample_rate_hz else pieces(speech, sample_rate_hz)


def _decoded(path: Path) -> tuple[np.ndarray, int]:
    data = path.read_bytes()
    if path.suffix.lower() in NEEDS_FFMPEG:
        program = which("ffmpeg")
        if program is None:
            raise SoundError(f"{path.suffix[1:]} is decoded by ffmpeg, which is not installed")
        command = [program, "-v", "error", "-i", str(path), "-f", "wav", "-c:a", "pcm_f32le", "-"]
        done = subprocess.run(command, capture_output=True, check=False)  # noqa: S603 a path is an argument, not a shell's
        if done.returncode:
            raise SoundError(f"ffmpeg cannot read it ({done.stderr.decode(errors='replace').strip().splitlines()[-1]})")
        data = done.stdout
    try:
        return audio.decode(data, channels="mix")
    except audio.AudioError as error:
        raise SoundError("damaged, or not audio") from error


def frame_rms(waveform: np.ndarray, sample_rate_hz: int) -> np.ndarray:
    """Return the RMS of every 20 ms, (frames,); a remainder at the end is in no frame."""
    size = round(FRAME_S * sample_rate_hz)
    framed = waveform[: len(waveform) // size * size].reshape(-1, size)
    return np.sqrt(np.mean(framed.astype(np.float64) ** 2, axis=1))


def trimmed(waveform: np.ndarray, sample_rate_hz: int) -> np.ndarray:
    """Cut silence off both ends but for 0.1 s: frames 40 dB below the loudest one, or below -60 dB full scale."""
    loudness = frame_rms(waveform, sample_rate_hz)
    floor = max(loudness.max(initial=0.0) * 10 ** (QUIET_DB / 20), SILENT_RMS)
    spoken = np.flatnonzero(loudness > floor)
    if not spoken.size:
        return waveform[:0]
    size, margin = round(FRAME_S * sample_rate_hz), round(MARGIN_S * sample_rate_hz)
    return waveform[max(0, spoken[0] * size - margin) : (spoken[-1] + 1) * size + margin]


def pieces(waveform: np.ndarray, sample_rate_hz: int, longest_s: float = CUT_S) -> list[np.ndarray]:
    """Cut at the quietest 0.2 s of the middle half, again and again, until no piece is longer than `longest_s`."""
    if len(waveform) <= longest_s * sample_rate_hz:
        return [waveform]
    size, window = round(FRAME_S * sample_rate_hz), round(0.2 / FRAME_S)
    power = frame_rms(waveform, sample_rate_hz) ** 2
    smooth = np.convolve(power, np.ones(window), "same")
    first, last = len(smooth) // 4, len(smooth) * 3 // 4
    at = (first + int(smooth[first:last].argmin())) * size
    halves = (trimmed(half, sample_rate_hz) for half in (waveform[:at], waveform[at:]))
    return [
        piece
        for half in halves
        for piece in pieces(half, sample_rate_hz, longest_s)
        if len(piece) >= SHORTEST_S * sample_rate_hz
    ]
