"""A reward model in the true pipeline at micro size: beside the judge, to choose samples, as an online reward."""

import json
import math
from pathlib import Path

import polars as pl
import pytest

from alignslm import tables
from alignslm.artifacts import Artifacts
from alignslm.config.loading import load_experiment
from alignslm.lm.reward import load_reward, unit_rewards
from alignslm.report.ways import judge_calls
from tests.micro import edit, make_repository, repro, run

pytestmark = pytest.mark.long
REWARD = {"max_steps": 4, "batch_size": 4, "min_pairs": 2, "num_evals": 2}
ONLINE = {
    "num_rollouts": 2,
    "prompts_per_rollout": 4,
    "num_continuations": 3,
    "max_new_units": 60,
    "micro_batch_size": 6,
}
ADDED = (
    *("-S", "+reward_models.rm={init_from: base, preferences: r1, trainer: reward}"),
    *("-S", "+systems.best={source: reward_models/rm, best_of: 3}"),
    *("-S", "+best_of.three={sampled_from: base, num_continuations: 3}"),
    *("-S", "+systems.judged={source: best_of/three}"),
    *("-S", "+checkpoints.by-units={init_from: sft, train_on: rewards/rm, trainer: online}"),
    *("-S", "+systems.by-units={source: checkpoints/by-units}"),
)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("micro")
    make_repository(root)
    edit(root / "experiments/trainer/reward.yaml", REWARD)
    edit(root / "experiments/trainer/online.yaml", ONLINE)
    run(root, "git", "commit", "-qam", "small rewards")
    repro(root)
    return root


@pytest.fixture(scope="module")
def ran(root) -> set[str]:
    return {name for name in repro(root, *ADDED, command=("dvc", "exp", "run"), warm=False) if "@" in name}


def test_one_command_adds_all_three_uses_and_reruns_nothing_else(root, ran):
    mine = {"reward@rm", "train@by-units", "best_of@three"}
    mine |= {f"{stage}@{name}" for stage in ("samples", "eval") for name in ("best", "judged", "by-units")}
    assert mine <= ran
    assert not [name for name in ran - mine if name.startswith(("train@", "samples@", "eval@", "scores@", "pairs@"))]
    report = (root / "reports/report.md").read_text()
    assert "best" in report
    assert "by-units" in report


def test_every_judged_continuation_has_its_reward_and_agreement_is_told(root, ran):
    rewards = tables.read(tables.UNIT_REWARDS, root / "artifacts/rewards/rm.parquet")
    scores = tables.read(tables.SCORES, root / "artifacts/scores/r1.parquet")
    assert rewards["continuation_id"].to_list() == scores["continuation_id"].to_list()
    assert rewards["judge_score"].to_list() == scores["judge_score"].to_list()
    assert rewards["reward"].std() > 0
    told = json.loads((root / "artifacts/reward_models/rm/agreement.json").read_text())
    assert told.keys() == {"pair_accuracy", "rank_within_prompt", "rank_correlation"}
    log = json.loads((root / "artifacts/training_logs/rm.json").read_text())
    pairs = tables.read(tables.PAIRS, root / "artifacts/pairs/r1.parquet")
    assert told["pair_accuracy"]["n"] == pairs.filter(split="valid").height
    assert log["best"]["reward_accuracy"] <= told["pair_accuracy"]["value"]  # where a tie counts one half


def test_the_best_of_three_are_draws_of_the_base_model_that_it_ranks_highest(root, ran):
    place = root / "artifacts/samples"
    best, base = (
        tables.read(tables.CONTINUATIONS, place / name / "continuations.parquet").sort("prompt_id", "sample_index")
        for name in ("best", "base")
    )
    assert best.select("prompt_id", "sample_index").equals(base.select("prompt_id", "sample_index"))
    assert set(best["model_id"]) == set(base["model_id"])
    prompts = tables.read(tables.PROMPTS, root / "artifacts/prompts.parquet").select("prompt_id", prompt_units="units")
    model = load_reward(root / "artifacts/reward_models/rm", device="cpu")
    found = [
        unit_rewards(model, frame.join(prompts, on="prompt_id", maintain_order="left"), batch_size=8)
        for frame in (best, base)
    ]
    assert (found[0] >= found[1] - 1e-6).all()  # the base's own draw is one of the three
    assert (found[0] > found[1] + 1e-6).any()


def test_the_best_of_three_by_the_judge_are_its_highest_scores_of_each_group(root, ran):
    made = root / "artifacts/best_of/three"
    drawn = tables.read(tables.CONTINUATIONS, made / "drawn.parquet")
    scores = dict(
        tables.read(tables.SCORES, made / "scores.parquet").select("continuation_id", "judge_score").iter_rows()
    )
    assert scores.keys() == set(drawn["continuation_id"])
    place = root / "artifacts/samples"
    base, best = (
        tables.read(tables.CONTINUATIONS, place / name / "continuations.parquet").sort("prompt_id", "sample_index")
        for name in ("base", "judged")
    )
    counts = base["sample_index"].n_unique()
    groups: dict[tuple[str, int], list[tuple[float, int, str]]] = {}

    def worth(name: str) -> float:
        return math.inf if scores[name] is None else -scores[name]  # nothing was heard: the last choice

    for prompt, index, name in drawn.select("prompt_id", "sample_index", "continuation_id").iter_rows():
        groups.setdefault((prompt, index % counts), []).append((worth(name), index, name))
    assert all(len(group) == 3 for group in groups.values())
    found = dict(zip(best.select("prompt_id", "sample_index").iter_rows(), best["continuation_id"], strict=True))
    assert found == {key: min(group)[2] for key, group in groups.items()}
    assert set(base["continuation_id"]) <= scores.keys()  # the base's own draws are among those that it chose from
    judged = tables.read(tables.CONTINUATION_METRICS, root / "artifacts/eval/judged/judged.parquet")
    again = judged.filter(pl.col("metric") == "judge_score").select("continuation_id", "value").iter_rows()
    assert {name: scores[name] for name in best["continuation_id"]} == dict(again)


def test_what_the_judge_was_asked_to_choose_counts_as_judge_calls(root, ran):
    params = load_experiment(root).params
    made = Artifacts(root / "artifacts")
    drawn = len(tables.read(tables.CONTINUATIONS, made.best_of("three", "drawn")))
    assert judge_calls(made, params, "judged") == drawn
    assert drawn == 3 * len(tables.read(tables.CONTINUATIONS, made.sample("base").continuations))


def test_online_training_by_units_hears_nothing(root, ran):
    folder = root / "artifacts/checkpoints/by-units/rollouts"
    assert sorted(path.name for path in folder.iterdir()) == ["continuations.parquet", "rewards.parquet"]
    rewards = tables.read(tables.REWARDS, folder / "rewards.parquet")
    assert len(rewards) == 2 * 4 * 3
    assert rewards.group_by("rollout").agg(pl.col("advantage").sum().abs())["advantage"].max() < 1e-3
    shown = run(root, "python", "-m", "alignslm", "trace", rewards["continuation_id"][5])
    assert "advantage" in shown


def test_it_is_no_checkpoint_and_overview_and_plan_know_it(root, ran):
    shown = run(root, "python", "-m", "alignslm", "stages").replace("\xa0", " ")
    assert "reward model rm" in shown
    assert "best of 3 three" in shown
    told = run(root, "python", "-m", "alignslm", "plan", "--offline")
    assert "0 in online" not in told
    drawn = len(tables.read(tables.CONTINUATIONS, Artifacts(root / "artifacts").best_of("three", "drawn")))
    assert f"{drawn:,} for best-of-N" in told
    edit(root / "params.yaml", {"systems": {"rm": {"source": "checkpoints/rm"}}})
    said = run(root, "python", "-m", "alignslm", "check", fails=True)
    run(root, "git", "checkout", "-q", "params.yaml")
    assert "systems.rm" in said
    assert "nothing makes" in said
