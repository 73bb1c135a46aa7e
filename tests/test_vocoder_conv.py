"""The embedded vocoder on real tones: each unit is a pitch, so what it says can be measured."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from alignslm.audio import log_mel
from alignslm.config.speech import ConvGriffinLimConfig
from alignslm.convnet import MIN_STD, standardize
from alignslm.vocoder import load_vocoder, prepare_vocoder
from alignslm.vocoder.conv_griffinlim import ConvGriffinLimVocoder, UnitToMel, VocoderError, fit
from alignslm.vocoder.griffin_lim import griffin_lim, magnitude_of, pulse_phase, stft, unit
from tests.messages import names
from tests.tones import contract_of, spoken

RATE_HZ = 16000
FRAME_SAMPLES = 640
PITCHES_HZ = (300.0, 700.0, 1500.0, 3000.0)
STFT = {"window_samples": 512, "hop_samples": 160, "fft_samples": 512}
CONFIG = ConvGriffinLimConfig(
    kind="conv-griffinlim",
    seed=3,
    fit_utterances=12,
    sample_rate_hz=RATE_HZ,
    num_mels=40,
    hop_samples=160,
    window_samples=512,
    channels=32,
    layers=2,
    steps=80,
    batch_size=4,
    learning_rate=0.01,
    griffin_lim_iterations=2,
)
CONTRACT = contract_of(RATE_HZ)
ROWS = [spoken(seed, PITCHES_HZ, RATE_HZ) for seed in range(12)]
SEQUENCES = [[0, 3, 1], [2], [], [3, 2, 1, 0, 1, 2], [1, 0, 2]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vocoder")
    figures = prepare_vocoder(CONFIG, ROWS, CONTRACT, folder)
    assert set(figures) == {"mel_loss", "duration_loss"}
    assert figures["mel_loss"] < 0.5
    assert figures["duration_loss"] < 0.02
    return folder


@pytest.fixture(scope="module")
def vocoder(folder):
    return load_vocoder(CONFIG, folder, device="cpu")


def loudest_hz(waveform: np.ndarray) -> float:
    return float(np.abs(np.fft.rfft(waveform)).argmax() * RATE_HZ / waveform.size)


def test_it_says_each_unit_for_its_duration_at_its_pitch(vocoder):
    units = [3, 2, 3, 2]
    assert vocoder.durations(units).tolist() == [4, 3, 4, 3]
    (waveform,) = vocoder.synthesize([units])
    assert waveform.shape == (14 * FRAME_SAMPLES,)
    assert waveform.dtype == np.float32
    assert loudest_hz(waveform[FRAME_SAMPLES : 3 * FRAME_SAMPLES]) == pytest.approx(PITCHES_HZ[3], rel=0.08)
    assert loudest_hz(waveform[5 * FRAME_SAMPLES : 6 * FRAME_SAMPLES]) == pytest.approx(PITCHES_HZ[2], rel=0.08)


def test_a_waveform_does_not_depend_on_its_batch(vocoder):
    together = vocoder.synthesize(SEQUENCES)
    for units, waveform in zip(SEQUENCES, together, strict=True):
        np.testing.assert_array_equal(vocoder.synthesize([units])[0], waveform)
    for waveform, backwards in zip(together, vocoder.synthesize(SEQUENCES[::-1])[::-1], strict=True):
        np.testing.assert_array_equal(waveform, backwards)


def test_no_units_no_samples(vocoder):
    assert vocoder.synthesize([]) == []
    (waveform,) = vocoder.synthesize([[]])
    assert waveform.shape == (0,)
    assert waveform.dtype == np.float32


def test_loading_gives_what_was_saved(folder, vocoder):
    again = ConvGriffinLimVocoder.load(folder)
    assert again.contract == CONTRACT
    assert again.sample_rate_hz == RATE_HZ
    np.testing.assert_array_equal(again.synthesize([[0, 1]])[0], vocoder.synthesize([[0, 1]])[0])


def test_fitting_twice_gives_the_same_bytes_and_leaves_the_global_generator(tmp_path):
    short = CONFIG.model_copy(update={"steps": 4})
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    fit(short, ROWS, CONTRACT, tmp_path / "a")
    assert torch.rand(1) == expected
    fit(short, ROWS, CONTRACT, tmp_path / "b")
    for name in ("model.safetensors", "vocoder.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    fit(short.model_copy(update={"seed": 4}), ROWS, CONTRACT, tmp_path / "c")
    assert (tmp_path / "a/model.safetensors").read_bytes() != (tmp_path / "c/model.safetensors").read_bytes()


def test_padding_and_mask_change_nothing_for_a_row():
    torch.manual_seed(0)
    model = UnitToMel(CONFIG, num_units=4, mels_per_frame=4)
    frames = torch.tensor([[1, 2, 3, 0, 0, 0]])
    mask = torch.tensor([[[1.0, 1, 1, 0, 0, 0]]])
    with torch.no_grad():
        torch.testing.assert_close(model.normal_mel(frames, mask)[:, :12], model.normal_mel(frames[:, :3]))
        torch.testing.assert_close(model.log_durations(frames, mask)[:, :3], model.log_durations(frames[:, :3]))


def test_units_outside_the_codebook_are_refused(vocoder):
    with pytest.raises(VocoderError) as raised:
        vocoder.synthesize([[0], [1, 4]])
    names(raised.value, "sequence 1", "unit 4", "[0, 4)")
    with pytest.raises(VocoderError, match="sequence 0 contains unit -1"):
        vocoder.synthesize([[-1]])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (ROWS[0]._replace(durations=ROWS[0].durations[1:]), "durations; they must match"),
        (ROWS[0]._replace(waveform=ROWS[0].waveform[::2]), "the waveform is not at 16000 Hz, or the units are of ano"),
        (ROWS[0]._replace(units=ROWS[0].units + 4), r"sequence 0 contains unit \d, outside \[0, 4\)"),
    ],
)
def test_rows_that_do_not_fit_are_named(tmp_path, row, message):
    with pytest.raises(VocoderError, match=message):
        fit(CONFIG, [row], CONTRACT, tmp_path)


def test_no_rows_no_whole_hop_no_folder(tmp_path):
    with pytest.raises(VocoderError, match="no utterance to fit the vocoder on"):
        fit(CONFIG, [], CONTRACT, tmp_path)
    with pytest.raises(VocoderError) as raised:
        fit(CONFIG.model_copy(update={"hop_samples": 256}), ROWS, CONTRACT, tmp_path)
    names(raised.value, "2.5", "16000", "hop_samples", "256", "25")
    with pytest.raises(VocoderError) as raised:
        ConvGriffinLimVocoder.load(tmp_path)
    names(raised.value, "dvc repro vocoder", "vocoder.json")


def spectrum_of(waveform: np.ndarray) -> torch.Tensor:
    return stft(torch.from_numpy(waveform), **STFT)


def test_griffin_lim_recovers_a_tone_and_iterations_help():
    tone = (0.5 * np.sin(2 * np.pi * 1000 * np.arange(8000) / RATE_HZ)).astype(np.float32)
    magnitude = spectrum_of(tone).abs()
    phase = pulse_phase(len(magnitude), sample_rate_hz=RATE_HZ, **STFT)

    def error(iterations: int) -> float:
        waveform = griffin_lim(magnitude, phase, iterations=iterations, **STFT)
        assert waveform.shape == (len(magnitude) * 160,)
        return float((stft(waveform, **STFT)[: len(magnitude)].abs() - magnitude).norm())

    assert loudest_hz(griffin_lim(magnitude, phase, iterations=20, **STFT).numpy()) == pytest.approx(1000, abs=5)
    assert error(0) > error(2) > error(20)


def test_griffin_lim_with_the_true_phase_is_the_waveform():
    waveform = np.random.default_rng(0).normal(size=3200).astype(np.float32)
    spectrum = spectrum_of(waveform)[:20]
    out = griffin_lim(spectrum.abs(), unit(spectrum), iterations=0, **STFT)
    np.testing.assert_allclose(out.numpy()[:2900], waveform[:2900], atol=1e-4)


def test_pulse_phase_is_of_unit_size_and_a_prefix_stays():
    phase = pulse_phase(300, sample_rate_hz=RATE_HZ, **STFT)
    torch.testing.assert_close(phase.abs(), torch.ones(300, 257))
    assert torch.equal(phase[:40], pulse_phase(40, sample_rate_hz=RATE_HZ, **STFT))


def test_mel_inversion_gives_back_the_mel_of_a_smooth_spectrum():
    """White noise has a flat spectrum: its inverted magnitudes are flat too, at the noise's own level."""
    noise = np.random.default_rng(0).normal(size=160000).astype(np.float32)
    mel = log_mel(noise, sample_rate_hz=RATE_HZ, num_mels=40, window_samples=512, hop_samples=160)
    average = torch.from_numpy(np.log(np.exp(mel[5:-5]).mean(axis=0, keepdims=True)))
    power = magnitude_of(average, sample_rate_hz=RATE_HZ, num_bins=257)[0, 10:-10] ** 2
    np.testing.assert_allclose(power.numpy(), 0.375 * 512, rtol=0.25)  # noise variance x sum of squared Hann


@given(st.lists(st.integers(1, 30), min_size=1, max_size=6), st.integers(0, 9))
def test_rows_are_standardised_over_all_their_frames(lengths, seed):
    rng = np.random.default_rng(seed)
    rows = [(rng.standard_normal((length, 3)) * [1, 5, 0] + [0, -40, 7]).astype(np.float32) for length in lengths]
    every = np.concatenate(rows).astype(np.float64)
    standard, mean, std = standardize(rows)
    np.testing.assert_allclose(mean, every.mean(axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(std, np.maximum(every.std(axis=0), MIN_STD), rtol=1e-4, atol=1e-5)
    for row, given_row in zip(standard, rows, strict=True):
        np.testing.assert_allclose(row, (given_row - mean) / std, rtol=1e-6)
        assert row.dtype == np.float32
