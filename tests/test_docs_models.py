"""docs/models.md, judges.md and data.md: every YAML block is a valid choice, every command names what exists."""

import re
import shutil

import pytest
from pydantic import TypeAdapter
from ruamel.yaml import YAML
from typer.testing import CliRunner

from alignslm.cli import app
from alignslm.config.feedback import JudgeConfig
from alignslm.config.models import LmConfig
from alignslm.config.sources import Source
from alignslm.config.speech import EncoderConfig, VocoderConfig
from tests.micro import ROOT

PAGE = "".join((ROOT / "docs" / name).read_text() for name in ("models.md", "judges.md", "data.md"))
CHOICES = re.findall(r"```yaml\n(kind: .*?)```", PAGE, re.DOTALL)
KINDS = {"hubert": EncoderConfig, "hf": LmConfig, "unit-hifigan": VocoderConfig, "causal-lm": JudgeConfig}


@pytest.mark.parametrize("text", CHOICES, ids=lambda text: text.split()[1])
def test_a_choice_of_the_page_is_valid(text):
    choice = YAML(typ="safe").load(text)
    TypeAdapter(KINDS[choice["kind"]]).validate_python(choice)


def test_every_kind_is_shown():
    assert {text.split()[1] for text in CHOICES} == set(KINDS)


def test_the_sources_of_the_page_are_valid():
    lines = re.findall(r"^weights: (\{.*?\})(?: *#.*)?$", PAGE, re.MULTILINE)
    assert len(lines) >= 3 + 4
    for line in lines:
        TypeAdapter(Source).validate_python(YAML(typ="safe").load(line.replace("03cc…", "a" * 64)))


def test_every_choice_that_is_named_is_there():
    shells = re.sub(r" #.*", "", "".join(re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)))
    made = set(re.findall(r"--name ([\w.-]+)", shells))  # by `alignslm ingest`
    changes = dict(re.findall(r"-S (\w+)=([\w.-]+)", shells))
    assert set(changes) == {"lm", "encoder", "judge"}
    shipped = {path.stem for path in (ROOT / "experiments").rglob("*.yaml")}
    assert set(re.findall(r"(?:-S \w+=|preset )([\w.-]+)", shells)) <= shipped | made
    named = re.findall(
        r"`((?:twist(?!-init`)|slam|mhubert|hubert-base|hifigan|whisper|mistral|twist-init-(?:opt|qwen)|librispeech|mls)-[\w.-]+)`",
        PAGE,
    )
    assert len(named) > 20
    assert set(named) <= shipped


def test_its_plan_and_presets_can_be_typed(tmp_path):
    for name in ("experiments", "params.yaml", "dvc.yaml"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    at = ["--root", str(tmp_path)]
    before = (tmp_path / "params.yaml").read_text()
    planned = CliRunner().invoke(app, ["plan", "--preset", "twist-1.3b", "--offline", *at])
    assert (planned.exit_code, (tmp_path / "params.yaml").read_text()) == (1, before)
    assert "missing: " in planned.output
    for command in (["preset"], ["preset", "twist-1.3b"], ["preset", "tiny"], ["check"]):
        assert CliRunner().invoke(app, [*command, *at]).exit_code == 0
