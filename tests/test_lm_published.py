import hashlib
import json
import re
import shutil
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import torch
from safetensors.torch import load_file, save_file

from alignslm.config.loading import load_experiment
from alignslm.config.pretrained_lm import HFLMConfig, SlamLMConfig, TokenIds, TrainingUnits, TwistLMConfig
from alignslm.config.problems import ConfigError
from alignslm.config.sources import FolderSource, UrlSource
from alignslm.fetching import FetchError
from alignslm.lm import checkpoint
from alignslm.lm.checkpoint import CheckpointError, load_lm, save_lm, weights_hash
from alignslm.lm.pretrained import import_lm
from alignslm.loading import WeightsError
from alignslm.provenance import ContractError, file_sha256
from alignslm.training.base_model import make_base
from alignslm.units import UnitVocabulary
from tests.messages import names
from tests.tiny_lm import CONTRACT, NUM_UNITS, tiny_model, tiny_slam, tiny_twist, zipped

ROOT = Path(__file__).parent.parent
UNITS = TrainingUnits(
    num_units=NUM_UNITS,
    sample_rate_hz=16000,
    frame_rate_hz=25.0,
    layer=None,
    deduplicated=True,
    revision="1",
    codebook_sha256=None,
    codebook_file_sha256=None,
)


def twist(path, **changes):
    source = FolderSource(kind="folder", path=str(path or "none"))
    return TwistLMConfig.model_validate(
        {
            "kind": "twist",
            "weights": source,
            "units": UNITS,
            "bos": "none",
            "eos": "none",
            "dtype": "float32",
            **changes,
        }
    )


def slam(path, **changes):
    source = FolderSource(kind="folder", path=str(path))
    return SlamLMConfig.model_validate(
        {"kind": "slam", "weights": source, "units": UNITS, "dtype": "float32", **changes}
    )


def hf(path, ids, **changes):
    source = FolderSource(kind="folder", path=str(path))
    values = {"kind": "hf", "weights": source, "units": UNITS, "ids": ids, "dtype": "float32", **changes}
    return HFLMConfig.model_validate(values)


def imported(config, folder):
    import_lm(config, CONTRACT, folder)
    return load_lm(folder, device="cpu")


def rewrite(folder, **changes):
    settings = json.loads((folder / "config.json").read_text())
    for key, value in changes.items():
        settings.pop(key, None)
        if value is not None:
            settings[key] = value
    (folder / "config.json").write_text(json.dumps(settings))


def logits(model, ids):
    with torch.no_grad():
        return model(torch.tensor([ids])).logits


@pytest.mark.parametrize("family", ["opt", "llama"])
def test_twist_numbers_units_from_the_offset_of_its_config(tmp_path, family):
    original = tiny_twist(tmp_path / "public", family, offset=5)
    lm = imported(twist(tmp_path / "public"), tmp_path / "ours")
    assert lm.vocabulary == UnitVocabulary(num_units=NUM_UNITS, offset=5, bos_id=None, eos_id=None, pad_id=0)
    assert torch.equal(logits(lm.model, [5, 9, 24]), logits(original, [5, 9, 24]))
    assert lm.contract == CONTRACT


def test_offset_and_vocabulary_survive_every_later_save(tmp_path):
    tiny_twist(tmp_path / "public", offset=5)
    lm = imported(twist(tmp_path / "public"), tmp_path / "ours")
    (tmp_path / "again" / "adapter").mkdir(parents=True)
    save_lm(lm.model, lm.vocabulary, lm.contract, tmp_path / "again")
    assert json.loads((tmp_path / "again/config.json").read_text())["offset"] == 5
    assert load_lm(tmp_path / "again", device="cpu").vocabulary.offset == 5
    for name in ("unit_vocabulary.json", "unit_contract.json"):
        assert (tmp_path / "again/adapter" / name).read_text() == (tmp_path / "again" / name).read_text()
    rewrite(tmp_path / "again", offset=4)
    with pytest.raises(CheckpointError) as raised:
        load_lm(tmp_path / "again", device="cpu")
    names(raised.value, "config.json", "offset", "4", "unit_vocabulary.json", "5")


def test_twist_takes_special_tokens_only_where_asked_and_written(tmp_path):
    tiny_twist(tmp_path / "public", offset=4, bos_token_id=1, eos_token_id=2, pad_token_id=3)
    plain = imported(twist(tmp_path / "public"), tmp_path / "plain").vocabulary
    assert (plain.bos_id, plain.eos_id, plain.pad_id) == (None, None, 3)
    marked = imported(twist(tmp_path / "public", bos="config", eos="config"), tmp_path / "marked").vocabulary
    assert (marked.bos_id, marked.eos_id, marked.pad_id) == (1, 2, 3)
    rewrite(tmp_path / "public", bos_token_id=None, eos_token_id=None, pad_token_id=-1)  # OPT's class would say 2, 2
    bare = imported(twist(tmp_path / "public", bos="config", eos="config"), tmp_path / "bare").vocabulary
    assert (bare.bos_id, bare.eos_id, bare.pad_id) == (None, None, 0)


def test_a_left_over_special_token_that_is_a_unit_is_refused(tmp_path):
    tiny_twist(tmp_path, offset=1, eos_token_id=2)
    with pytest.raises(CheckpointError) as error:
        import_lm(twist(tmp_path, eos="config"), CONTRACT, tmp_path / "ours")
    names(error.value, "eos: none", f"{tmp_path}/config.json", "eos_token_id", "2", "1")


def test_a_published_archive_is_fetched_verified_and_unpacked(tmp_path, monkeypatch):
    original = tiny_twist(tmp_path / "TWIST-1.3B")
    archive = zipped(tmp_path / "TWIST-1.3B")
    monkeypatch.setenv("ALIGNSLM_CACHE", str(tmp_path / "cache"))
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    monkeypatch.setattr(SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/{archive.name}"
        source = UrlSource(kind="url", url=url, sha256=file_sha256(archive))
        lm = imported(twist("", weights=source), tmp_path / "ours")
        server.shutdown()
    assert torch.equal(logits(lm.model, [4, 9, 23]), logits(original, [4, 9, 23]))
    assert json.loads((tmp_path / "ours/source.json").read_text())["identity"] == f"sha256:{source.sha256}"


@pytest.mark.parametrize(("offset", "shown"), [(None, "None"), ("3", "'3'"), (-1, "-1")])
def test_a_checkpoint_without_offset_is_refused(tmp_path, offset, shown):
    tiny_twist(tmp_path)
    rewrite(tmp_path, offset=offset)
    with pytest.raises(CheckpointError) as error:
        import_lm(twist(tmp_path), CONTRACT, tmp_path / "ours")
    names(error.value, "kind: hf", f"{tmp_path}/config.json", shown, "token", "TWIST", "ids.offset")


def test_another_offset_that_leaves_no_room_is_refused(tmp_path):
    tiny_twist(tmp_path)
    rewrite(tmp_path, offset=5)
    with pytest.raises(CheckpointError) as error:
        import_lm(twist(tmp_path), CONTRACT, tmp_path / "ours")
    names(error.value, f"{tmp_path}/config.json", "5", "vocab_size", "24", "20", "units.num_units")


@pytest.mark.parametrize("family", ["qwen2", "opt", "llama"])
def test_slam_becomes_the_plain_model_it_wraps(tmp_path, family):
    more = {} if family == "opt" else {"rope_parameters": {"rope_type": "default", "rope_theta": 77.0}}
    original = tiny_slam(tmp_path / "public", family, **more)
    lm = imported(slam(tmp_path / "public"), tmp_path / "ours")
    assert lm.vocabulary == UnitVocabulary(num_units=NUM_UNITS, offset=2, bos_id=1, eos_id=1, pad_id=0)
    ids = lm.vocabulary.encode([0, 19, 7], bos=True, eos=True)
    assert ids == [1, 2, 21, 9, 1]
    assert torch.equal(logits(lm.model, ids), logits(original, ids))
    assert type(lm.model) is type(original)
    assert all(not name.startswith("lm.") for name in load_file(tmp_path / "ours/model.safetensors"))
    generation = json.loads((tmp_path / "ours/generation_config.json").read_text())
    assert generation["eos_token_id"] == 1


@pytest.mark.parametrize("tied", [True, False])
def test_slam_keeps_its_output_layer_tied_or_not(tmp_path, tied):
    original = tiny_slam(tmp_path / "public", tie_word_embeddings=tied)
    lm = imported(slam(tmp_path / "public"), tmp_path / "ours")
    assert (lm.model.get_output_embeddings().weight is lm.model.get_input_embeddings().weight) == tied
    assert torch.equal(lm.model.get_output_embeddings().weight, original.get_output_embeddings().weight)


def test_slam_with_the_text_models_vocabulary_in_its_inner_configuration(tmp_path):
    original = tiny_slam(tmp_path / "public")
    settings = json.loads((tmp_path / "public/config.json").read_text())
    rewrite(tmp_path / "public", base_config={**settings["base_config"], "vocab_size": 151936})
    lm = imported(slam(tmp_path / "public"), tmp_path / "ours")
    assert torch.equal(logits(lm.model, [1, 2, 3]), logits(original, [1, 2, 3]))


def test_slam_in_shards(tmp_path):
    original = tiny_slam(tmp_path / "public")
    weights = sorted(load_file(tmp_path / "public/model.safetensors").items())
    (tmp_path / "public/model.safetensors").unlink()
    for number, part in enumerate((weights[:9], weights[9:]), 1):
        save_file(dict(part), tmp_path / "public" / f"model-0000{number}-of-00002.safetensors")
    lm = imported(slam(tmp_path / "public"), tmp_path / "ours")
    assert torch.equal(logits(lm.model, [1, 2, 3]), logits(original, [1, 2, 3]))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"model_type": "qwen2"},
            ("model_type", "qwen2", "speech_language_model", "base_config", "kind: hf"),
        ),
        (
            {"vocab_size": 152440},
            ("vocab_size", "152440", "<PAD>", "<S>", "20", "22", "units.num_units"),
        ),
        (
            {"base_config": {"model_type": "qwen2", "eos_token_id": 151643}},
            ("base_config.eos_token_id", "151643", "slamkit", "1"),
        ),
    ],
)
def test_a_folder_that_is_not_slamkits_is_refused(tmp_path, changes, expected):
    tiny_slam(tmp_path)
    rewrite(tmp_path, **changes)
    with pytest.raises(CheckpointError) as error:
        import_lm(slam(tmp_path), CONTRACT, tmp_path / "ours")
    names(error.value, f"{tmp_path}/config.json", *expected)


def test_weights_that_are_not_under_slamkits_prefix_are_refused(tmp_path):
    tiny_slam(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    save_file({name.removeprefix("lm."): t for name, t in weights.items()}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError) as raised:
        import_lm(slam(tmp_path), CONTRACT, tmp_path / "ours")
    names(raised.value, "26 of 26", "'lm.'", "model.embed_tokens.weight")


def test_any_causal_model_with_its_ids_told(tmp_path):
    original = tiny_model("mistral", vocab_size=30)
    original.save_pretrained(tmp_path / "public")
    ids = TokenIds(offset=7, bos=28, eos=29, pad=27)
    lm = imported(hf(tmp_path / "public", ids), tmp_path / "ours")
    assert lm.vocabulary == UnitVocabulary(num_units=NUM_UNITS, offset=7, bos_id=28, eos_id=29, pad_id=27)
    assert torch.equal(logits(lm.model, [28, 7, 26]), logits(original, [28, 7, 26]))


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ({"offset": 11}, ("11..30", "ids.offset", "units.num_units", "vocab_size", "30")),
        ({"bos": 30}, ("ids.bos", "30", "vocab_size")),
        ({"pad": 31}, ("ids.pad", "31", "vocab_size", "30")),
        ({"eos": 9}, ("ids.eos", "9", "unit 4")),
    ],
)
def test_ids_outside_the_vocabulary_are_refused(tmp_path, ids, expected):
    tiny_model("llama", vocab_size=30).save_pretrained(tmp_path)
    told = TokenIds.model_validate({"offset": 5, "bos": None, "eos": None, "pad": 0, **ids})
    with pytest.raises(CheckpointError) as error:
        import_lm(hf(tmp_path, told), CONTRACT, tmp_path / "ours")
    names(error.value, f"{tmp_path}/config.json", *expected)


def write_experiment(root, **choices):
    shutil.copytree(ROOT / "experiments", root / "experiments")
    params = (ROOT / "params.yaml").read_text()
    for key, choice in choices.items():
        params = re.sub(rf"^{key}: \S+", f"{key}: {choice}", params, flags=re.MULTILINE)
    (root / "params.yaml").write_text(params)


def faults_of(root):
    with pytest.raises(ConfigError) as error:
        load_experiment(root)
    return {(fault.file.rpartition("/")[2], fault.key): fault.message for fault in error.value.faults}


def test_a_model_and_an_encoder_that_do_not_fit_are_told_in_a_second(tmp_path):
    write_experiment(tmp_path / "fixed", lm="twist-7b")
    found = faults_of(tmp_path / "fixed")
    names(found["twist-7b.yaml", "units.num_units"], "twist-7b", "num_units", "500", "mfcc-kmeans", "100")
    write_experiment(tmp_path / "other", lm="slam", encoder="hubert-base-ls960-l9-km500")
    found = faults_of(tmp_path / "other")
    assert {key for file, key in found if file == "slam.yaml"} == {
        "units.frame_rate_hz",
        "units.layer",
        "units.codebook_file_sha256",
    }
    write_experiment(tmp_path / "own", lm="twist-1.3b", encoder="mhubert-25hz-km500")
    assert isinstance(load_experiment(tmp_path / "own").lm, TwistLMConfig)


def test_units_of_another_encoder_are_refused_before_anything_is_fetched(tmp_path):
    other = CONTRACT.model_copy(update={"num_units": 100, "layer": 9, "revision": "2"})
    config = twist(tmp_path / "absent", units=UNITS.model_copy(update={"layer": 11}))
    with pytest.raises(ContractError) as error:
        make_base(config, [], other, seed=0, work=tmp_path / "work", folder=tmp_path / "ours")
    names(
        error.value, "encoder", "'1'", "'2'", "2", "num_units", "20", "100", "11", "9", "params.yaml", "experiments/lm"
    )


def test_a_missing_weight_is_not_left_random(tmp_path):
    tiny_twist(tmp_path)
    weights = torch.load(tmp_path / "pytorch_model.bin", weights_only=True)
    del weights["model.decoder.layers.1.fc1.weight"]
    torch.save(weights, tmp_path / "pytorch_model.bin")
    with pytest.raises(WeightsError) as error:
        import_lm(twist(tmp_path), CONTRACT, tmp_path / "ours")
    names(error.value, tmp_path, "1", "OPTForCausalLM", "model.decoder.layers.1.fc1.weight", "config.json")


def test_weights_of_another_shape_are_refused(tmp_path):
    tiny_twist(tmp_path)
    rewrite(tmp_path, ffn_dim=128)
    with pytest.raises(WeightsError, match="cannot be loaded as AutoModelForCausalLM: "):
        import_lm(twist(tmp_path), CONTRACT, tmp_path / "ours")


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    tiny_twist(tmp_path)
    torch.save({"model.decoder.embed_tokens.weight": tmp_path}, tmp_path / "pytorch_model.bin")  # a Path needs a call
    with pytest.raises(WeightsError) as error:
        import_lm(twist(tmp_path), CONTRACT, tmp_path / "ours")
    names(error.value, tmp_path, "tensors")


def test_the_wrong_folder_says_which_one_it_holds(tmp_path):
    tiny_slam(tmp_path / "TWIST-1.3B")
    with pytest.raises(FetchError) as error:
        import_lm(twist(tmp_path), CONTRACT, tmp_path / "ours")
    names(error.value, tmp_path, "config.json", "TWIST-1.3B")
    with pytest.raises(FetchError, match="does not exist"):
        import_lm(twist(tmp_path / "absent"), CONTRACT, tmp_path / "ours")


def test_the_origin_is_kept_with_the_checkpoint(tmp_path):
    tiny_slam(tmp_path / "public")
    import_lm(slam(tmp_path / "public"), CONTRACT, tmp_path / "ours")
    origin = json.loads((tmp_path / "ours/source.json").read_text())
    assert origin["source"]["path"] == str(tmp_path / "public")
    assert origin["identity"].startswith("sha256:")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_weights_keep_the_dtype_of_the_choice(tmp_path, dtype):
    tiny_twist(tmp_path / "public", "llama")
    lm = imported(twist(tmp_path / "public", dtype=dtype), tmp_path / "ours")
    assert {weight.dtype for weight in lm.model.parameters()} == {getattr(torch, dtype)}
    assert json.loads((tmp_path / "ours/config.json").read_text())["dtype"] == dtype
    rewrite(tmp_path / "ours", dtype="float16")
    with pytest.raises(CheckpointError) as raised:
        load_lm(tmp_path / "ours", device="cpu")
    names(raised.value, "'float16'", "float32", "bfloat16")


def test_every_dropout_of_a_published_model_is_off(tmp_path):
    tiny_twist(tmp_path / "opt")
    tiny_slam(tmp_path / "qwen")
    for config in (twist(tmp_path / "opt"), slam(tmp_path / "qwen")):
        model = imported(config, tmp_path / f"ours-{config.kind}").model.train()
        once, again = (logits(model, [3, 4, 5, 6, 7]) for _ in range(2))
        assert torch.equal(once, again)
        written = json.loads((tmp_path / f"ours-{config.kind}/config.json").read_text())
        assert {value for key, value in written.items() if "drop" in key} == {0.0}


def test_the_identity_is_computed_once_and_again_where_weights_changed(tmp_path, monkeypatch):
    tiny_twist(tmp_path / "public")
    lm = imported(twist(tmp_path / "public"), tmp_path / "ours")
    assert lm.model_id == weights_hash(lm.model)
    shutil.copytree(tmp_path / "ours", tmp_path / "moved")
    with monkeypatch.context() as patch:
        patch.setattr("alignslm.lm.checkpoint.weights_hash", lambda model: pytest.fail("read all weights again"))
        assert load_lm(tmp_path / "moved", device="cpu").model_id == lm.model_id
    weights = load_file(tmp_path / "moved/model.safetensors")
    weights["model.decoder.layers.0.fc1.weight"][3, 4] += 1
    save_file(weights, tmp_path / "moved/model.safetensors", metadata={"format": "pt"})
    changed = load_lm(tmp_path / "moved", device="cpu")
    assert changed.model_id == weights_hash(changed.model) != lm.model_id


def test_a_large_file_is_recognised_by_blocks_spread_over_it(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "_BLOCK_BYTES", 4)
    content = bytearray(hashlib.sha256(b"x").digest() * 50)
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    blocks = list(checkpoint._blocks(path))
    assert (len(blocks), blocks[0], blocks[-1]) == (64, bytes(content[:4]), bytes(content[-4:]))
    starts = [(len(content) - 4) * number // 63 for number in range(64)]
    assert blocks == [bytes(content[start : start + 4]) for start in starts]
    checkpoint.write_record(tmp_path, "id")
    assert checkpoint.recorded_model_id(tmp_path) == "id"
    content[starts[31]] ^= 1
    path.write_bytes(content)
    assert checkpoint.recorded_model_id(tmp_path) is None
