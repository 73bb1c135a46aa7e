"""The stage `pairs` on bad tables: one message each, with file, cause and what to do. Nothing is half written."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from alignslm import tables
from alignslm.artifacts import Artifacts
from stages import pairs
from tests.messages import names
from tests.pair_selection import frames
from tests.sample_experiment import write_experiment
from tests.test_tables import CONTRACT

ROWS = [
    {"prompt": p, "score": s, "units": [n, i], "id": f"{p}-m-{i}"}
    for n, p in enumerate("abc")
    for i, s in enumerate((4, 1))
]
SCORES, CONTINUATIONS, PROMPTS = (
    Path("artifacts", name) for name in ("scores/r1.parquet", "continuations/r1.parquet", "prompts.parquet")
)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(write_experiment(tmp_path))
    Artifacts().own_code("selector/thresholds").mkdir(parents=True)
    scores, continuations, prompts = frames(ROWS)
    tables.write(scores, tables.SCORES, SCORES)
    tables.write(continuations, tables.CONTINUATIONS, CONTINUATIONS, CONTRACT)
    tables.write(prompts, tables.PROMPTS, PROMPTS, CONTRACT)
    return tmp_path


def made():
    return sorted(str(path) for path in Path("artifacts").rglob("*") if path.is_file())


def refused(capsys):
    """What the stage says; it must have left nothing behind."""
    before = made()
    with pytest.raises(SystemExit) as ended:
        pairs.main("r1")
    assert ended.value.code == 1
    assert made() == before
    return capsys.readouterr().err.strip()


def test_a_round_ends_in_three_files_and_one_line(here, capsys):
    pairs.main("r1")
    assert capsys.readouterr().out.startswith("pairs@r1: 3 prompts in, 3 pairs out, ")
    assert tables.read(tables.PAIRS, Path("artifacts/pairs/r1.parquet"))["prompt_id"].to_list() == ["a", "b", "c"]
    assert tables.contract_of(tables.PAIRS, Path("artifacts/pairs/r1.parquet")) == CONTRACT
    assert json.loads(Path("artifacts/pair_counts/r1.json").read_text())["train"]["pairs"] == 3
    assert tables.read(tables.SKIPPED_PROMPTS, Path("artifacts/skipped_prompts/r1.parquet")).is_empty()


def test_a_missing_table(here, capsys):
    SCORES.unlink()
    names(refused(capsys), "dvc repro", "dvc pull", SCORES)


@pytest.mark.parametrize("path", [SCORES, CONTINUATIONS, PROMPTS])
def test_a_corrupted_table(here, capsys, path):
    content = bytearray(path.read_bytes())
    content[len(content) // 8] ^= 4  # in a page of data
    path.write_bytes(content)
    said = refused(capsys)
    assert said.startswith(f"{path} cannot be read as parquet (")
    assert said.endswith("). Delete it and run `dvc repro`.")


def test_a_table_of_another_version(here, capsys):
    arrow = pq.read_table(SCORES)
    pq.write_table(arrow.replace_schema_metadata({"alignslm.table": "scores", "alignslm.version": "0"}), SCORES)
    names(refused(capsys), "dvc repro", "scores", SCORES, "0", tables.SCORES.version)


def test_a_table_under_another_unit_contract(here, capsys):
    other = CONTRACT.model_copy(update={"codebook_sha256": "cd"})
    tables.write(tables.read(tables.PROMPTS, PROMPTS), tables.PROMPTS, PROMPTS, other)
    names(refused(capsys), "dvc repro", "'ab'", "'cd'", CONTINUATIONS, PROMPTS, "codebook_sha256")


def test_a_table_without_a_contract(here, capsys):
    tables.write(tables.read(tables.CONTINUATIONS, CONTINUATIONS), tables.CONTINUATIONS, CONTINUATIONS)
    names(refused(capsys), "dvc repro", CONTINUATIONS)
