"""The HuBERT encoder on a tiny checkpoint in the public format and real (espeak) speech."""

import json
import shutil
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import polars as pl
import pytest
import scipy.spatial.distance
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from safetensors.numpy import load_file, save_file
from transformers import HubertModel

from alignslm import audio
from alignslm.audio import AudioError
from alignslm.config.hubert import HubertEncoderConfig
from alignslm.config.sources import FolderSource, HubSource
from alignslm.encoder import load_encoder, prepare_encoder
from alignslm.encoder.hubert import HubertEncoder
from alignslm.encoder.rows import encode_utterances
from alignslm.encoder.waveforms import EncoderError
from alignslm.fetching import FetchError
from alignslm.integrity import DamagedError
from alignslm.loading import WeightsError
from alignslm.provenance import ContractError, file_sha256
from alignslm.storyworld.espeak import synthesize
from tests.messages import names
from tests.tiny_hub import commit_of, point_hub_at, serving
from tests.tiny_hubert import LAYERS, WIDTH, layer_features, tiny_hubert, write_tiny_checkpoint, write_tiny_codebook

RATE_HZ = 16000
TEXTS = (
    "anna feeds some red ducks near the field",
    "tom reads a new book at school",
    "the boys cook the big beans for lunch",
    "she brushes them through the gate",
)


@pytest.fixture(scope="module")
def waveforms() -> list[np.ndarray]:
    return [synthesize(text, voice="en-us", words_per_minute=170, sample_rate_hz=RATE_HZ) for text in TEXTS]


@pytest.fixture(scope="module")
def config(waveforms, tmp_path_factory) -> HubertEncoderConfig:
    return tiny_hubert(tmp_path_factory.mktemp("hubert"), waveforms)


@pytest.fixture(scope="module")
def folder(config, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("encoder") / "prepared"
    prepare_encoder(config, [], folder)
    return folder


@pytest.fixture(scope="module")
def encoder(config, folder) -> HubertEncoder:
    return load_encoder(config, folder, device="cpu")


def prepared(config: HubertEncoderConfig, folder: Path) -> HubertEncoder:
    prepare_encoder(config, [], folder)
    return load_encoder(config, folder, device="cpu")


def changed(config: HubertEncoderConfig, **values: object) -> HubertEncoderConfig:
    return HubertEncoderConfig.model_validate(config.model_dump() | values)


def checkpoint_of(config: HubertEncoderConfig) -> Path:
    return Path(config.weights.path)


def frames_of(encoded) -> list[int]:
    return np.repeat(encoded.units, encoded.durations).tolist()


def fault(config: HubertEncoderConfig, folder: Path) -> str:
    with pytest.raises((EncoderError, WeightsError)) as error:
        prepare_encoder(config, [], folder)
    return str(error.value)


# ---- What a unit is ----


def test_units_are_the_nearest_centroids_of_the_layer_by_an_independent_account(config, folder, encoder, waveforms):
    codebook = load_file(folder / "codebook.safetensors")["codebook"].astype("f8")
    for waveform, encoded in zip(waveforms, encoder.encode(waveforms), strict=True):
        points = layer_features(checkpoint_of(config), LAYERS, waveform).astype("f8")
        assert frames_of(encoded) == scipy.spatial.distance.cdist(points, codebook).argmin(axis=1).tolist()
        assert (np.diff(encoded.units.astype(int)) != 0).all()
        assert (encoded.units.dtype, encoded.durations.dtype) == (np.uint16, np.uint16)
        assert len(set(encoded.units.tolist())) > 10  # a deaf network would say one unit all along


@torch.inference_mode()
def test_layer_one_is_the_output_of_the_first_transformer_layer(config, waveforms, tmp_path):
    points = layer_features(checkpoint_of(config), 1, waveforms[0])
    codebook = write_tiny_codebook(tmp_path / "km.bin", points, num_units=20)
    source = FolderSource(kind="folder", path=str(codebook), sha256=file_sha256(codebook))
    first = prepared(changed(config, layer=1, codebook=source), tmp_path / "encoder")
    model = HubertModel.from_pretrained(checkpoint_of(config), dtype=torch.float32).eval()
    hidden = model.feature_projection(model.feature_extractor(torch.from_numpy(waveforms[0])[None]).transpose(1, 2))
    hidden = model.encoder.layer_norm(hidden + model.encoder.pos_conv_embed(hidden))
    by_hand = model.encoder.layers[0](hidden)[0].numpy()
    np.testing.assert_allclose(first.features(torch.from_numpy(waveforms[0])).numpy(), by_hand, atol=1e-5)
    assert np.abs(points - layer_features(checkpoint_of(config), 2, waveforms[0])).max() > 0.1


def test_durations_tell_time_without_drift(encoder, waveforms):
    for waveform, encoded in zip(waveforms, encoder.encode(waveforms), strict=True):
        assert 720 - 640 <= len(waveform) - 640 * int(encoded.durations.sum()) < 720


def test_the_checkpoints_wish_for_normalised_input_is_not_followed(config, encoder, waveforms, tmp_path):
    assert json.loads((checkpoint_of(config) / "preprocessor_config.json").read_text())["do_normalize"]
    louder = [2 * waveform for waveform in waveforms]
    normalising = prepared(changed(config, normalise_input=True), tmp_path)
    raw, normalised = encoder.features(encoder._prepared(waveforms[0])), normalising._prepared(waveforms[0])
    assert float(normalised.mean()) == pytest.approx(0, abs=1e-5)
    assert float(normalised.std()) == pytest.approx(1, abs=2e-2)
    assert not torch.allclose(raw, normalising.features(normalised))
    quiet_units, loud_units = ([frames_of(e) for e in normalising.encode(x)] for x in (waveforms, louder))
    same = np.concatenate(quiet_units) == np.concatenate(loud_units)
    assert same.mean() > 0.95
    assert (encoder.contract.revision.split()[2], normalising.contract.revision.split()[2]) == ("as-is", "normalised")


def test_zeros_at_both_ends_are_a_choice_that_the_contract_tells(config, encoder, tmp_path):
    padding = prepared(changed(config, pad_samples=40), tmp_path)
    waveform = np.random.default_rng(0).normal(0, 0.1, 3 * RATE_HZ).astype("f4")
    assert (len(encoder.frames(waveform)), len(padding.frames(waveform))) == (74, 75)
    by_hand = encoder.frames(np.pad(waveform, 40))
    assert padding.frames(waveform).tolist() == by_hand.tolist()
    with pytest.raises(ContractError) as error:
        encoder.contract.require(padding.contract, mine="units", theirs="prompts")
    names(error.value, "dvc repro", "none", "zeros 40")


def test_the_contract_tells_everything_a_unit_number_means(config, folder, encoder):
    origin = json.loads((folder / "source.json").read_text())
    assert encoder.contract.model_dump() == {
        "encoder": "hubert",
        "revision": f"{origin['weights']} float32 as-is window 100s overlap 10s",
        "sample_rate_hz": 16000,
        "frame_rate_hz": 25.0,
        "layer": 2,
        "padding": "none",
        "codebook_sha256": file_sha256(folder / "codebook.safetensors"),
        "num_units": 20,
        "deduplicated": True,
    }
    assert origin["codebook"] == f"sha256:{file_sha256(Path(config.codebook.path))}"


def test_a_codebook_means_the_same_in_every_format_and_another_of_its_shape_does_not(config, encoder, folder, tmp_path):
    centroids = load_file(folder / "codebook.safetensors")["codebook"]
    np.save(tmp_path / "km.npy", centroids)
    np.save(tmp_path / "other.npy", centroids[::-1])
    same, other = (
        prepared(changed(config, codebook={"kind": "folder", "path": str(tmp_path / name)}), tmp_path / name[:-4])
        for name in ("km.npy", "other.npy")
    )
    assert same.contract == encoder.contract
    with pytest.raises(ContractError) as raised:
        encoder.contract.require(other.contract, mine="units", theirs="language model")
    names(raised.value, "codebook_sha256")


@pytest.mark.parametrize("saved", [torch.bfloat16, torch.float16])
def test_the_dtype_is_the_configs_whatever_the_checkpoint_was_saved_in(config, waveforms, tmp_path, saved):
    model = HubertModel.from_pretrained(checkpoint_of(config), dtype=saved)
    model.save_pretrained(tmp_path / "checkpoint")
    source = {"kind": "folder", "path": str(tmp_path / "checkpoint")}
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        encoder = prepared(changed(config, weights=source, dtype=name), tmp_path / name)
        assert {parameter.dtype for parameter in encoder._model.parameters()} == {dtype}
        assert encoder.features(torch.from_numpy(waveforms[0])).dtype == dtype
        assert f" {name} " in encoder.contract.revision
        assert len(encoder.encode([waveforms[0]])[0].units) > 10


# ---- Alone or in any batch ----


@settings(max_examples=12, deadline=None)
@given(st.data())
def test_units_are_the_same_alone_in_any_batch_and_in_any_order(encoder, waveforms, data):
    lengths = st.integers(720, 12_000)
    batch = [data.draw(st.sampled_from(waveforms))[: data.draw(lengths)] for _ in range(data.draw(st.integers(1, 5)))]
    order = data.draw(st.permutations(range(len(batch))))
    alone = [frames_of(encoder.encode([waveform])[0]) for waveform in batch]
    assert [frames_of(item) for item in encoder.encode(batch)] == alone
    assert [frames_of(item) for item in encoder.encode([batch[i] for i in order])] == [alone[i] for i in order]


def test_padding_to_a_neighbours_length_would_change_the_units(encoder, waveforms):
    """What batches of unequal length do elsewhere: HuBERT base normalises its first layer over time."""
    alone = encoder.frames(waveforms[1])
    padded = encoder.frames(np.pad(waveforms[1], (0, 8000)))[: len(alone)]
    assert (alone != padded).mean() > 0.05


def test_nothing_to_encode(encoder):
    assert encoder.encode([]) == []


# ---- Long speech ----


def test_windows_of_a_network_that_sees_little_equal_the_whole_exactly(config, waveforms, tmp_path):
    """Without attention and with each frame normalised by itself, a frame sees no farther than the overlap."""
    path = tmp_path / "checkpoint"
    shutil.copytree(checkpoint_of(config), path)
    values = json.loads((path / "config.json").read_text()) | {"feat_extract_norm": "layer"}
    (path / "config.json").write_text(json.dumps(values))
    weights = load_file(path / "model.safetensors")
    for index in range(len(values["conv_kernel"])):
        for name, value in (("weight", 1), ("bias", 0)):
            key = f"feature_extractor.conv_layers.{index}.layer_norm.{name}"
            weights[key] = np.full(WIDTH, value, np.float32)
    for key in [key for key in weights if "attention.out_proj" in key]:
        weights[key] = np.zeros_like(weights[key])
    save_file(weights, path / "model.safetensors")
    near = prepared(changed(config, weights={"kind": "folder", "path": str(path)}), tmp_path / "whole")
    cut = prepared(near.config.model_copy(update={"window_s": 3.0, "overlap_s": 1.5}), tmp_path / "cut")
    speech = np.concatenate(waveforms)
    assert len(set(near.frames(speech).tolist())) > 5
    assert cut.frames(speech).tolist() == near.frames(speech).tolist()


@pytest.mark.parametrize(("window_s", "overlap_s", "bound"), [(20.0, 5.0, 0.05), (10.0, 2.0, 0.10)])
def test_windows_differ_from_the_whole_in_few_frames(config, encoder, waveforms, tmp_path, window_s, overlap_s, bound):
    speech = np.concatenate(waveforms * 8)
    cut = prepared(changed(config, window_s=window_s, overlap_s=overlap_s), tmp_path)
    whole, pieces = encoder.frames(speech), cut.frames(speech)
    assert len(speech) > 2 * window_s * RATE_HZ
    assert 0 < (whole != pieces).mean() < bound
    within = speech[: int(window_s * RATE_HZ)]
    assert cut.frames(within).tolist() == encoder.frames(within).tolist()


def test_hours_are_never_in_the_network_at_once(config, encoder, tmp_path, monkeypatch):
    cut = prepared(changed(config, window_s=30.0, overlap_s=5.0), tmp_path)
    seen, features = [], cut.features
    monkeypatch.setattr(cut, "features", lambda samples: seen.append(samples.numel()) or features(samples))
    hour = np.random.default_rng(0).normal(0, 0.1, 3600 * RATE_HZ).astype("f4")
    encoded = cut.encode([hour])[0]
    assert int(encoded.durations.sum()) == 1 + (len(hour) - 720) // 640
    assert max(seen) < 30 * RATE_HZ + 640
    assert len(seen) == 145  # one every 24.96 s, 624 frames, and the last


def test_one_unit_for_longer_than_a_duration_can_tell(encoder, monkeypatch, waveforms):
    monkeypatch.setattr(encoder, "frames", lambda waveform: np.zeros(65_536, np.int64))
    with pytest.raises(EncoderError) as error:
        encoder.encode(waveforms)
    names(error.value, "0", "65536", "silent", "corrupt")


# ---- Audio as it comes ----


def rows(*cells: bytes) -> pl.DataFrame:
    ids = [f"u{index}" for index in range(len(cells))]
    audio_cells = [{"bytes": cell, "path": None} for cell in cells]
    return pl.DataFrame({"utterance_id": ids, "split": ["train"] * len(ids), "audio": audio_cells})


@pytest.mark.parametrize("rate_hz", [8000, 48000, 44100])
def test_other_sample_rates_are_resampled_first(encoder, waveforms, rate_hz):
    there = audio.resample(waveforms[0], from_hz=RATE_HZ, to_hz=rate_hz)
    cell = audio.encode_flac(there, rate_hz)
    found = encode_utterances(rows(cell), encoder)
    decoded, _ = audio.decode(cell)
    back = audio.resample(decoded, from_hz=rate_hz, to_hz=RATE_HZ)
    assert found["units"][0].to_list() == encoder.encode([back])[0].units.tolist()
    assert abs(sum(found["durations"][0]) - len(waveforms[0]) // 640) <= 1


def test_stereo_is_refused_until_somebody_mixes_it(encoder, waveforms, tmp_path):
    import soundfile

    both = np.stack([waveforms[0], 0.5 * waveforms[0]], axis=1)
    soundfile.write(tmp_path / "stereo.flac", both, RATE_HZ)
    cell = (tmp_path / "stereo.flac").read_bytes()
    with pytest.raises(AudioError) as error:
        encode_utterances(rows(cell), encoder)
    names(error.value, "channels='mix'", "2")
    mixed, _ = audio.decode(cell, channels="mix")
    np.testing.assert_allclose(mixed, 0.75 * waveforms[0], atol=1e-4)


def test_every_unfit_waveform_is_named_at_once(encoder):
    good = np.zeros(720, np.float32)
    nan = good.copy()
    nan[3] = np.nan
    with pytest.raises(EncoderError) as error:
        encoder.encode([good, good.astype("f8"), np.zeros((2, 800), "f4"), good[:0], good[:719], nan])
    names(
        error.value,
        "5",
        "6",
        "1",
        "float64",
        "float32",
        "-1",
        "2",
        "800",
        "channels",
        "3",
        "4",
        "719",
        "720",
        "NaN",
        "infinite",
    )


def test_silence_encodes(encoder):
    assert encoder.encode([np.zeros(5 * RATE_HZ, np.float32)])[0].durations.sum() == 124


# ---- Checkpoints and codebooks that do not fit ----


def test_a_wrong_layer_hop_and_rate_are_all_told_at_once(config, tmp_path):
    wrong = changed(config, layer=9, hop_samples=320, sample_rate_hz=24000)
    names(
        fault(wrong, tmp_path / "encoder"),
        checkpoint_of(config),
        "9",
        "2",
        "hop_samples",
        "320",
        "640",
        "sample_rate_hz",
        "24000",
        "16000",
        "experiments/encoder/",
    )
    assert not (tmp_path / "encoder").exists()


def test_a_codebook_of_another_width_or_size(config, tmp_path):
    np.save(path := tmp_path / "km.npy", np.random.default_rng(0).normal(size=(20, 768)))
    source = {"kind": "folder", "path": str(path)}
    names(
        fault(changed(config, codebook=source), tmp_path / "encoder"),
        "codebook",
        "768",
        "2",
        checkpoint_of(config),
        "16",
    )
    names(
        fault(changed(config, codebook=source, num_units=500), tmp_path / "encoder"),
        "codebook",
        path,
        "20",
        "num_units",
        "500",
        "experiments/encoder/",
    )


def test_an_unpinned_joblib_codebook_is_refused_before_anything_is_loaded(config, tmp_path):
    path = config.codebook.path
    names(
        fault(changed(config, codebook={"kind": "folder", "path": path}), tmp_path / "encoder"),
        "kind: folder",
        "codebook",
        path,
        "pickle",
        "sha256",
        config.codebook.sha256,
    )


def test_checkpoints_that_are_none(config, tmp_path):
    path = tmp_path / "checkpoint"
    path.mkdir()
    (path / "tokenizer.json").write_text("{}")
    wrong, folder = changed(config, weights={"kind": "folder", "path": str(path)}), tmp_path / "encoder"
    names(fault(wrong, folder), path, "config.json")
    (path / "config.json").write_text('{"model_type": "wav2vec2"}')
    names(fault(wrong, folder), "wav2vec2", "hubert", path, "model_type")
    shutil.copy(checkpoint_of(config) / "config.json", path)
    assert fault(wrong, folder).startswith(f"{path} cannot be loaded as HubertModel: ")
    weights = load_file(checkpoint_of(config) / "model.safetensors")
    gone = "encoder.layers.0.feed_forward.output_dense.weight"
    save_file({key: value for key, value in weights.items() if key != gone}, path / "model.safetensors")
    names(fault(wrong, folder), path, "1", "HubertModel", gone)
    (path / "model.safetensors").write_bytes(b"not at all")
    assert fault(wrong, folder).startswith(f"{path} cannot be loaded as HubertModel: ")


def test_a_checkpoint_of_the_former_format(config, encoder, waveforms, tmp_path):
    """facebook/hubert-base-ls960 is a pytorch_model.bin whose weight norm has the names of torch before 2.0."""
    weights = {
        key: torch.from_numpy(value) for key, value in load_file(checkpoint_of(config) / "model.safetensors").items()
    }
    for new, old in (
        ("parametrizations.weight.original0", "weight_g"),
        ("parametrizations.weight.original1", "weight_v"),
    ):
        weights[f"encoder.pos_conv_embed.conv.{old}"] = weights.pop(f"encoder.pos_conv_embed.conv.{new}")
    path = tmp_path / "checkpoint"
    path.mkdir()
    torch.save(weights, path / "pytorch_model.bin")
    for name in ("config.json", "preprocessor_config.json"):
        shutil.copy(checkpoint_of(config) / name, path)
    former = prepared(changed(config, weights={"kind": "folder", "path": str(path)}), tmp_path / "encoder")
    assert [frames_of(e) for e in former.encode(waveforms)] == [frames_of(e) for e in encoder.encode(waveforms)]


def test_windows_must_leave_room_between_overlaps(config):
    with pytest.raises(ValidationError) as raised:
        changed(config, overlap_s=60.0)
    names(raised.value, "overlap_s", "60", "window_s", "100")


# ---- The artifact ----


def test_preparing_again_gives_the_same_bytes(config, folder, tmp_path):
    prepare_encoder(config, [], tmp_path / "again")
    names = ["codebook.safetensors", "encoder.json", "source.json"]
    assert sorted(path.name for path in folder.iterdir()) == names
    for name in names:
        assert (folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_a_folder_without_an_encoder_is_told(config, tmp_path):
    with pytest.raises(DamagedError) as error:
        load_encoder(config, tmp_path, device="cpu")
    names(error.value, "dvc repro", tmp_path, "encoder.json")


def test_a_checkpoint_that_changed_since_is_refused(config, waveforms, tmp_path):
    write_tiny_checkpoint(tmp_path / "checkpoint")
    moving = changed(config, weights={"kind": "folder", "path": str(tmp_path / "checkpoint")})
    prepare_encoder(moving, [], tmp_path / "encoder")
    write_tiny_checkpoint(tmp_path / "checkpoint", seed=1)
    with pytest.raises(FetchError, match=r"sha256:\w{64} now, but the artifact was made with sha256:\w{64}\. Put the"):
        load_encoder(moving, tmp_path / "encoder", device="cpu")


def test_a_branch_of_the_hub_is_pinned_by_the_artifact_and_then_needs_no_network(
    config, encoder, waveforms, tmp_path, monkeypatch
):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    files = {path.name: path.read_bytes() for path in checkpoint_of(config).iterdir()}
    hub = changed(config, weights=HubSource(kind="hub", repo="lab/mhubert", revision="main"))
    with serving() as server:
        point_hub_at(server.url, monkeypatch)
        server.repos["lab/mhubert"] = files | {"tf_model.h5": b"never fetched"}
        prepare_encoder(hub, [], tmp_path / "encoder")
        assert not [path for _, path, _ in server.requests if path.endswith("tf_model.h5")]
        commit = commit_of(server.repos["lab/mhubert"])
        server.repos["lab/mhubert"] = {"README.md": b"the branch moved on"}
        found = load_encoder(hub, tmp_path / "encoder", device="cpu")
    again = load_encoder(hub, tmp_path / "encoder", device="cpu")  # the server is gone
    assert found.contract.revision.split()[0] == f"hub:lab/mhubert@{commit}"
    assert found.contract == again.contract
    assert frames_of(again.encode(waveforms[:1])[0]) == frames_of(encoder.encode(waveforms[:1])[0])


def test_fifty_frames_a_second(waveforms, tmp_path):
    config = tiny_hubert(tmp_path, waveforms, hop_samples=320)
    encoder = prepared(config, tmp_path / "encoder")
    assert (config.frame_rate_hz, encoder.contract.frame_rate_hz, config.fit_utterances) == (50.0, 50.0, 0)
    assert len(encoder.frames(waveforms[0])) == 1 + (len(waveforms[0]) - 400) // 320
