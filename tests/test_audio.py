"""Waveforms in, waveforms and spectra out: every promise of alignslm.audio."""

import re

import numpy as np
import pytest
import scipy.signal
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from alignslm import audio
from tests.messages import names

RATE_HZ = 16000


def sine(frequency_hz: float, seconds: float = 0.5, rate_hz: int = RATE_HZ) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * frequency_hz * np.arange(round(seconds * rate_hz)) / rate_hz)).astype(np.float32)


def slow_log_mel(waveform, rate_hz, num_mels, window_samples, hop_samples):
    """Written from the definition: one frame, one frequency and one triangle at a time."""
    size = 1
    while size < window_samples:
        size *= 2
    half = window_samples // 2
    padded = np.concatenate([np.zeros(half), waveform.astype(float), np.zeros(half)])
    edges = 700 * (np.exp(np.linspace(0, 1127 * np.log(1 + rate_hz / 1400), num_mels + 2) / 1127) - 1)
    rows = []
    for start in range(0, len(padded) - window_samples + 1, hop_samples):
        hann = [0.5 - 0.5 * np.cos(2 * np.pi * n / window_samples) for n in range(window_samples)]
        frame = padded[start : start + window_samples] * hann
        mels = np.zeros(num_mels)
        for k in range(size // 2 + 1):
            power = abs(sum(frame * np.exp(-2j * np.pi * k * np.arange(window_samples) / size))) ** 2
            hz = k * rate_hz / size
            for m in range(num_mels):
                low, peak, high = edges[m : m + 3]
                mels[m] += power * max(0.0, min((hz - low) / (peak - low), (high - hz) / (high - peak)))
        rows.append(np.log(np.maximum(mels, audio.LOG_FLOOR)))
    return np.array(rows)


def test_log_mel_equals_its_definition():
    waveform = np.random.default_rng(0).normal(size=200).astype(np.float32)
    fast = audio.log_mel(waveform, sample_rate_hz=8000, num_mels=7, window_samples=48, hop_samples=20)
    assert fast.dtype == np.float32
    assert fast.shape == (11, 7)
    np.testing.assert_allclose(fast, slow_log_mel(waveform, 8000, 7, 48, 20), atol=2e-4)


@given(st.integers(0, 700), st.sampled_from([32, 33, 64]), st.integers(1, 50), st.booleans())
@settings(max_examples=60, deadline=None)
def test_num_frames_is_what_log_mel_returns(num_samples, window, hop, centre):
    options = {"window_samples": window, "hop_samples": hop, "centre": centre}
    mel = audio.log_mel(np.ones(num_samples, np.float32), sample_rate_hz=8000, num_mels=4, **options)
    assert len(mel) == audio.num_frames(num_samples, **options)
    if centre and window % 2 == 0 and num_samples:
        assert len(mel) == 1 + num_samples // hop


@pytest.mark.parametrize("samples", [2, 48, 320, 400, 551, 1024])
def test_the_window_is_scipys_periodic_hann(samples):
    expected = scipy.signal.get_window("hann", samples).astype(np.float32)
    np.testing.assert_array_equal(audio.hann(samples), expected)


def test_silence_is_the_floor_and_a_tone_peaks_in_its_band():
    options = {"sample_rate_hz": RATE_HZ, "num_mels": 40, "window_samples": 400, "hop_samples": 160}
    assert np.all(audio.log_mel(np.zeros(1600, np.float32), **options) == np.float32(np.log(1e-6)))
    bank = audio.mel_filterbank(sample_rate_hz=RATE_HZ, num_mels=40, num_bins=257)
    for frequency_hz in (500.0, 1000.0, 3000.0):
        loudest = audio.log_mel(sine(frequency_hz), **options)[20].argmax()
        assert loudest == bank[round(frequency_hz / RATE_HZ * 512)].argmax()


def test_mel_filterbank_triangles():
    bank = audio.mel_filterbank(sample_rate_hz=RATE_HZ, num_mels=20, num_bins=257)
    assert bank.shape == (257, 20)
    assert (bank >= 0).all()
    assert bank.max() <= 1
    peaks = bank.argmax(axis=0)
    assert (np.diff(peaks) > 0).all()
    # between the first and the last centre, neighbouring triangles add up to one
    np.testing.assert_allclose(bank[peaks[0] + 1 : peaks[-1]].sum(axis=1), 1, atol=1e-6)
    with pytest.raises(ValueError, match="read-only"):
        bank[0, 0] = 1


def test_too_many_mels_name_the_empty_band():
    with pytest.raises(audio.AudioError) as raised:
        audio.mel_filterbank(sample_rate_hz=RATE_HZ, num_mels=80, num_bins=33)
    names(raised.value, "80 mel bands", "33", "16000 Hz", "band 0", "num_mels", "window_samples")


@given(hnp.arrays(np.int16, st.integers(0, 300)))
@settings(max_examples=40, deadline=None)
def test_flac_round_trip_is_exact_on_16_bit_audio(pcm):
    waveform = pcm.astype(np.float32) / 32768
    data = audio.encode_flac(waveform, 22050)
    decoded, rate_hz = audio.decode(data)
    assert rate_hz == 22050
    assert decoded.dtype == np.float32
    np.testing.assert_array_equal(decoded, waveform)
    assert audio.encode_flac(decoded, rate_hz) == data


def test_flac_rounds_and_clips():
    decoded, _ = audio.decode(audio.encode_flac(np.array([2.0, -3.0, 0.6 / 32768, -1.0], np.float32), RATE_HZ))
    np.testing.assert_array_equal(decoded * 32768, [32767, -32768, 1, -32768])


def test_flac_refuses_nan():
    with pytest.raises(audio.AudioError, match=re.escape("2 of 3 samples are NaN or infinite")):
        audio.encode_flac(np.array([np.nan, 0, np.inf], np.float32), RATE_HZ)


def test_stereo_is_refused_unless_mixed(tmp_path):
    stereo = np.array([[0.5, 0.25], [0.0, -0.5]], np.float32)
    soundfile.write(tmp_path / "a.wav", stereo, 8000, subtype="FLOAT")
    data = (tmp_path / "a.wav").read_bytes()
    with pytest.raises(audio.AudioError) as raised:
        audio.decode(data)
    names(raised.value, "2 channels", "channels='mix'")
    np.testing.assert_array_equal(audio.decode(data, channels="mix")[0], np.float32([0.375, -0.25]))


def test_noise_is_no_audio():
    with pytest.raises(audio.AudioError) as raised:
        audio.decode(b"hello")
    names(raised.value, "5 bytes", "libsndfile")


@pytest.mark.parametrize(("from_hz", "to_hz"), [(22050, 16000), (16000, 24000), (48000, 16000)])
def test_resampling_keeps_a_tone(from_hz, to_hz):
    out = audio.resample(sine(440, rate_hz=from_hz), from_hz=from_hz, to_hz=to_hz)
    assert out.dtype == np.float32
    assert out.size == -(-round(0.5 * from_hz) * to_hz // from_hz)
    middle = slice(to_hz // 10, -to_hz // 10)
    np.testing.assert_allclose(out[middle], sine(440, rate_hz=to_hz)[: out.size][middle], atol=2e-3)


@pytest.mark.parametrize(("from_hz", "up", "down"), [(22050, 320, 441), (16000, 3, 2), (48000, 1, 3)])
def test_the_kept_filter_is_the_one_that_scipy_designs(from_hz, up, down):
    noise = np.random.default_rng(0).normal(size=5000).astype(np.float32)
    expected = scipy.signal.resample_poly(noise, up, down)
    np.testing.assert_array_equal(audio.resample(noise, from_hz=from_hz, to_hz=from_hz * up // down), expected)


def test_resampling_to_the_same_rate_changes_nothing():
    waveform = sine(440)
    assert audio.resample(waveform, from_hz=RATE_HZ, to_hz=RATE_HZ) is waveform
    assert audio.resample(np.zeros(0, np.float32), from_hz=8000, to_hz=RATE_HZ).shape == (0,)


def test_waveforms_are_one_dimensional_and_rates_positive():
    with pytest.raises(audio.AudioError) as raised:
        audio.resample(np.zeros((2, 3)), from_hz=8000, to_hz=4000)
    names(raised.value, "(samples,)", "(2, 3)")
    with pytest.raises(audio.AudioError) as raised:
        audio.resample(np.zeros(3), from_hz=8000, to_hz=0)
    names(raised.value, "8000 Hz", "0 Hz", "positive")


def test_rms_by_hand():
    assert audio.rms(np.array([3.0, -4.0], np.float32)) == pytest.approx(np.sqrt(12.5))
    assert audio.rms(np.zeros(0, np.float32)) == 0.0
