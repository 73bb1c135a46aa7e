"""The documentation's site: built strictly from the pages and docstrings, complete, and asking no other host."""

import os
import re
import subprocess
import sys

import pytest

import alignslm
from tests.micro import ROOT

FETCHED = re.compile(r"<(?:script|img|iframe|link)\b[^>]*?\b(?:src|href)=\"?((?:https?:)?//[^\s\">]+)")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_every_public_name_is_in_the_reference(site):
    page = (site / "api/index.html").read_text(encoding="utf-8")
    anchors = {name.rpartition(".")[2] for name in re.findall(r'id="?(alignslm[.\w]+)', page)}
    assert set(alignslm.__all__) <= anchors


def test_no_page_fetches_anything_from_elsewhere(site):
    assert FETCHED.findall('<script src="https://unpkg.com/mermaid"></script>')
    pages = [*site.rglob("*.html")]
    assert len(pages) > 20
    assert {found for page in pages for found in FETCHED.findall(page.read_text(encoding="utf-8"))} == set()
