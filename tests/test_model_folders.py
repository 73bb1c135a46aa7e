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
from alignslm.config.llm_judges import CausalLMJudgeConfig
from alignslm.config.model_folders import model_folder_problems
from tests.messages import names
from tests.micro import copy_project, edit
from tests.tiny_judge import values_of, write_judge
from tests.tiny_whisper import config_of, write_whisper


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return write_judge(tmp_path_factory.mktemp("published") / "judge", chat=True)


def no_tokenizer(folder):
    (folder / "tokenizer.json").unlink()


def of_another_kind(folder):
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**settings, "architectures": ["BertForMaskedLM"]}))


def cut(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])


def fewer_layers(folder):
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**settings, "num_hidden_layers": 3}))


def gguf(folder):
    for path in folder.iterdir():
        path.unlink()
    (folder / "model-Q4_K_M.gguf").write_bytes(b"GGUF")


def pickled(folder):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def adapter(folder):
    for path in folder.iterdir():
        path.unlink()
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "lab/base"}))
    (folder / "adapter_model.safetensors").write_bytes(b"")


def small_vocabulary(folder):
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_tokens([AddedToken(f"<more {number}>") for number in range(9)])
    tokenizer.save(str(folder / "tokenizer.json"))


def integers(folder):
    state = load_file(folder / "model.safetensors")
    save_file({name: value.to(torch.int8) for name, value in state.items()}, folder / "model.safetensors")


def no_shards(folder):
    (folder / "model.safetensors").unlink()
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
