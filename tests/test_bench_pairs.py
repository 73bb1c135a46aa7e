"""The benchmark of selection: its tables are what stages write, and it measures the real stage."""

import os

import polars as pl
import pytest

from alignslm import tables
from tests.bench import round_tables
from tests.bench.pairs import BenchError, format_result, run
from tests.bench.round_tables import write_round
from tests.messages import names
from tests.micro import ROOT
from tests.pair_selection import RULES
from tests.sample_experiment import edit, write_experiment


def simulated(folder):
    return write_round(folder, continuations=1000, draws=5, rules=RULES, seed=3, name="r1")


def test_simulated_tables_are_valid_and_repeatable(tmp_path, monkeypatch):
    monkeypatch.setattr(round_tables, "PROMPTS_A_SHARD", 30)  # several shards
    written = simulated(tmp_path / "one")
    assert simulated(tmp_path / "two") == written
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.parquet"))
    assert len(files) == 3
    assert all((tmp_path / "one" / f).read_bytes() == (tmp_path / "two" / f).read_bytes() for f in files)
    prompts = tables.read(tables.PROMPTS, tmp_path / "one/prompts.parquet")
    drawn = tables.read(tables.CONTINUATIONS, tmp_path / "one/continuations/r1.parquet")
    scores = tables.read(tables.SCORES, tmp_path / "one/scores/r1.parquet")
    assert (len(prompts), len(drawn), written.selectable) == (208, written.continuations, written.continuations // 5)
    assert abs(written.continuations - 1000) < 40
    assert scores["continuation_id"].equals(drawn["continuation_id"])
    assert set(drawn["prompt_id"]) == set(prompts.filter(pl.col("split").is_in(["train", "valid"]))["prompt_id"])
    assert set(scores["status"]) == {"ok", "empty", "failed"}


@pytest.mark.parametrize("ranked", [False, True])
def test_the_real_stage_is_measured_and_nothing_is_left(tmp_path, ranked):
    (tmp_path / "work").mkdir()
    ours = bytearray(os.urandom(1_000_000) * 1000)  # our own peak is not the stage's
    assert len(ours) == 1e9
    measured = run(2000, draws=5, seed=0, ranked=ranked, root=ROOT, folder=tmp_path / "work")
    assert 0 < measured.pairs < 4 * measured.written.selectable
    assert 50e6 < measured.peak_bytes < 900e6
    assert measured.cpu_s > 0
    first, second = format_result(measured)
    assert first.startswith(f"simulated: {measured.written.continuations} continuations of ")
    assert second.startswith(f"selected: {measured.pairs} pairs, ")
    assert list((tmp_path / "work").iterdir()) == []


def test_a_stage_that_fails_is_told_with_what_it_said(tmp_path):
    root = write_experiment(tmp_path / "root")
    edit(root / "experiments/selector/thresholds.yaml", ("min_words: 3", "min_words: 100"))
    (root / "stages").symlink_to(ROOT / "stages")
    with pytest.raises(BenchError) as raised:
        run(100, draws=5, seed=0, ranked=False, root=root, folder=tmp_path)
    names(raised.value, "pairs", "status 1", "round r1")
