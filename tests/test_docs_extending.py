"""docs/extending.md: the class and the config it shows are all that a judge of one's own takes."""

import json
import os
import re
import shutil
import subprocess
import sys
from typing import get_args

import pytest
from typer.testing import CliRunner

import alignslm
from alignslm.cli import app
from alignslm.config import speech
from tests.micro import ROOT, copy_project, edit

PAGE = (ROOT / "docs/extending.md").read_text(encoding="utf-8")


@pytest.fixture
def project(tmp_path):
    """A project to which the files that the page names were added as it shows them."""
    copy_project(tmp_path)
    shown = re.findall(r"`((?:code|experiments)/[\w/-]+\.\w+)`:\n\n```\w+\n(.*?)```", PAGE, re.DOTALL)
    assert [name for name, _ in shown] == ["code/word_count.py", "experiments/judge/word-count.yaml"]
    for name, text in shown:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def test_a_judge_of_ones_own_is_one_file_and_one_config(project):
    edit(project / "params.yaml", {"judge": "word-count"})
    done = CliRunner().invoke(app, ["check", "-C", str(project)])
    assert done.exit_code == 0, done.output
    judge = alignslm.load_judge(project / "experiments/judge/word-count.yaml")
    found = alignslm.score(judge, ["a"] * 3, [" ".join(["word"] * count) for count in (12, 6, 30)])
    assert found.to_series(0).to_list() == [5.0, 3.0, 1.0]


READ = {
    union: re.findall(r"`(\w+)`", fields)
    for union, fields in re.findall(r"^ *\| \w+ \| `(\w+Config)` \| (.*) \|$", PAGE, re.MULTILINE)
}


def test_every_kind_has_the_fields_that_the_page_says_are_read():
    assert set(READ) == {"EncoderConfig", "VocoderConfig", "AsrConfig"}
    for union, fields in READ.items():
        for kind in get_args(get_args(getattr(speech, union))[0]):
            assert [name for name in fields if name not in kind.model_fields and not hasattr(kind, name)] == [], kind


def test_an_encoder_with_those_fields_and_no_others_is_checked(tmp_path):
    copy_project(tmp_path / "project")
    package = shutil.copytree(ROOT / "alignslm", tmp_path / "package/alignslm")
    fields = "".join(f"    {name}: float\n" for name in READ["EncoderConfig"])
    source = package / "config/speech.py"
    own = f'class ClockEncoderConfig(Config):\n    """A clock."""\n\n    kind: Literal["clock"]\n{fields}\n\n'
    union = "EncoderConfig = Annotated["
    source.write_text(source.read_text().replace(union, f"{own}{union}ClockEncoderConfig | ", 1))
    values = {"kind": "clock", "num_units": 40, "sample_rate_hz": 16000, "frame_rate_hz": 25.0, "fit_utterances": 0}
    (tmp_path / "project/experiments/encoder/clock.yaml").write_text(json.dumps(values))
    edit(tmp_path / "project/params.yaml", {"encoder": "clock"})
    done = subprocess.run(
        [sys.executable, "-m", "alignslm", "check", "-C", tmp_path / "project"],
        env={**os.environ, "PYTHONPATH": str(tmp_path / "package")}, cwd=tmp_path,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, "clock" in done.stdout) == (0, True), done.stderr


def test_every_file_that_the_page_names_exists():
    named = re.findall(r"`((?:alignslm|tests)/[\w/.]+)`", PAGE)
    assert len(named) > 5
    assert [name for name in named if not (ROOT / name).exists()] == []
