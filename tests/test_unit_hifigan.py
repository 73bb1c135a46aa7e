"""The unit HiFi-GAN against a slow reading of the published form, alone and in batches of mixed length."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alignslm import tables
from alignslm.utterances import decode_at
from alignslm.vocoder import VocoderError, load_vocoder, prepare_vocoder
from alignslm.vocoder.rows import synthesize_rows
from alignslm.vocoder.unit_hifigan import BATCH_SAMPLES, UnitHifiganVocoder, batches
from alignslm.vocoder.unit_hifigan_checkpoint import fold_weight_norm
from alignslm.vocoder.unit_hifigan_net import PaddingMask
from tests.messages import names
from tests.tiny_hifigan import (
    NUM_UNITS,
    RATE_HZ,
    SETTINGS,
    SEVERAL,
    config_of,
    contract_of,
    naive_durations,
    naive_speech,
    random_generator,
    write_checkpoint,
)

UNITS = [3, 1, 4, 1, 5, 9]
SEQUENCES = [[0, 3, 1], [2], [], [3, 2, 1, 0, 1, 2, 19], [1, 0, 2]]
ODD = {  # transposed convolutions that give one position more, other widths, 50 Hz
    "upsample_rates": [5, 8, 8],
    "upsample_kernel_sizes": [10, 17, 16],
    "upsample_initial_channel": 16,
    "resblock_kernel_sizes": [3, 5, 11],
    "resblock_dilation_sizes": [[1, 3], [2], [1, 3, 5]],
}


def prepared(folder: Path, **changes):
    """Write a checkpoint, prepare it, and return its settings, its choice and the artifact's folder."""
    keys = {key: changes.pop(key) for key in ("speaker", "style") if key in changes}
    published = write_checkpoint(folder / "published", **changes)
    config = config_of(folder / "published", **keys)
    prepare_vocoder(config, [], contract_of(published), folder / "vocoder")
    return published, config, folder / "vocoder"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return prepared(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def vocoder(tiny):
    _, config, folder = tiny
    return load_vocoder(config, folder, device="cpu")


@pytest.fixture(scope="module")
def batched(vocoder):
    """The same vocoder in batches, as on a GPU."""
    return UnitHifiganVocoder(vocoder._voice, vocoder._network, device="cpu", batch_samples=1_000_000)


@pytest.mark.parametrize(
    ("changes", "speaker", "style"),
    [
        ({}, 0, 0),
        (ODD, 0, 0),
        ({**SEVERAL, "speaker": "vctk_p225", "style": "whisper"}, 2, 1),
        ({**SEVERAL, "multistyle": None, "model_in_dim": 24, "speaker": 1}, 1, 0),
    ],
)
def test_it_says_what_the_architecture_says(tmp_path, changes, speaker, style):
    published, config, folder = prepared(tmp_path, **changes)
    state = random_generator(published)
    lasting = naive_durations(state, UNITS)
    expected = naive_speech(state, published, np.repeat(UNITS, lasting).tolist(), speaker, style)
    assert 0.01 < expected.std() < 0.9  # neither silent nor at the limits, where anything would agree
    vocoder = load_vocoder(config, folder, device="cpu")
    assert vocoder.durations([UNITS])[0].tolist() == lasting
    (waveform,) = vocoder.synthesize([UNITS])
    assert waveform.dtype == np.float32
    np.testing.assert_allclose(waveform, expected, atol=2e-5)


@pytest.mark.parametrize("changes", [{}, {**SEVERAL, "speaker": "vctk_p225", "style": "whisper"}])
def test_in_float16_durations_stay_and_samples_are_near(tmp_path, changes):
    _, config, folder = prepared(tmp_path, **changes)
    exact = load_vocoder(config, folder, device="cpu")
    short = load_vocoder(config.model_copy(update={"dtype": "float16"}), folder, device="cpu")
    rows = [UNITS * 5, [2], []]
    for one, other in zip(short.durations(rows), exact.durations(rows), strict=True):
        np.testing.assert_array_equal(one, other)
    for found, expected in zip(short.synthesize(rows[:2]), exact.synthesize(rows[:2]), strict=True):
        assert found.dtype == np.float32
        error = np.abs(found - expected).max() / np.abs(expected).max()
        assert 2e-5 < error < 0.005


def test_in_float16_too_a_batch_of_mixed_lengths_equals_one_by_one(tiny):
    _, config, folder = tiny
    short = load_vocoder(config.model_copy(update={"dtype": "float16"}), folder, device="cpu")
    together = UnitHifiganVocoder(short._voice, short._network, device="cpu", batch_samples=10**6, dtype="float16")
    rows = [row for row in SEQUENCES if row]
    for one, other in zip(together.synthesize(rows), short.synthesize(rows), strict=True):
        np.testing.assert_allclose(one, other, atol=0.002)


def test_numbers_beyond_float16_are_told(tiny):
    _, config, folder = tiny
    short = load_vocoder(config.model_copy(update={"dtype": "float16"}), folder, device="cpu")
    short._network.conv_pre.bias.data.fill_(6e4)
    with pytest.raises(VocoderError, match="write float32"):
        short.synthesize([UNITS])


def test_a_frame_lasts_640_samples_and_speakers_differ(tmp_path):
    published, config, folder = prepared(tmp_path, **SEVERAL, speaker="lj", style=0)
    lj = load_vocoder(config, folder, device="cpu").synthesize([UNITS])[0]
    assert len(lj) == sum(naive_durations(random_generator(published), UNITS)) * 640
    other = config_of(tmp_path / "published", speaker="ex01", style=0)
    prepare_vocoder(other, [], contract_of(published), tmp_path / "other")
    assert np.abs(load_vocoder(other, tmp_path / "other", device="cpu").synthesize([UNITS])[0] - lj).max() > 0.01


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.integers(0, NUM_UNITS - 1), max_size=9), min_size=2, max_size=6))
def test_a_batch_of_mixed_lengths_equals_one_by_one(vocoder, batched, rows):
    for together, alone in zip(batched.synthesize(rows), vocoder.synthesize(rows), strict=True):
        assert together.shape == alone.shape
        np.testing.assert_allclose(together, alone, atol=1e-4)


def test_it_is_the_clearing_that_keeps_padding_out(batched, vocoder, monkeypatch):
    rows = [[2], UNITS]
    alone = vocoder.synthesize(rows)[0]
    np.testing.assert_allclose(batched.synthesize(rows)[0], alone, atol=1e-5)
    monkeypatch.setattr(PaddingMask, "clear", lambda tail, x: x)
    assert np.abs(batched.synthesize(rows)[0][: len(alone)] - alone).max() > 1e-3


def test_on_a_cpu_a_waveform_is_the_same_to_the_bit_in_any_company(vocoder):
    together = vocoder.synthesize(SEQUENCES)
    for units, waveform in zip(SEQUENCES, together, strict=True):
        np.testing.assert_array_equal(vocoder.synthesize([units])[0], waveform)
    for waveform, backwards in zip(together, vocoder.synthesize(SEQUENCES[::-1])[::-1], strict=True):
        np.testing.assert_array_equal(waveform, backwards)


@given(st.lists(st.integers(0, 40), max_size=30), st.integers(1, 100))
def test_batches_hold_every_row_that_has_units_once_and_no_more_than_allowed(lengths, most):
    found = list(batches(lengths, most=most))
    assert sorted(row for batch in found for row in batch) == [row for row, length in enumerate(lengths) if length]
    assert all(len(batch) == 1 or len(batch) * max(lengths[row] for row in batch) <= most for batch in found)


@pytest.mark.parametrize(
    ("predicted", "frames"),
    [(-3.0, 1), (0.0, 1), (np.log(2.4), 1), (np.log(3.6), 3), (np.log(1 + 6.4), 6)],  # round(exp(p) - 1), at least 1
)
def test_durations_by_hand(tmp_path, predicted, frames):
    published, config, folder = prepared(tmp_path)
    vocoder = load_vocoder(config, folder, device="cpu")
    with torch.no_grad():
        vocoder._network.dur_predictor.proj.weight.zero_()
        vocoder._network.dur_predictor.proj.bias.fill_(float(predicted))
    assert vocoder.durations([[5, 6]])[0].tolist() == [frames, frames]
    assert published["dur_predictor_params"]


def test_a_unit_that_lasts_minutes_is_an_error(tmp_path):
    _, config, folder = prepared(tmp_path)
    vocoder = load_vocoder(config, folder, device="cpu")
    for bias, told in ((9.0, "8102"), (float("nan"), "nan")):
        with torch.no_grad():
            vocoder._network.dur_predictor.proj.weight.zero_()
            vocoder._network.dur_predictor.proj.bias.fill_(bias)
        with pytest.raises(VocoderError) as raised:
            vocoder.synthesize([[], [5]])
        names(raised.value, "sequence 1", f"{told} frames", "checkpoint")


def test_without_a_duration_predictor_units_last_one_frame_each_if_they_are_not_deduplicated(tmp_path):
    published = write_checkpoint(tmp_path / "published", dur_predictor_params=None)
    contract = contract_of(published).model_copy(update={"deduplicated": False})
    config = config_of(tmp_path / "published")
    prepare_vocoder(config, [], contract, tmp_path / "vocoder")
    units = [3, 3, 3, 1]
    (waveform,) = load_vocoder(config, tmp_path / "vocoder", device="cpu").synthesize([units])
    np.testing.assert_allclose(waveform, naive_speech(random_generator(published), published, units), atol=2e-5)


def test_no_units_no_samples_and_one_frame_is_a_waveform(vocoder):
    assert vocoder.synthesize([]) == []
    assert [row.shape for row in vocoder.synthesize([[], []])] == [(0,), (0,)]
    (waveform,) = vocoder.synthesize([[2]])
    assert waveform.shape == (640 * int(vocoder.durations([[2]])[0][0]),)


def test_continuations_become_rows_of_speech(vocoder):
    rows = pl.DataFrame(
        {"continuation_id": list("abcde"), "units": SEQUENCES}, schema_overrides={"units": tables.UNITS}
    )
    spoken = synthesize_rows(rows, vocoder)
    tables.verify(tables.conform(spoken, tables.SPEECH), tables.SPEECH, where="speech")
    assert spoken["status"].to_list() == ["ok", "ok", "empty", "ok", "ok"]
    assert spoken["sample_rate_hz"].unique().to_list() == [RATE_HZ]
    for units, record, num_samples in zip(SEQUENCES, spoken["audio"], spoken["num_samples"], strict=True):
        stored = decode_at(record, RATE_HZ)
        assert len(stored) == num_samples
        np.testing.assert_allclose(stored, vocoder.synthesize([units])[0], atol=2 / 32768)


def test_the_artifact_needs_neither_source_nor_pickle(tmp_path):
    _, config, folder = prepared(tmp_path)
    before = load_vocoder(config, folder, device="cpu").synthesize([UNITS])[0]
    for path in (tmp_path / "published").iterdir():
        path.unlink()
    np.testing.assert_array_equal(load_vocoder(config, folder, device="cpu").synthesize([UNITS])[0], before)
    assert sorted(path.name for path in folder.iterdir()) == ["model.safetensors", "vocoder.json"]


def test_preparing_twice_gives_the_same_bytes(tiny, tmp_path):
    _, config, folder = tiny
    prepare_vocoder(config, [], contract_of(SETTINGS), tmp_path)
    for path in folder.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()


def test_weight_norm_folds_as_torch_has_it():
    for module in (torch.nn.Conv1d(3, 5, 7), torch.nn.ConvTranspose1d(3, 5, 4, 2)):
        older = torch.nn.utils.weight_norm(module)
        with torch.no_grad():
            older.weight_g.mul_(torch.rand_like(older.weight_g) + 0.5)
        older(torch.zeros(1, 3, 9))  # recomputes the weight
        torch.testing.assert_close(fold_weight_norm(older.state_dict())["weight"], older.weight.detach())
    newer = torch.nn.utils.parametrizations.weight_norm(torch.nn.Conv1d(3, 5, 7))
    assert set(fold_weight_norm(newer.state_dict())) == {"weight", "bias"}
    torch.testing.assert_close(fold_weight_norm(newer.state_dict())["weight"], newer.weight.detach())


def test_the_default_batch_is_bounded(tiny):
    shape = load_vocoder(tiny[1], tiny[2], device="cpu")._voice.shape
    most = BATCH_SAMPLES // shape.samples_per_frame
    assert max(len(batch) for batch in batches([100] * 1000, most=most)) == most // 100
