"""docs/extending.md: the class and the config it shows are all that a judge of one's own takes."""

import re

import pytest
from typer.testing import CliRunner

import alignslm
from alignslm.cli import app
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


def test_every_file_that_the_page_names_exists():
    named = re.findall(r"`((?:alignslm|tests)/[\w/.]+)`", PAGE)
    assert len(named) > 5
    assert [name for name in named if not (ROOT / name).exists()] == []
