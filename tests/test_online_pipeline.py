"""A checkpoint that learns online, in the true pipeline at micro size."""

import json
import math
from pathlib import Path

import polars as pl
import pytest

from alignslm import tables
from tests.micro import edit, make_repository, repro, run

pytestmark = pytest.mark.long
SMALL = {
    "num_rollouts": 2,
    "prompts_per_rollout": 4,
    "num_continuations": 3,
    "max_new_units": 60,
    "micro_batch_size": 6,
}
ONLINE = (
    *("-S", "+checkpoints.online={init_from: sft, train_on: scores/r1, trainer: online}"),
    *("-S", "+systems.online={source: checkpoints/online}"),
)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("micro")
    make_repository(root)
    edit(root / "experiments/trainer/online.yaml", SMALL)
    run(root, "git", "commit", "-qam", "small rollouts")
    repro(root)
    return root


def test_one_command_adds_a_checkpoint_that_learnt_online_and_reruns_no_other(root):
    ran = repro(root, *ONLINE, command=("dvc", "exp", "run"), warm=False)
    assert {name for name in ran if "@" in name} >= {"train@online", "samples@online", "eval@online"}
    assert not [name for name in ran if name.startswith(("train@", "samples@", "eval@")) and "online" not in name]
    made = root / "artifacts/checkpoints/online/rollouts"
    rewards = tables.read(tables.REWARDS, made / "rewards.parquet")
    scores = tables.read(tables.SCORES, made / "scores.parquet")
    log = json.loads((root / "artifacts/training_logs/online.json").read_text())
    assert len(rewards) == len(scores) == 2 * 4 * 3
    joined = rewards.join(scores, on="continuation_id")
    judged = pl.when(status="empty").then(1.0).otherwise("judge_score")
    told = joined.select(pl.col("reward") - (judged - 0.3 * pl.col("num_same_text")))["reward"]
    assert told.abs().max() < 1e-9
    means = rewards.group_by("rollout").agg(pl.col("reward").mean()).sort("rollout")["reward"].to_list()
    logged = [row["figures"]["reward"] for row in log["log"] if "reward" in row["figures"]]
    assert all(math.isclose(*pair, abs_tol=1e-5) for pair in zip(means, logged, strict=True))
    assert "online" in (root / "reports/report.md").read_text()
    identity = rewards["continuation_id"][5]
    shown = run(root, "alignslm", "trace", identity)
    assert {"reward", "num_same_text", "advantage"} <= set(shown.replace("=", " ").split())
    assert "24 in online training" in run(root, "alignslm", "plan", "--offline")


def test_processes_that_share_a_model_are_refused_by_name(root):
    edit(root / "experiments/execution.yaml", {"num_processes": 2, "fsdp": "full_shard"})
    said = run(root, "python", "-m", "stages.train", "online", fails=True)
    edit(root / "experiments/execution.yaml", {"num_processes": 1, "fsdp": "none"})
    assert "checkpoints.online" in said
    assert "fsdp" in said
    assert "Traceback" not in said
