"""docs/architecture.md: its walks pass files that exist, each of which uses the next, as the picture shows."""

import re

import pytest

from tests.micro import ROOT

PAGE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
PICTURE = (ROOT / "docs/architecture.svg").read_text(encoding="utf-8")
WALKS = {
    title: re.findall(r"^\| \d+ \| `([^`]+)` \|", body, re.MULTILINE)
    for title, body in re.findall(r"^## Walk \d: (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
}


def test_every_path_that_the_page_names_exists():
    named = {path for path in re.findall(r"`([\w./-]+)`", PAGE) if "/" in path and not path.startswith("artifacts/")}
    assert len(named) > 30
    assert sorted(path for path in named if not (ROOT / path).exists()) == []


def test_the_picture_shows_the_walks_of_the_page():
    shown = re.findall(r"<text [^>]*>([^<]+)</text>", PICTURE)
    assert shown == [entry for title, files in WALKS.items() for entry in (title, *files)]


@pytest.mark.parametrize("walk", WALKS)
def test_a_walk_does_not_come_back(walk):
    assert len(WALKS[walk]) == len({*WALKS[walk]})


@pytest.mark.parametrize(
    ("caller", "called"),
    [
        ("stages/pairs.py", "alignslm.pairs.streaming"),
        ("alignslm/pairs/streaming.py", "alignslm.pairs.utility"),
        ("alignslm/pairs/streaming.py", "alignslm.pairs.selection"),
        ("stages/continuations.py", "stages.sampling"),
        ("stages/sampling.py", "alignslm.lm.rows"),
        ("alignslm/lm/rows.py", "alignslm.lm.sampling"),
        ("alignslm/lm/sampling.py", "alignslm.lm.fixed_shapes"),
        ("alignslm/lm/sampling.py", "alignslm.lm.draws"),
        ("stages/speech.py", "alignslm.vocoder.rows"),
        ("stages/transcripts.py", "alignslm.asr.rows"),
        ("stages/base.py", "alignslm.training.base_model"),
        ("alignslm/training/base_model.py", "alignslm.lm.pretrained"),
        ("alignslm/lm/pretrained.py", "alignslm.lm.formats"),
        ("alignslm/lm/formats.py", "alignslm.loading"),
        ("stages/judge.py", "alignslm.judge"),
        ("stages/scores.py", "alignslm.judge.rows"),
        ("alignslm/judge/__init__.py", "alignslm.judge.openai_api"),
        ("alignslm/judge/openai_api.py", "alignslm.judge.api_client"),
        ("alignslm/judge/openai_api.py", "alignslm.judge.replies"),
        ("alignslm/judge/api_client.py", "alignslm.judge.reply_store"),
    ],
)
def test_a_step_calls_the_next(caller, called):
    code = (ROOT / caller).read_text(encoding="utf-8")
    package, _, module = called.rpartition(".")
    assert f"from {called} import" in code or re.search(rf"from {re.escape(package)} import .*\b{module}\b", code)
