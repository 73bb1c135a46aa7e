"""What a run lacks is told before it begins: keys, rubrics, folders."""

import shutil

import pytest
import ruamel.yaml

from alignslm.cli.checking import checked
from alignslm.config.loading import load_experiment
from alignslm.config.prerequisites import folder_faults, require_ready
from alignslm.config.presets import apply_preset
from alignslm.config.pretrained_lm import HFLMConfig
from alignslm.config.problems import ConfigError
from alignslm.training.adapter_faults import adapter_faults
from tests.messages import names
from tests.micro import ROOT
from tests.tiny_lm import tiny_model

FOLDERS = {
    "LIBRISPEECH": "LibriSpeech",
    "ALIGNSLM_MODELS": "models",
    "HOME": "home",
}


@pytest.fixture
def paper(tmp_path, monkeypatch):
    shutil.copytree(ROOT / "experiments", tmp_path / "experiments")
    shutil.copy(ROOT / "params.yaml", tmp_path)
    apply_preset("twist-1.3b", tmp_path)
    for variable in (*FOLDERS, "OPENAI_API_KEY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path


def test_everything_absent_is_told_at_once_with_its_line(paper):
    with pytest.raises(ConfigError) as error:
        require_ready(load_experiment(paper), paper)
    for line, facts in zip(
        [str(fault).removeprefix(f"{paper}/experiments/") for fault in error.value.faults],
        [
            ("benchmark/sblimp.yaml:5: data.path", f"{paper}/home/zr-data/datasets/sLM21-dataset"),
            ("benchmark/sstorycloze.yaml:5: data.path", f"{paper}/home/data/SpokenStoryCloze/sSC"),
            ("benchmark/swuggy.yaml:6: data.path", f"{paper}/home/zr-data/datasets/sLM21-dataset"),
            ("benchmark/tstorycloze.yaml:6: data.path", f"{paper}/home/data/SpokenStoryCloze/tSC"),
            ("corpus/librispeech.yaml:16: parts.librispeech.source.path", "$LIBRISPEECH", "export LIBRISPEECH="),
            (
                *("judge/gpt4o.yaml:6: api_key_env", "https://api.openai.com/v1", "gpt-4o-2024-11-20"),
                *("export OPENAI_API_KEY=", "judge", "params.yaml"),
            ),
            ("lm/twist-1.3b.yaml:7: weights.path", "$ALIGNSLM_MODELS/TWIST-1.3B", "export ALIGNSLM_MODELS="),
        ],
        strict=True,
    ):
        names(line, *facts)


def test_nothing_is_said_of_what_is_there(paper, monkeypatch):
    for variable, place in FOLDERS.items():
        monkeypatch.setenv(variable, str(paper / place))
    (paper / "LibriSpeech").mkdir()
    (paper / "models/TWIST-1.3B").mkdir(parents=True)
    (paper / "home/zr-data/datasets/sLM21-dataset").mkdir(parents=True)
    for part in ("sSC", "tSC"):
        (paper / "home/data/SpokenStoryCloze" / part).mkdir(parents=True)
    assert folder_faults(load_experiment(paper), paper) == []
    monkeypatch.setenv("OPENAI_API_KEY", "sk-x")
    require_ready(load_experiment(paper), paper)


def test_the_embedded_experiment_needs_nothing():
    require_ready(load_experiment(ROOT), ROOT)


def test_target_modules_that_the_model_lacks_are_told_by_check_before_anything_is_trained(tmp_path):
    shutil.copytree(ROOT / "experiments", tmp_path / "experiments")
    shutil.copy(ROOT / "params.yaml", tmp_path)
    trainer = tmp_path / "experiments/trainer/dpo-nll.yaml"
    whole = trainer.read_text()
    checked(tmp_path, everything=False)
    line = whole[: whole.index("lora:")].count("\n") + 1
    for targets, said in (("[q_proj, fc1]", ("fc1", "down_proj")), ("[q_proj, embed_tokens]", ("embed_tokens",))):
        trainer.write_text(whole.replace("all-linear", targets))
        with pytest.raises(ConfigError) as raised:
            checked(tmp_path, everything=False)
        names(raised.value, f"{trainer}:{line}", "lora.target_modules", *said)
    trainer.write_text(whole.replace("all-linear", "[q_proj, v_proj]"))
    checked(tmp_path, everything=False)


def test_target_modules_of_a_published_folder_are_read_from_its_config(tmp_path):
    shutil.copytree(ROOT / "experiments", tmp_path / "experiments")
    shutil.copy(ROOT / "params.yaml", tmp_path)
    tiny_model("opt", vocab_size=24).save_pretrained(tmp_path / "published")
    document = ruamel.yaml.YAML(typ="safe").load(tmp_path / "experiments/lm/hf.yaml")
    lm = HFLMConfig.model_validate(document | {"weights": {"kind": "folder", "path": "published"}})
    experiment = load_experiment(tmp_path).model_copy(update={"lm": lm})
    assert adapter_faults(experiment, tmp_path) == []
    trainer = tmp_path / "experiments/trainer/dpo-nll.yaml"
    trainer.write_text(trainer.read_text().replace("all-linear", "[q_proj, gate_proj]"))
    (fault,) = adapter_faults(load_experiment(tmp_path).model_copy(update={"lm": lm}), tmp_path)
    names(str(fault), "opt", "gate_proj", "fc1")
