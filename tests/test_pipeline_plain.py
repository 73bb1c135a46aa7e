"""The method is dvc.yaml, not DVC: a runner of thirty lines makes the same bytes."""

import hashlib
import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest
import yaml

from tests.micro import ROOT, WARM, make_repository, run

PAGES = {"reports/index.html", "reports/report.md"}  # quote the hash that dvc.lock had when they were written
LOCK_LINE = re.compile(r"(dvc\.lock sha256\W.{0,80}?)(?:none|[0-9a-f]{64})")


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def dvc_hash(path: Path) -> str:
    """Return a file's md5, or of a folder that of the JSON that lists the md5 of its files, sorted by name."""
    if path.is_file():
        return md5(path.read_bytes())
    files = sorted(file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file())
    listed = ", ".join(
        f'{{"md5": "{md5((path / file).read_bytes())}", "relpath": {json.dumps(file)}}}' for file in files
    )
    return md5(f"[{listed}]".encode()) + ".dir"


@pytest.mark.long
def test_a_plain_runner_makes_what_dvc_makes(tmp_path):
    plain, by_dvc = tmp_path / "plain", tmp_path / "dvc"
    make_repository(plain)
    shutil.copytree(plain, by_dvc)
    variables = {"PYTHONPATH": os.pathsep.join([str(plain), str(tmp_path / "runner")])}
    (tmp_path / "runner/tests").mkdir(parents=True)
    shutil.copy(ROOT / "tests/plain_runner.py", tmp_path / "runner/tests")
    said = run(plain, *WARM, sys.executable, "-m", "tests.plain_runner", variables=variables)
    assert not (plain / "dvc.lock").exists()
    run(by_dvc, *WARM, "dvc", "repro")
    entries = yaml.safe_load((by_dvc / "dvc.lock").read_text())["stages"]
    assert set(entries) <= set(said.split())
    outputs = {out["path"]: out["md5"] for entry in entries.values() for out in entry["outs"]}
    assert {path: dvc_hash(by_dvc / path) for path in outputs} == outputs
    found = {path: dvc_hash(plain / path) for path in outputs}
    assert {path for path in outputs if found[path] != outputs[path]} == PAGES
    for page in PAGES:
        mine, its = (LOCK_LINE.sub(r"\1", (root / page).read_text()) for root in (plain, by_dvc))
        assert mine == its
