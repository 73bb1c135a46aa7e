"""Ten broken folders of models, each named by `alignslm check` without loading a weight."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer
from typer.testing import CliRunner

from alignslm.cli import app
from alignslm.config.hubert import HubertEncoderConfig
from alignslm.config.llm_judges import CausalLMJudgeConfig
from alignslm.config.model_folders import TOKENIZERS, model_folder_problems
from alignslm.config.pretrained_lm import TwistInitConfig
from alignslm.config.sources import FolderSource
from tests.messages import names
from tests.micro import copy_project, edit
from tests.test_faster_whisper import faster
from tests.test_lm_published import hf, slam, twist
from tests.test_speech_kmeans import config_of as kmeans
from tests.tiny_hubert import write_tiny_checkpoint
from tests.tiny_judge import values_of, write_judge
from tests.tiny_lm import tiny_model, tiny_slam, tiny_text_lm, tiny_twist
from tests.tiny_whisper import config_of, write_ctranslate2, write_whisper


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return write_judge(tmp_path_factory.mktemp("published") / "judge", chat=True)


def no_tokenizer(folder):
    for name in TOKENIZERS:
        (folder / name).unlink(missing_ok=True)


def of_another_kind(folder):
    if (weights := folder / "model.bin").is_file():
        weights.write_bytes(weights.read_bytes().replace(b"WhisperSpec", b"MarianSpecs"))
        return
    settings = json.loads((folder / "config.json").read_text())
    sizes = {name: settings[name] for name in ("vocab_size", "num_hidden_layers") if name in settings}
    other = {"model_type": "bert", "architectures": ["BertForMaskedLM"], **sizes}
    (folder / "config.json").write_text(json.dumps(other))


def weights_of(folder):
    return next(folder / name for name in ("model.safetensors", "model.bin") if (folder / name).is_file())


def cut(folder):
    file = weights_of(folder)
    file.write_bytes(file.read_bytes()[:-1000])


def fewer_layers(folder):
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**settings, "num_hidden_layers": 3}))


def gguf(folder):
    for path in folder.iterdir():
        path.unlink()
    (folder / "model-Q4_K_M.gguf").write_bytes(b"GGUF")


def pickled(folder, name="pytorch_model.bin"):
    torch.save({"weight": torch.zeros(9)}, folder / name)
    weights_of(folder).unlink()


def pickled_otherwise(folder):
    pickled(folder, "model.pt")


def adapter(folder):
    for path in folder.iterdir():
        path.unlink()
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "lab/base"}))
    (folder / "adapter_model.safetensors").write_bytes(b"")


def small_vocabulary(folder):
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_tokens([AddedToken(f"<more {number}>") for number in range(9)])
    tokenizer.save(str(folder / "tokenizer.json"))


def few_units(folder):
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**settings, "vocab_size": 19}))


def integers(folder):
    state = load_file(folder / "model.safetensors")
    save_file({name: value.to(torch.int8) for name, value in state.items()}, folder / "model.safetensors")


def no_shards(folder):
    weights_of(folder).unlink()
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def empty(folder):
    for path in folder.iterdir():
        path.unlink()


BROKEN = {
    no_tokenizer: ("tokenizer", "tokenizer.json"),
    of_another_kind: ("BertForMaskedLM", "causal language model"),
    cut: ("model.safetensors", "damaged", "download"),
    fewer_layers: ("1 of 3 layers",),
    gguf: ("GGUF", "model-Q4_K_M.gguf"),
    pickled: ("pytorch_model.bin", "*.safetensors"),
    adapter: ("adapter", "lab/base", "merge"),
    small_vocabulary: ("tokenizer.json", "vocab_size"),
    integers: ("I8", "float32"),
    no_shards: ("model.safetensors.index.json", "2", "model-00001-of-00002.safetensors"),
    empty: ("empty",),
}


@pytest.mark.parametrize("damage", BROKEN, ids=lambda damage: damage.__name__)
def test_each_broken_folder_has_one_fault_that_is_named(sound, tmp_path, damage):
    folder = shutil.copytree(sound, tmp_path / "judge")
    config = CausalLMJudgeConfig.model_validate(values_of(folder))
    assert model_folder_problems(config, folder) == []
    damage(folder)
    (problem,) = model_folder_problems(config, folder)
    names(problem, folder, *BROKEN[damage])


def causal(folder):
    return CausalLMJudgeConfig.model_validate(values_of(folder))


def warm_start(folder):
    training = {"max_steps": 1, "batch_size": 1, "learning_rate": 1e-3, "warmup_steps": 0, "weight_decay": 0.0}
    source = {"kind": "folder", "path": str(folder)}
    return TwistInitConfig.model_validate(
        {"kind": "twist-init", "weights": source, "dtype": "float32", "autocast": "float32", **training}
    )


def hubert(folder):
    source = FolderSource(kind="folder", path=str(folder))
    values = {"layer": 2, "num_units": 20, "sample_rate_hz": 16000, "hop_samples": 640, "normalise_input": False}
    window = {"pad_samples": 0, "dtype": "float32", "window_s": 9.0, "overlap_s": 1.0}
    return HubertEncoderConfig(kind="hubert", weights=source, codebook=source, **values, **window)


KINDS = {  # who writes a sound folder, and who names it
    "judge": (write_judge, causal),
    "lm": (lambda folder: tiny_text_lm(folder, vocab_size=30), lambda folder: hf(folder, IDS)),
    "lm-twist": (lambda folder: tiny_model("opt", vocab_size=24, offset=4).save_pretrained(folder), twist),
    "lm-slam": (tiny_slam, slam),
    "lm-twist-init": (tiny_text_lm, warm_start),
    "asr": (write_whisper, config_of),
    "asr-faster": (lambda folder: write_ctranslate2(folder, write_whisper(folder.parent / "source")), faster),
    "encoder-hubert": (write_tiny_checkpoint, hubert),
    "encoder-kmeans": (lambda folder: write_tiny_checkpoint(folder, hop_samples=320), kmeans),
    "encoder-kmeans-whisper": (write_whisper, kmeans),
}
IDS = {"offset": 4, "bos": None, "eos": None, "pad": 0}
NEED = {"lm": "24", "lm-twist": "24", "lm-slam": "22"}  # tokens: offset and 20 units
TEXTS = ("judge", "asr", "asr-faster")  # they read or write text
IN_ALL = {  # what is named in the folders of all kinds; those of CTranslate2 differ
    of_another_kind: ("expected",),
    cut: ("download",),
    gguf: ("GGUF",),
    pickled_otherwise: ("model.pt", "*.safetensors"),
    adapter: ("adapter", "lab/base"),
    integers: ("I8",),
    no_shards: ("model-00001-of-00002.safetensors",),
    empty: ("empty",),
}


@pytest.fixture(scope="module", params=KINDS)
def kind(request, tmp_path_factory):
    """Return a part of the experiment, a folder for it and the function that gives its config."""
    write, config = KINDS[request.param]
    folder = tmp_path_factory.mktemp(request.param) / "model"
    write(folder)
    return request.param, folder, config


def test_each_part_that_takes_a_folder_names_each_fault(kind, tmp_path):
    part, whole, config = kind
    assert model_folder_problems(config(whole), whole) == []
    ctranslate2 = part == "asr-faster"
    expected = {
        no_tokenizer: ("tokenizer",) if part in TEXTS else None,
        **IN_ALL,
        small_vocabulary: ("vocab_size",) if part in {"judge", "asr"} else None,
        few_units: NEED.get(part) and ("vocab_size", "19", NEED[part]),
    }
    if ctranslate2:
        expected |= {of_another_kind: ("MarianSpecs",), integers: None}
        expected |= dict.fromkeys((pickled_otherwise, adapter, no_shards, empty), ("model.bin",))
    if part in {"judge", "lm", "lm-twist-init"}:
        expected[of_another_kind] = ("BertForMaskedLM",)
    if part == "lm-twist":
        expected[of_another_kind] = ("offset", "kind: hf")
    for number, (damage, words) in enumerate(expected.items()):
        folder = shutil.copytree(whole, tmp_path / str(number))
        if words is None:
            continue
        damage(folder)
        (problem,) = model_folder_problems(config(folder), folder)
        names(problem, folder, *words)


def test_an_encoder_without_the_layer_is_named(tmp_path):
    folder = write_tiny_checkpoint(tmp_path / "model", hop_samples=320)
    assert model_folder_problems(kmeans(folder, layer=2), folder) == []
    (problem,) = model_folder_problems(kmeans(folder, layer=3), folder)
    names(problem, folder, "2 layers", "3")


def test_a_bin_file_that_is_cut_off_is_named(tmp_path):
    folder = tmp_path / "model"
    tiny_twist(folder)
    assert model_folder_problems(twist(folder), folder) == []
    file = folder / "pytorch_model.bin"
    file.write_bytes(file.read_bytes()[:-100])
    (problem,) = model_folder_problems(twist(folder), folder)
    names(problem, file, "cut off")


def test_check_names_the_fault_at_its_line_and_loads_no_torch(sound, tmp_path):
    copy_project(tmp_path / "project")
    folder = shutil.copytree(sound, tmp_path / "judge")
    config = tmp_path / "project/experiments/judge/mine.yaml"
    config.write_text(json.dumps(values_of(folder)))
    edit(tmp_path / "project/params.yaml", {"judge": "mine"})
    result = CliRunner().invoke(app, ["check", "-C", str(tmp_path / "project")])
    assert result.exit_code == 0, result.output
    cut(folder)
    result = CliRunner().invoke(app, ["check", "-C", str(tmp_path / "project")])
    assert result.exit_code == 1
    names(result.output, config, "weights.path", "model.safetensors")
    code = (
        "import alignslm.config.model_folders, sys; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_other_kinds_read_what_they_can(tmp_path):
    folder = write_whisper(tmp_path / "whisper")
    assert model_folder_problems(config_of(folder), folder) == []
    pickled(folder)
    assert model_folder_problems(config_of(folder), folder) == []
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**settings, "model_type": "hubert"}))
    (problem,) = model_folder_problems(config_of(folder), folder)
    names(problem, "'hubert'", "'whisper'")
    (folder / "config.json").write_text('{"model_type": ')
    (problem,) = model_folder_problems(config_of(folder), folder)
    names(problem, folder / "config.json", "JSON")


@pytest.mark.parametrize(
    "content", [b"", b"junk", b"\xff" * 4000, b"\x05\0\0\0\0\0\0\0[1,2]", b"\x02\0\0\0\0\0\0\0{}more"]
)
def test_junk_in_place_of_weights_is_told(sound, tmp_path, content):
    folder = shutil.copytree(sound, tmp_path / "judge")
    (folder / "model.safetensors").write_bytes(content)
    (problem,) = model_folder_problems(CausalLMJudgeConfig.model_validate(values_of(folder)), folder)
    names(problem, folder / "model.safetensors", "download")
