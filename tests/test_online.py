"""Online training: the loss against a hand computation, tables that close, and kills that change nothing."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from peft import PeftModel, get_peft_model, get_peft_model_state_dict
from polars.testing import assert_frame_equal
from safetensors.torch import load_file
from transformers import set_seed

from alignslm import tables
from alignslm.config.feedback import Sampling
from alignslm.config.models import OnlineTrainerConfig
from alignslm.lm.sampling import sample
from alignslm.online import grpo
from alignslm.online.rollouts import TooFewPromptsError, prompts_of_rollouts, rewards
from alignslm.provenance import row_seed
from alignslm.training import trainer_setup
from alignslm.training.adapter import lora_config
from tests import online_world
from tests.online_world import CONFIG, PROMPTS, SEED, train
from tests.tiny_lm import CONTRACT, VOCABULARY, tiny_lm

FEW = CONFIG.model_copy(update={"num_rollouts": 3})
TABLES = (tables.CONTINUATIONS, tables.TRANSCRIPTS, tables.SCORES, tables.REPLIES, tables.REWARDS)


def written(store, folder: Path) -> dict[str, pl.DataFrame]:
    store.write(folder, CONTRACT)
    return {table.name: tables.read(table, folder / f"{table.name}.parquet") for table in TABLES}


def log_probs(model, prompt: list[int], tail: list[int], temperature: float) -> torch.Tensor:
    """Return log p of the tokens of `tail`, one row by itself, no padding."""
    logits = model(torch.tensor([prompt + tail])).logits[0, len(prompt) - 1 : -1].float() / temperature
    return torch.stack([row[token] - torch.logsumexp(row, 0) for row, token in zip(logits, tail, strict=True)])


def token_ids(row: dict) -> tuple[list[int], list[int]]:
    prompt = PROMPTS.filter(prompt_id=row["prompt_id"])["units"][0].to_list()
    tail = [unit + VOCABULARY.offset for unit in row["units"]] + [VOCABULARY.eos_id] * (row["finish_reason"] == "eos")
    return [VOCABULARY.bos_id, *(unit + VOCABULARY.offset for unit in prompt)], tail


def scaled(group: list[float], others: list[float], scale: str) -> list[float]:
    """Return what GRPO makes of a group's rewards: less their mean, by a standard deviation; 0 without a reward."""
    known, spread = [reward for reward in group if reward is not None], [r for r in others if r is not None]
    spread = known if scale == "group" else spread
    by = 1.0 if scale == "none" else np.std(spread, ddof=1) + 1e-4
    return [0.0 if reward is None else (reward - np.mean(known)) / by for reward in group]


def by_hand(config: OnlineTrainerConfig, rollouts: list[list[dict]]) -> tuple[PeftModel, list[dict[str, float]]]:
    """Train row by row on rollouts that were taken: GRPO as published, with an adapter of its own and plain AdamW."""
    lm = tiny_lm()
    set_seed(SEED)
    model = get_peft_model(lm.model, lora_config(config.lora, lm.model.config))
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer, told = torch.optim.AdamW(weights, lr=config.learning_rate, weight_decay=0.0), []
    for rollout in rollouts:
        rows = [(*token_ids(row), row["advantage"]) for row in rollout]
        old = [log_probs(model, *row[:2], config.temperature).detach() for row in rows]
        with model.disable_adapter():
            frozen = [log_probs(model, *row[:2], config.temperature).detach() for row in rows]
        units = sum(len(tail) for _, tail, _ in rows)
        for _ in range(config.num_iterations):
            loss, divergence = torch.tensor(0.0), 0.0
            for (prompt, tail, advantage), before, reference in zip(rows, old, frozen, strict=True):
                now = log_probs(model, prompt, tail, config.temperature)
                ratio, apart = (now - before).exp(), reference - now
                clipped = ratio.clamp(1 - config.epsilon, 1 + config.epsilon)
                kl = apart.exp() - apart - 1
                each = config.beta * kl - torch.minimum(ratio * advantage, clipped * advantage)
                by = {"dapo": units, "grpo": len(tail) * len(rows), "dr_grpo": config.max_new_units * len(rows)}
                loss = loss + each.sum() / by[config.loss_type]
                divergence += float(kl.detach().sum()) / units
            loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, config.max_grad_norm)
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * (1 - len(told) / config.max_steps)
            optimizer.step()
            optimizer.zero_grad()
            told.append({"loss": float(loss.detach()), "kl": divergence})
    return model, told


@pytest.mark.parametrize(
    ("changes", "micro_batch_size"),
    [
        ({}, None),
        ({"scale_rewards": "group"}, 2),
        ({"loss_type": "grpo", "scale_rewards": "none"}, 3),
        ({"loss_type": "dr_grpo", "num_iterations": 2}, None),
        ({"num_iterations": 3, "epsilon": 0.02}, 4),
    ],
)
def test_loss_advantages_and_kl_are_those_of_a_hand_computation(tmp_path, changes, micro_batch_size):
    config = FEW.model_copy(update={**changes, "micro_batch_size": micro_batch_size})
    model, run, store = train(tmp_path, config)
    rollouts = [frame.sort("prompt_id", "sample_index").to_dicts() for frame in store.finished()]
    for rollout in rollouts:
        all_rewards = [row["reward"] for row in rollout]
        for start in range(0, len(rollout), config.num_continuations):
            group = rollout[start : start + config.num_continuations]
            expected = scaled([row["reward"] for row in group], all_rewards, config.scale_rewards)
            assert [row["advantage"] for row in group] == pytest.approx(expected, abs=1e-5)
    expected_model, expected = by_hand(config, rollouts)
    assert any(row["reward"] is None for rollout in rollouts for row in rollout)
    steps = [row.figures for row in run.log if "loss" in row.figures]
    told = {
        name: [
            np.mean([row[name] for row in expected[at : at + config.num_iterations]])
            for at in range(0, len(expected), config.num_iterations)
        ]
        for name in ("loss", "kl")
    }
    assert [row["loss"] for row in steps] == pytest.approx(told["loss"], rel=2e-3, abs=1e-4)
    if micro_batch_size is None:  # TRL averages over micro-batches, which hold different numbers of units
        assert [row["kl"] for row in steps] == pytest.approx(told["kl"], rel=2e-3, abs=1e-7)
        assert steps[-1]["kl"] > 1e-3
    theirs = get_peft_model_state_dict(expected_model)
    for name, weight in get_peft_model_state_dict(model).items():
        torch.testing.assert_close(weight, theirs[name], atol=2e-3, rtol=1e-2)  # Adam steps are about 0.03


def test_reward_tables_close(tmp_path):
    _, run, store = train(tmp_path / "work")
    made = written(store, tmp_path / "rollouts")
    assert {len(frame) for frame in made.values()} == {5 * 3 * 4}
    texts = dict(made["transcripts"].select("source_id", pl.col("text").fill_null("")).iter_rows())
    scores = {row["continuation_id"]: row for row in made["scores"].iter_rows(named=True)}
    for number in range(5):
        rows = made["rewards"].filter(rollout=number)
        said = [texts[name] for name in rows["continuation_id"]]
        for row in rows.iter_rows(named=True):
            scored, same = scores[row["continuation_id"]], said.count(texts[row["continuation_id"]]) - 1
            judged = {"ok": scored["judge_score"], "empty": 1.0, "failed": None}[scored["status"]]
            assert row["num_same_text"] == same
            assert row["reward"] == (None if judged is None else pytest.approx(judged - 0.3 * same))
        log = next(each.figures for each in run.log if each.step == number + 1)
        assert log["reward"] == pytest.approx(rows["reward"].mean(), abs=1e-5)
        assert log["distinct_texts"] == pytest.approx(len(set(said)) / len(said))
    assert {"ok", "failed"} <= set(made["scores"]["status"])
    assert made["replies"]["judge"].unique().to_list() == ["counting"]
    assert made["continuations"]["model_id"].n_unique() == 5
    assert made["rewards"]["num_same_text"].max() > 0


@pytest.mark.parametrize("top_p", [1.0, 0.3])
def test_draws_are_the_samplers_own(tmp_path, top_p):
    _, _, store = train(tmp_path, FEW.model_copy(update={"top_p": top_p}))
    first, *_ = store.finished()
    lm, row = tiny_lm(), first.row(0, named=True)
    prompt = PROMPTS.filter(prompt_id=row["prompt_id"])["units"][0].to_list()
    seeds = [[row_seed(SEED, "online/0", f"{row['prompt_id']}/{row['sample_index']}")]]
    assert row["seed"] == seeds[0][0]
    sampling = Sampling(num_continuations=4, temperature=0.9, top_p=top_p, max_new_units=6)
    (drawn,) = sample(lm, [prompt], seeds, sampling, batch_size=1)[0]
    assert (drawn.units, drawn.finish_reason) == (row["units"], row["finish_reason"])


def test_masks_are_read_on_a_gpu_too_since_prompts_are_padded_on_the_left(tmp_path, monkeypatch):
    _, here, _ = train(tmp_path / "cpu", FEW)
    made, lean, masks = grpo.shared_arguments, trainer_setup.lean_passes, []
    monkeypatch.setattr(grpo, "shared_arguments", lambda *a, **o: made(*a, **o) | {"use_cpu": False})
    monkeypatch.setattr(trainer_setup, "lean_passes", lambda *a, **o: (masks.append(o["masks"]), lean(*a, **o))[1])
    _, there, _ = train(tmp_path / "gpu", FEW)
    assert masks == [True]
    assert [row.figures.get("loss") for row in there.log] == [row.figures.get("loss") for row in here.log]


def test_what_the_judge_likes_is_learnt(tmp_path):
    more = {"num_rollouts": 20, "prompts_per_rollout": 7, "num_continuations": 6, "beta": 0.02, "learning_rate": 0.01}
    _, run, _ = train(tmp_path, CONFIG.model_copy(update={**more, "repeated_text_penalty": 0.0}))
    assert run.change.end - run.change.start > 0.8
    assert not run.change.worse


@pytest.mark.long
@pytest.mark.parametrize("rollout", [1, 3, 4])
def test_a_killed_run_goes_on_and_gives_the_same_bytes(tmp_path, rollout):
    def made(folder: Path, *kill: str) -> int:
        command = [sys.executable, "-m", "tests.online_world", str(folder), *kill]
        return subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False).returncode

    calls = str(3 * rollout + 1)  # shards of five of twelve stories
    assert made(tmp_path / "killed", calls) == -signal.SIGKILL
    kept = sorted(path.name for path in (tmp_path / "killed" / "work" / "rollouts").glob("*/advantages.parquet"))
    assert len(kept) == rollout
    assert made(tmp_path / "killed") == made(tmp_path / "whole") == 0
    files = [path.relative_to(tmp_path / "whole") for path in (tmp_path / "whole" / "made").rglob("*.*")]
    assert len(files) >= 8
    for file in files:
        assert (tmp_path / "killed" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes(), file


def test_each_rollout_takes_prompts_that_the_others_of_its_permutation_leave():
    ids = [f"p{number}" for number in range(7)]
    found = prompts_of_rollouts(ids, CONFIG.model_copy(update={"num_rollouts": 6}), seed=1)
    assert [len(set(rollout)) for rollout in found] == [3] * 6
    assert all(not set(found[at]) & set(found[at + 1]) for at in (0, 2, 4))
    assert found != prompts_of_rollouts(ids, CONFIG.model_copy(update={"num_rollouts": 6}), seed=2)
    with pytest.raises(TooFewPromptsError):
        prompts_of_rollouts(ids[:2], CONFIG, seed=1)


def test_silence_is_the_lowest_reward_and_a_failed_judge_none():
    scores = pl.DataFrame({
        "continuation_id": ["a", "b", "c", "d", "e"],
        "judge_score": [4.0, 3.0, None, None, None],
        "status": ["ok", "ok", "empty", "empty", "failed"],
    })  # fmt: skip
    heard = pl.DataFrame({"source_id": ["a", "b", "c", "d", "e"], "text": ["one", "one", None, None, "two"]})
    found = rewards(scores, heard, penalty=0.5)
    assert found["num_same_text"].to_list() == [1, 1, 1, 1, 0]
    assert found["reward"].to_list() == [3.5, 2.5, 0.5, 0.5, None]


@pytest.mark.long
def test_two_processes_learn_what_one_does_and_a_lost_one_is_taken_up_again(tmp_path):
    """The first draws and asks the judge, both learn; sums of gradients differ in their last bits."""

    def together(folder: Path, *kill: str) -> int:
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
        command += ["-m", "tests.online_world", str(folder), *kill]
        return subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False).returncode

    online_world.main(tmp_path / "one", None)
    assert together(tmp_path / "two", "7") != 0
    assert len([*(tmp_path / "two" / "work" / "rollouts").glob("*/advantages.parquet")]) == 2
    assert together(tmp_path / "two") == 0
    made = [{path.name: path for path in (tmp_path / name / "made").rglob("*.*")} for name in ("one", "two")]
    assert made[0].keys() == made[1].keys()
    for name in ("continuations", "transcripts", "scores", "replies", "rewards"):
        one, two = (pl.read_parquet(some[f"{name}.parquet"]).drop("model_id", strict=False) for some in made)
        assert_frame_equal(one, two, rel_tol=1e-4, abs_tol=1e-4)
    weights = [load_file(some["adapter_model.safetensors"]) for some in made]
    moved = max(float(weight.abs().max()) for name, weight in weights[0].items() if "lora_B" in name)
    apart = max(float((weights[0][name] - weights[1][name]).abs().max()) for name in weights[0])
    assert moved > 100 * apart
    logs = [json.loads(some["online.json"].read_text())["log"] for some in made]
    figures = [[row["figures"] for row in log if "reward" in row["figures"]] for log in logs]
    assert len(figures[0]) == online_world.CONFIG.num_rollouts
    for one, two in zip(*figures, strict=True):
        for name in ("distinct_texts", "reward", "kl"):
            assert one[name] == pytest.approx(two[name], abs=1e-4), name
