"""One round trained by KTO in the true pipeline at micro size: one value is changed, and every draw has a label."""

from pathlib import Path

import polars as pl
import pytest

from alignslm import tables
from tests.micro import edit, make_repository, repro, run

pytestmark = pytest.mark.long
SMALL = {"max_steps": 4, "batch_size": 4, "min_pairs": 2, "num_evals": 2}


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("micro")
    make_repository(root)
    edit(root / "experiments/trainer/kto.yaml", SMALL)
    edit(root / "params.yaml", {"selector": "quantiles"})
    run(root, "git", "commit", "-qam", "small KTO")
    repro(root)
    return root


def test_one_value_trains_the_round_by_kto_and_every_draw_has_a_label(root):
    before = {path.name: path.read_bytes() for path in (root / "artifacts/pairs").iterdir()}
    ran = repro(root, "-S", "checkpoints.r1.trainer=kto", command=("dvc", "exp", "run"), warm=False)
    assert [name for name in ran if name.startswith(("train@", "pairs@"))] == ["train@r1"]
    assert {path.name: path.read_bytes() for path in (root / "artifacts/pairs").iterdir()} == before
    labels = tables.read(tables.LABELS, root / "artifacts/checkpoints/r1/labels.parquet")
    scores = tables.read(tables.SCORES, root / "artifacts/scores/r1.parquet")
    prompts = tables.read(tables.PROMPTS, root / "artifacts/prompts.parquet", ["prompt_id", "split"])
    judged = scores.join(prompts, on="prompt_id").filter(pl.col("split").is_in(["train", "valid"]))
    assert sorted(labels["continuation_id"]) == sorted(judged["continuation_id"])
    named = {label: set(labels.filter(label=label)["continuation_id"]) for label in ("desirable", "undesirable")}
    pairs = tables.read(tables.PAIRS, root / "artifacts/pairs/r1.parquet")
    assert set(pairs["chosen_id"]) <= named["desirable"]
    assert set(pairs["rejected_id"]) <= named["undesirable"]
    shown = run(root, "python", "-m", "alignslm", "trace", pairs["chosen_id"][0])
    assert "label for r1" in shown
    assert "kto" in (root / "reports/report.md").read_text()


def test_a_selector_without_thresholds_is_refused_in_a_second(root):
    edit(root / "params.yaml", {"selector": "best-worst"})
    said = run(root, "python", "-m", "alignslm", "check", fails=True)
    edit(root / "params.yaml", {"selector": "quantiles"})
    assert "selector" in said
    assert "checkpoints.r1" in said
    assert "quantiles" in said
