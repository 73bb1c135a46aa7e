"""The MFCC k-means encoder on real (espeak) speech."""

from pathlib import Path

import numpy as np
import pytest
import scipy.spatial.distance
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from alignslm import audio
from alignslm.config.speech import MFCCKMeansConfig
from alignslm.encoder import load_encoder, mfcc_kmeans, prepare_encoder
from alignslm.encoder.mfcc_kmeans import EncoderError, MfccKmeansEncoder, features, mfcc, nearest, stack
from alignslm.provenance import file_sha256
from alignslm.storyworld.espeak import synthesize
from tests.messages import names

CONFIG = MFCCKMeansConfig(
    kind="mfcc-kmeans",
    seed=0,
    sample_rate_hz=16000,
    frame_rate_hz=25.0,
    num_coefficients=13,
    stacked_frames=3,
    num_units=20,
    fit_utterances=4,
)
TEXTS = (
    "anna feeds some red ducks near the field",
    "tom reads a new book at school",
    "the boys cook the big beans for lunch",
    "she brushes them through the gate",
    "soon he solves the test again",
)


@pytest.fixture(scope="module")
def waveforms() -> list[np.ndarray]:
    return [synthesize(text, voice="en-us", words_per_minute=170, sample_rate_hz=16000) for text in TEXTS]


@pytest.fixture(scope="module")
def folder(waveforms: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoder") / "fitted"
    prepare_encoder(CONFIG, iter(waveforms), folder)
    return folder


def test_units_are_the_nearest_centroids_by_an_independent_distance(waveforms: list[np.ndarray], folder: Path) -> None:
    codebook = load_file(folder / "codebook.safetensors")["codebook"].astype(np.float64)
    for waveform, encoded in zip(waveforms, load_encoder(CONFIG, folder, device="cpu").encode(waveforms), strict=True):
        points = features(waveform, CONFIG)
        expected = scipy.spatial.distance.cdist(points, codebook).argmin(axis=1)
        assert np.repeat(encoded.units, encoded.durations).tolist() == expected.tolist()
        assert encoded.durations.sum() == len(points) == 1 + len(waveform) // 640
        assert (np.diff(encoded.units.astype(int)) != 0).all()
        assert (encoded.units.dtype, encoded.durations.dtype) == (np.uint16, np.uint16)


def test_ties_go_to_the_lowest_index() -> None:
    codebook = np.array([[5, 5], [1, 0], [-1, 0], [0, 1]], np.float32)
    assert nearest(np.array([[0, 0], [5, 5], [-3, 0]], np.float32), codebook).tolist() == [1, 0, 2]


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(1, 9))
def test_nearest_does_not_depend_on_the_rows_around(seed: int, rows: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    points, codebook = rng.normal(size=(rows, width)).astype("f4"), rng.normal(size=(7, width)).astype("f4")
    together = nearest(points, codebook)
    assert together.tolist() == [int(nearest(point[None], codebook)[0]) for point in points]
    squared = np.array([[((p - c) ** 2).sum() for c in codebook] for p in points])
    np.testing.assert_allclose(squared[np.arange(rows), together], squared.min(axis=1), rtol=1e-5, atol=1e-6)


def test_more_frames_than_are_compared_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    points, codebook = rng.normal(size=(50, 3)).astype("f4"), rng.normal(size=(7, 3)).astype("f4")
    whole = nearest(points, codebook)
    monkeypatch.setattr(mfcc_kmeans, "_ROWS_AT_ONCE", 7)
    np.testing.assert_array_equal(nearest(points, codebook), whole)


def test_units_are_the_same_alone_in_a_batch_and_in_any_order(waveforms: list[np.ndarray], folder: Path) -> None:
    encoder = load_encoder(CONFIG, folder, device="cpu")
    together, reversed_ = encoder.encode(waveforms), encoder.encode(waveforms[::-1])[::-1]
    for index, waveform in enumerate(waveforms):
        for other in (encoder.encode([waveform])[0], reversed_[index]):
            assert other.units.tolist() == together[index].units.tolist()
            assert other.durations.tolist() == together[index].durations.tolist()
    assert encoder.encode([]) == []


def test_fitting_again_gives_the_same_bytes_and_another_seed_others(
    waveforms: list[np.ndarray], folder: Path, tmp_path: Path
) -> None:
    prepare_encoder(CONFIG, waveforms, tmp_path / "again")
    prepare_encoder(CONFIG.model_copy(update={"seed": 1}), waveforms, tmp_path / "seed")
    prepare_encoder(CONFIG, waveforms[:4], tmp_path / "first-four")
    name = "codebook.safetensors"
    hashes = {key: file_sha256(tmp_path / key / name) for key in ("again", "seed", "first-four")}
    assert hashes["again"] == file_sha256(folder / name) == hashes["first-four"]
    assert hashes["seed"] != hashes["again"]


def test_the_contract_tells_everything_a_unit_number_means(folder: Path) -> None:
    assert load_encoder(CONFIG, folder, device="cpu").contract.model_dump() == {
        "encoder": "mfcc-kmeans",
        "revision": "mfcc13x3-mel40-window0.064s-energy0.25",
        "sample_rate_hz": 16000,
        "frame_rate_hz": 25.0,
        "layer": None,
        "padding": "centred",
        "codebook_sha256": file_sha256(folder / "codebook.safetensors"),
        "num_units": 20,
        "deduplicated": True,
    }


def test_mfcc_is_the_cosine_transform_written_out(waveforms: list[np.ndarray]) -> None:
    waveform = waveforms[0][:4000]
    mel = audio.log_mel(waveform, sample_rate_hz=16000, num_mels=40, window_samples=1024, hop_samples=640)
    size = mel.shape[1]
    expected = np.zeros((len(mel), 13))
    for k in range(13):
        wave = np.cos(np.pi * k * (2 * np.arange(size) + 1) / (2 * size))
        expected[:, k] = (mel * wave).sum(axis=1) * np.sqrt((1 if k == 0 else 2) / size)
    expected[:, 0] *= 0.25
    np.testing.assert_allclose(mfcc(waveform, CONFIG), expected, rtol=1e-4, atol=1e-4)


def test_stacking_repeats_the_ends() -> None:
    frames = np.array([[1, 10], [2, 20], [3, 30]], np.float32)
    assert stack(frames, 3).tolist() == [[1, 10, 1, 10, 2, 20], [1, 10, 2, 20, 3, 30], [2, 20, 3, 30, 3, 30]]
    assert stack(frames, 1).tolist() == frames.tolist()
    with pytest.raises(EncoderError, match=r"stacked_frames must be odd, .*; got 2"):
        stack(frames, 2)


def test_every_unfit_waveform_is_named_at_once(folder: Path) -> None:
    good = np.zeros(800, np.float32)
    nan = good.copy()
    nan[3] = np.nan
    with pytest.raises(EncoderError) as error:
        load_encoder(CONFIG, folder, device="cpu").encode(
            [good, good.astype(np.float64), np.zeros((2, 800), "f4"), good[:0], nan]
        )
    names(error.value, "4 of 5", "waveform 1: ", "float64", "float32", "waveform 2: ", "(2, 800)", "channels")
    names(error.value, "waveform 3: ", "waveform 4: 1 samples", "NaN")


def test_silence_and_clicks_shorter_than_a_frame_encode(folder: Path) -> None:
    for samples in (1, 639, 640, 5000):
        encoded = load_encoder(CONFIG, folder, device="cpu").encode([np.zeros(samples, np.float32)])[0]
        assert encoded.durations.tolist() == [1 + samples // 640]


def test_too_little_speech_for_the_codebook_is_refused(waveforms: list[np.ndarray], tmp_path: Path) -> None:
    with pytest.raises(EncoderError) as raised:
        prepare_encoder(CONFIG, [waveforms[0][:4000]], tmp_path)
    names(raised.value, "7 frames", "20 units")
    with pytest.raises(EncoderError, match=r"utterances give 0 frames"):
        prepare_encoder(CONFIG, [], tmp_path)


def test_a_folder_without_an_encoder_is_told(tmp_path: Path) -> None:
    with pytest.raises(EncoderError) as raised:
        load_encoder(CONFIG, tmp_path, device="cpu")
    names(raised.value, "dvc repro", "codebook.safetensors", "encoder.json")


def test_a_codebook_of_other_settings_is_refused() -> None:
    with pytest.raises(EncoderError, match=r"codebook is float32 \(5, 4\), expected float32 \(20, 39\)"):
        MfccKmeansEncoder(CONFIG, np.zeros((5, 4), np.float32), codebook_sha256="")


def test_a_frame_rate_between_samples_is_refused() -> None:
    with pytest.raises(EncoderError, match=r"frame_rate_hz 30.0 does not divide sample_rate_hz 16000"):
        mfcc(np.zeros(800, np.float32), CONFIG.model_copy(update={"frame_rate_hz": 30.0}))


def test_the_same_words_give_nearly_the_same_units_when_shifted(waveforms: list[np.ndarray], folder: Path) -> None:
    encoder = load_encoder(CONFIG, folder, device="cpu")
    one = encoder.encode([waveforms[4]])[0]
    moved = encoder.encode([waveforms[4][640:]])[0]
    # Moved by a whole frame, only the first frames see other neighbours.
    frames = [np.repeat(e.units, e.durations) for e in (one, moved)]
    np.testing.assert_array_equal(frames[0][4:], frames[1][3:])
