"""Waveforms: resampling, FLAC, loudness and log-mel spectra. Mono float32 in [-1, 1] throughout."""

import hashlib
import io
from functools import lru_cache
from math import gcd
from typing import Literal

import numpy as np
import scipy.fft
import soundfile

LOG_FLOOR = 1e-6
"""Mel power below this counts as silence (speech at -60 dB full scale has about 1e-4)."""

_PCM_FULL_SCALE = 32768  # what libsndfile divides by, so that decoded audio encodes to the same bytes
_EMPTY_FLAC_HEAD = b"fLaC" + bytes((0x80, 0, 0, 34))  # the only metadata block: STREAMINFO, 34 bytes
_EMPTY_FLAC_BYTES = 42


class AudioError(ValueError):
    """Audio is corrupt, has several channels, or was requested at an impossible resolution."""


def resample(waveform: np.ndarray, *, from_hz: int, to_hz: int) -> np.ndarray:
    """Resample (samples,) by polyphase filtering; ceil(samples * to_hz / from_hz) float32 samples come out."""
    signal = _mono(waveform)
    if from_hz <= 0 or to_hz <= 0:
        raise AudioError(f"sample rates must be positive, got {from_hz} Hz and {to_hz} Hz")
    if from_hz == to_hz or not signal.size:
        return signal
    import scipy.signal  # half a second that most stages, which never resample, need not wait

    divisor = gcd(from_hz, to_hz)
    up, down = to_hz // divisor, from_hz // divisor
    return scipy.signal.resample_poly(signal, up, down, window=_low_pass(max(up, down))).astype(np.float32)


@lru_cache(maxsize=8)
def _low_pass(rate: int) -> np.ndarray:
    """Return the filter that `resample_poly` designs in every call, which takes longer than filtering."""
    import scipy.signal

    return scipy.signal.firwin(20 * rate + 1, 1 / rate, window=("kaiser", 5.0)).astype(np.float32)


def _mono(waveform: np.ndarray) -> np.ndarray:
    signal = np.asarray(waveform, np.float32)
    if signal.ndim != 1:
        raise AudioError(f"a waveform must be (samples,), got shape {signal.shape}; mix its channels first")
    return signal


def encode_flac(waveform: np.ndarray, sample_rate_hz: int) -> bytes:
    """Return 16-bit FLAC bytes; equal waveforms give equal bytes. Samples outside [-1, 1] are clipped.

    No samples give only a header, which libsndfile cannot write. NaN and infinity raise AudioError: they would
    become clicks that cannot be traced.
    """
    signal = _mono(waveform)
    if not np.isfinite(signal).all():
        raise AudioError(f"{np.count_nonzero(~np.isfinite(signal))} of {signal.size} samples are NaN or infinite")
    if not signal.size:
        return _empty_flac(sample_rate_hz)
    pcm = np.rint(signal * _PCM_FULL_SCALE).clip(-_PCM_FULL_SCALE, _PCM_FULL_SCALE - 1).astype(np.int16)
    stream = io.BytesIO()
    soundfile.write(stream, pcm, sample_rate_hz, format="FLAC", subtype="PCM_16")
    return stream.getvalue()


def _empty_flac(sample_rate_hz: int) -> bytes:
    """Return magic, block header and STREAMINFO of mono 16-bit FLAC without frames (RFC 9639, section 8.2)."""
    format_bits = sample_rate_hz << 44 | 0 << 41 | 15 << 36  # rate, channels - 1, bits - 1, no samples
    stream_info = bytes.fromhex("10001000") + bytes(6) + format_bits.to_bytes(8, "big") + hashlib.md5(b"").digest()  # noqa: S324 (FLAC prescribes MD5)
    return _EMPTY_FLAC_HEAD + stream_info


def is_empty_flac(data: bytes) -> bool:
    """Return whether these bytes are FLAC without samples, as `encode_flac` writes it."""
    return data.startswith(_EMPTY_FLAC_HEAD) and len(data) == _EMPTY_FLAC_BYTES


def decode(data: bytes, *, channels: Literal["mono", "mix"] = "mono") -> tuple[np.ndarray, int]:
    """Decode any format libsndfile knows: (samples,) float32 and the sample rate in Hz.

    Several channels raise AudioError unless `channels` is "mix", which averages them.
    """
    if is_empty_flac(data):  # libsndfile refuses it
        return np.zeros(0, np.float32), int.from_bytes(data[18:21], "big") >> 4
    try:
        samples, sample_rate_hz = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise AudioError(f"{len(data)} bytes are not audio that libsndfile can read: {error}") from error
    if samples.shape[1] > 1 and channels == "mono":
        raise AudioError(f"audio has {samples.shape[1]} channels, expected one; pass channels='mix' to average them")
    return samples.mean(axis=1, dtype=np.float32), int(sample_rate_hz)


def begins_with(waveform: np.ndarray, head: np.ndarray) -> bool:
    """Return whether the first samples are those of `head`, (samples,) at one rate, but for what a lossy codec changes.

    The difference may have a tenth of the head's power; two recordings that have nothing in common differ by more
    than all of it.
    """
    start = waveform[: len(head)]
    return len(start) == len(head) and rms(start - head) ** 2 <= 0.1 * rms(head) ** 2 and rms(head) > 0


def rms(waveform: np.ndarray) -> float:
    """Return the root mean square of the samples; no samples are silence, 0."""
    signal = np.asarray(waveform, np.float64)
    return float(np.sqrt(np.mean(signal**2))) if signal.size else 0.0


def fft_size(window_samples: int) -> int:
    """Return the smallest power of two that holds the window: the spectrum has fft_size // 2 + 1 bins."""
    return 1 << (window_samples - 1).bit_length()


@lru_cache(maxsize=16)
def mel_filterbank(*, sample_rate_hz: int, num_mels: int, num_bins: int) -> np.ndarray:
    """Return (num_bins, num_mels) float32 triangles of peak 1, evenly spaced in mel from 0 Hz to Nyquist.

    mel = 1127 ln(1 + Hz / 700). AudioError if a triangle falls between two bins, because it would always be silent.
    The array is cached and read-only.
    """
    edges_hz = 700 * np.expm1(np.linspace(0, np.log1p(sample_rate_hz / 2 / 700), num_mels + 2))
    bins_hz = np.linspace(0, sample_rate_hz / 2, num_bins)[:, None]
    low, peak, high = edges_hz[:-2], edges_hz[1:-1], edges_hz[2:]
    bank = np.minimum((bins_hz - low) / (peak - low), (high - bins_hz) / (high - peak)).clip(0).astype(np.float32)
    if not bank.any(axis=0).all():
        raise AudioError(
            f"{num_mels} mel bands are too fine for {num_bins} spectrum bins at {sample_rate_hz} Hz: "
            f"band {int(bank.any(axis=0).argmin())} covers no bin. Lower num_mels or raise window_samples."
        )
    bank.setflags(write=False)
    return bank


def num_frames(num_samples: int, *, window_samples: int, hop_samples: int, centre: bool = True) -> int:
    """Return how many frames `log_mel` makes of `num_samples` samples."""
    padded = num_samples + 2 * (window_samples // 2) * centre
    return 0 if num_samples == 0 or padded < window_samples else 1 + (padded - window_samples) // hop_samples


def frames_of(waveform: np.ndarray, *, window_samples: int, hop_samples: int, centre: bool) -> np.ndarray:
    """Cut (samples,) into overlapping (frames, window_samples); zeros are added when centred."""
    count = num_frames(waveform.size, window_samples=window_samples, hop_samples=hop_samples, centre=centre)
    if count == 0:
        return np.zeros((0, window_samples), np.float32)
    signal = np.pad(waveform, window_samples // 2) if centre else waveform
    return np.lib.stride_tricks.sliding_window_view(signal, window_samples)[::hop_samples][:count]


@lru_cache(maxsize=16)
def hann(window_samples: int) -> np.ndarray:
    """Return the periodic Hann window, (window_samples,) float32. NumPy has the symmetric one, a sample longer."""
    return np.hanning(window_samples + 1)[:-1].astype(np.float32)


def log_mel(
    waveform: np.ndarray,
    *,
    sample_rate_hz: int,
    num_mels: int,
    window_samples: int,
    hop_samples: int,
    centre: bool = True,
) -> np.ndarray:
    """Return (frames, num_mels) float32: ln of mel power, floored at ln(LOG_FLOOR).

    Periodic Hann window, power spectrum of `fft_size(window_samples)` points. Centred, frame i looks at sample
    i * hop_samples and the ends are padded with zeros: 1 + samples // hop_samples frames for an even window.
    """
    signal = _mono(waveform)
    cut = frames_of(signal, window_samples=window_samples, hop_samples=hop_samples, centre=centre)
    if not len(cut):
        return np.zeros((0, num_mels), np.float32)
    spectrum = scipy.fft.rfft(cut * hann(window_samples), fft_size(window_samples), axis=1)
    power = spectrum.real**2 + spectrum.imag**2
    bank = mel_filterbank(sample_rate_hz=sample_rate_hz, num_mels=num_mels, num_bins=power.shape[1])
    return np.log(np.maximum(power @ bank, np.float32(LOG_FLOOR)))
