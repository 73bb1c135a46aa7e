"""Checks of an encoder's input waveforms."""

from collections.abc import Sequence

import numpy as np


class EncoderError(ValueError):
    """Waveforms, or the files of an encoder, are invalid."""


def require_waveforms(waveforms: Sequence[np.ndarray], *, min_samples: int = 1) -> None:
    """Raise EncoderError naming every waveform that is not mono, float32, long enough and finite."""
    faults = [f"waveform {i}: {fault}" for i, one in enumerate(waveforms) if (fault := _fault(one, min_samples))]
    if faults:
        more = f"; and {len(faults) - 5} more" if len(faults) > 5 else ""
        raise EncoderError(
            f"{len(faults)} of {len(waveforms)} waveforms cannot be encoded: {'; '.join(faults[:5])}{more}"
        )


def _fault(waveform: np.ndarray, min_samples: int) -> str | None:
    if waveform.ndim != 1:
        return f"shape {waveform.shape}, expected (samples,); average the channels first"
    if waveform.dtype != np.float32:
        return f"dtype {waveform.dtype}, expected float32 in [-1, 1]"
    if not waveform.size:
        return "no samples"
    if waveform.size < min_samples:
        return f"{waveform.size} samples, but the first frame needs {min_samples}"
    bad = np.count_nonzero(~np.isfinite(waveform))
    return f"{bad} samples are NaN or infinite" if bad else None
