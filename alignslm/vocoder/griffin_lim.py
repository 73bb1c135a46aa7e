"""From log-mel frames back to a waveform: mel inversion, a pulse phase, and Griffin-Lim."""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

PULSE_HZ = 100.0
NOISE_ABOVE_HZ = 4000.0
_PHASE_BLOCK_FRAMES = 512


def stft(waveform: Tensor, *, window_samples: int, hop_samples: int, fft_samples: int) -> Tensor:
    """Return the complex spectrum (frames, bins) of (samples,); frames are centred and the ends padded with zeros.

    1 + samples // hop_samples frames.
    """
    return torch.stft(
        waveform,
        fft_samples,
        hop_samples,
        window_samples,
        torch.hann_window(window_samples),
        pad_mode="constant",
        return_complex=True,
    ).T


def istft(spectrum: Tensor, *, window_samples: int, hop_samples: int, fft_samples: int) -> Tensor:
    """Return (frames * hop_samples,) samples with the `stft` nearest to the spectrum (frames, bins)."""
    return torch.istft(
        spectrum.T,
        fft_samples,
        hop_samples,
        window_samples,
        torch.hann_window(window_samples),
        length=len(spectrum) * hop_samples,
    )


@lru_cache(maxsize=8)
def mel_inverse(*, sample_rate_hz: int, num_mels: int, num_bins: int) -> Tensor:
    """Return (num_mels + 1, num_bins): [log-mel, 1] @ it = log power of every bin.

    The power of a band is spread evenly over its triangle and interpolated between band centres. Unlike a
    pseudo-inverse this is positive and smooth, and costs one product.
    """
    from alignslm.audio import mel_filterbank

    bank = mel_filterbank(sample_rate_hz=sample_rate_hz, num_mels=num_mels, num_bins=num_bins).astype(np.float64)
    mel_of = np.log1p(np.linspace(0, sample_rate_hz / 2, num_bins) / 700)
    centres = np.linspace(0, mel_of[-1], num_mels + 2)[1:-1]
    spread = np.stack([np.interp(mel_of, centres, row) for row in np.eye(num_mels)])
    offset = -np.log(bank.sum(axis=0)) @ spread
    return torch.from_numpy(np.vstack([spread, offset])).float()


def magnitude_of(mel: Tensor, *, sample_rate_hz: int, num_bins: int) -> Tensor:
    """Turn natural log-mel power (frames, num_mels) into magnitudes (frames, num_bins)."""
    inverse = mel_inverse(sample_rate_hz=sample_rate_hz, num_mels=mel.shape[1], num_bins=num_bins)
    return torch.exp(0.5 * (mel @ inverse[:-1] + inverse[-1]))


def pulse_phase(
    num_frames: int, *, sample_rate_hz: int, window_samples: int, hop_samples: int, fft_samples: int
) -> Tensor:
    """Return unit phasors (num_frames, bins): of a pulse train below NOISE_ABOVE_HZ, of noise above.

    This is what excites a voice, so Griffin-Lim starts near speech: with two iterations it sounds like a
    monotone voice, a random phase sounds like a whisper in a pipe. Seeded; the first frames do not depend
    on `num_frames` within a block of 512.
    """
    blocks = -(-num_frames // _PHASE_BLOCK_FRAMES)
    return _phase_blocks(blocks, sample_rate_hz, window_samples, hop_samples, fft_samples)[:num_frames]


@lru_cache(maxsize=32)
def _phase_blocks(blocks: int, sample_rate_hz: int, window_samples: int, hop_samples: int, fft_samples: int) -> Tensor:
    num_samples = blocks * _PHASE_BLOCK_FRAMES * hop_samples
    pulses = torch.zeros(num_samples)
    pulses[:: round(sample_rate_hz / PULSE_HZ)] = 1
    noise = torch.from_numpy(np.random.default_rng(0).standard_normal(num_samples).astype(np.float32))
    options = {"window_samples": window_samples, "hop_samples": hop_samples, "fft_samples": fft_samples}
    voiced, unvoiced = stft(pulses, **options), stft(noise, **options)
    bins_hz = torch.linspace(0, sample_rate_hz / 2, fft_samples // 2 + 1)
    return unit(torch.where(bins_hz < NOISE_ABOVE_HZ, voiced, unvoiced))


def unit(spectrum: Tensor) -> Tensor:
    """Divide every bin by its magnitude; a bin of magnitude 0 stays 0."""
    return spectrum / spectrum.abs().clamp_min(1e-12)


def griffin_lim(
    magnitude: Tensor, phase: Tensor, *, iterations: int, window_samples: int, hop_samples: int, fft_samples: int
) -> Tensor:
    """Find a waveform with the given magnitudes (frames, bins), from the unit phasors `phase` of that shape.

    Griffin and Lim (1984): impose the magnitude, go to samples and back, keep the phase. Deterministic.
    Returns (frames * hop_samples,); no iteration is a plain inverse transform.
    """
    options = {"window_samples": window_samples, "hop_samples": hop_samples, "fft_samples": fft_samples}
    waveform = istft(magnitude * phase, **options)
    for _ in range(iterations):
        phase = unit(stft(waveform, **options)[: len(magnitude)])
        waveform = istft(magnitude * phase, **options)
    return waveform
