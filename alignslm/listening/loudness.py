"""Integrated loudness of mono speech (ITU-R BS.1770-4), and gains for equal loudness."""

from collections.abc import Sequence

import numpy as np
import scipy.signal

from alignslm.audio import frames_of, resample

RATE_HZ = 48000  # the rate of the recommendation's filters
BLOCK_SAMPLES = RATE_HZ * 4 // 10
HOP_SAMPLES = RATE_HZ // 10
ABSOLUTE_GATE_LUFS = -70.0
RELATIVE_GATE_LU = -10.0
PEAK_DBFS = -1.0
SHELF = ((1.53512485958697, -2.69169618940638, 1.19839281085285), (1.0, -1.69065929318241, 0.73248077421585))
HIGH_PASS = ((1.0, -2.0, 1.0), (1.0, -1.99004745483398, 0.99007225036621))


def loudness_lufs(waveform: np.ndarray, sample_rate_hz: int) -> float | None:
    """Return the gated loudness in LUFS; None for silence. Audio shorter than a block of 400 ms is padded to one."""
    sound = resample(waveform, from_hz=sample_rate_hz, to_hz=RATE_HZ).astype(np.float64)
    for numerator, denominator in (SHELF, HIGH_PASS):
        sound = scipy.signal.lfilter(numerator, denominator, sound)
    sound = np.pad(sound, (0, max(0, BLOCK_SAMPLES - sound.size)))
    blocks = frames_of(sound, window_samples=BLOCK_SAMPLES, hop_samples=HOP_SAMPLES, centre=False)
    power = np.mean(blocks**2, axis=1)
    loud = power[_lufs(power) > ABSOLUTE_GATE_LUFS]
    if not loud.size:
        return None
    return float(_lufs(loud[_lufs(loud) > _lufs(loud.mean()) + RELATIVE_GATE_LU].mean()))


def _lufs(power: np.ndarray) -> np.ndarray:
    return -0.691 + 10 * np.log10(np.maximum(power, 1e-20))


def common_loudness(waveforms: Sequence[np.ndarray], sample_rate_hz: int, *, wanted_lufs: float) -> float:
    """Return a loudness that all waveforms can have: the wanted one, or less if a peak would exceed -1 dBFS.

    One clip with high peaks lowers all of them, because a quieter clip would be rated differently.
    """
    reachable = [wanted_lufs]
    for waveform in waveforms:
        loudness = loudness_lufs(waveform, sample_rate_hz)
        if loudness is not None:
            reachable.append(loudness + PEAK_DBFS - 20 * float(np.log10(np.abs(waveform).max())))
    return min(reachable)


def normalised(waveform: np.ndarray, sample_rate_hz: int, *, lufs: float) -> np.ndarray:
    """Return the waveform with the given loudness; silence is unchanged."""
    loudness = loudness_lufs(waveform, sample_rate_hz)
    return waveform if loudness is None else (waveform * 10 ** ((lufs - loudness) / 20)).astype(np.float32)
