"""A reward model of units: its loss, its rewards one by one, what it agrees with, and the best of several draws."""

import json
import math
import re
import shutil

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from transformers import LlamaForSequenceClassification, Trainer
from trl import RewardTrainer

from alignslm import tables
from alignslm.buckets import GPU
from alignslm.config.loading import load_config, load_experiment
from alignslm.config.models import RewardTrainerConfig, TrainerConfig
from alignslm.config.problems import ConfigError
from alignslm.engine.work import LazyModel
from alignslm.lm.checkpoint import UnitLM, save_lm
from alignslm.lm.positions import TooLongError
from alignslm.lm.reward import agreement, best_of, head_of, load_reward, spearman, unit_rewards, with_reward_head
from alignslm.loading import WeightsError
from alignslm.online.rollouts import UnitRewards
from alignslm.training.adapter import save_adapter_and_merge
from alignslm.training.pair_rows import side_of
from alignslm.training.preference import TooFewPairsError
from alignslm.training.reward import reward_rows, train_reward
from alignslm.training.trainer_setup import write_log
from tests.documented import ROOT
from tests.messages import names
from tests.sample_experiment import write_experiment
from tests.test_training import pairs, steps_of
from tests.tiny_lm import CONTRACT, VOCABULARY, tiny_lm, tiny_model

CONFIG = load_config("trainer", "reward", TrainerConfig).model_copy(
    update={"batch_size": 6, "min_pairs": 4, "max_steps": 12, "num_evals": 4, "learning_rate": 0.02, "warmup_steps": 0}
)


@pytest.fixture
def base(tmp_path):
    folder = tmp_path / "base"
    save_lm(tiny_lm().model, VOCABULARY, CONTRACT, folder)
    return folder


def shaken(lm, seed=3):
    """Give the head, which starts with zeros, weights."""
    generator = torch.Generator().manual_seed(seed)
    head_of(lm.model).weight.data = torch.randn(1, 32, generator=generator)
    return lm


def naive_reward(lm, prompt, units, reason):
    """The head's product with the last hidden state of one unpadded sequence."""
    ids = VOCABULARY.encode(prompt, bos=True) + VOCABULARY.encode(units, bos=False, eos=reason == "eos")
    with torch.no_grad():
        states = lm.model.get_submodule("model")(torch.tensor([ids])).last_hidden_state[0, -1]
        return float(states.double() @ head_of(lm.model).weight[0].double())


def rows_of(frame, side="chosen"):
    return list(side_of(frame, side).select("prompt_units", "units", "finish_reason").iter_rows())


def test_a_new_head_gives_nothing_and_all_else_is_the_language_model(base):
    lm = with_reward_head(base, device="cpu")
    assert isinstance(lm.model, LlamaForSequenceClassification)
    assert not unit_rewards(lm, side_of(pairs(9), "chosen"), batch_size=4).any()
    theirs = tiny_lm().model.get_submodule("model").state_dict()
    assert all(
        torch.equal(weight, theirs[name]) for name, weight in lm.model.get_submodule("model").state_dict().items()
    )


def test_rewards_are_those_of_one_sequence_at_a_time_in_any_company(base):
    lm, frame = shaken(with_reward_head(base, device="cpu")), pairs(24)
    found = unit_rewards(lm, side_of(frame, "chosen"), batch_size=8)
    assert found == pytest.approx([naive_reward(lm, *row) for row in rows_of(frame)], abs=1e-4)
    assert np.ptp(found) > 1
    order = np.random.default_rng(0).permutation(24)
    for size in (1, 5, 24):
        assert (unit_rewards(lm, side_of(frame[order], "chosen"), batch_size=size) == found[order]).all()
    alone = [unit_rewards(lm, side_of(frame[at : at + 1], "chosen"), batch_size=8)[0] for at in range(24)]
    assert alone == pytest.approx(found, abs=1e-6)
    few = [unit_rewards(lm, side_of(frame[order], "chosen"), batch_size=size, shapes=GPU) for size in (1, 5, 24)]
    assert all((one == few[0]).all() for one in few)
    assert few[0] == pytest.approx(found[order], abs=1e-5)


@pytest.mark.parametrize("family", ["opt", "qwen2", "mistral"])
def test_models_of_the_field_get_a_head(tmp_path, family):
    save_lm(tiny_model(family, vocab_size=23), VOCABULARY, CONTRACT, tmp_path)
    lm = with_reward_head(tmp_path, device="cpu")
    generator = torch.Generator().manual_seed(0)
    head_of(lm.model).weight.data = torch.randn(head_of(lm.model).weight.shape, generator=generator)
    frame = pairs(9)
    found = unit_rewards(lm, side_of(frame, "chosen"), batch_size=4)
    assert found == pytest.approx([naive_pooled(lm, *row) for row in rows_of(frame)], abs=1e-4)
    assert np.ptp(found) > 0.1


def test_a_saved_reward_model_is_read_again_and_is_no_language_model(base, tmp_path):
    lm = shaken(with_reward_head(base, device="cpu"))
    save_lm(lm.model, VOCABULARY, CONTRACT, tmp_path / "reward")
    again = load_reward(tmp_path / "reward", device="cpu")
    rows = side_of(pairs(9), "rejected")
    assert (unit_rewards(again, rows, batch_size=8) == unit_rewards(lm, rows, batch_size=8)).all()
    with pytest.raises(WeightsError) as raised:
        load_reward(base, device="cpu")
    names(raised.value, "base", "score.weight", "missing")


def test_a_continuation_without_positions_is_refused(base):
    frame = pairs(3).with_columns(chosen_units=pl.lit([1] * 200, pl.List(pl.UInt16)))
    with pytest.raises(TooLongError, match="128"):
        unit_rewards(with_reward_head(base, device="cpu"), side_of(frame, "chosen"), batch_size=8)


def trainer_of(base, tmp_path, config, frame):
    """TRL's trainer as `train_reward` makes it, before its first step."""
    made = []

    class StoppedError(Exception):
        pass

    def stop(trainer, *_, **__):
        made.append(trainer)
        raise StoppedError

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Trainer, "train", stop)
        with pytest.raises(StoppedError):
            train_reward(config, with_reward_head(base, device="cpu"), frame, seed=0, batch_size=8, work=tmp_path / "w")
    return made[0]


def shake(model, seed=5):
    generator = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            assert "lora" in name or "score" in name
            weight.data = 0.3 * torch.randn(weight.shape, generator=generator)


def test_the_loss_is_bradley_terrys_whatever_the_micro_batch(base, tmp_path):
    """Ten pairs are a step of six and one of four; micro-batches of six, four and two add up to the same."""
    frame, found = pairs(10).with_columns(split=pl.lit("train")), {}
    frame = pl.concat([frame, pairs(2).with_columns(split=pl.lit("valid"))])
    for micro in (6, 3, 2):
        config = CONFIG.model_copy(update={"micro_batch_size": micro, "center_rewards": 0.25})
        trainer = trainer_of(base, tmp_path, config, frame)
        shake(trainer.model)
        found[micro] = list(steps_of(trainer, 6, micro))
        policy = UnitLM(trainer.model.get_base_model(), VOCABULARY, CONTRACT, "policy")
        sides = [
            np.array([naive_pooled(policy, *row) for row in rows_of(frame[:10], s)]) for s in ("chosen", "rejected")
        ]
        each = np.log1p(np.exp(sides[1] - sides[0])) + 0.25 * (sides[0] + sides[1]) ** 2
        for (loss, _), (start, end) in zip(found[micro], [(0, 6), (6, 10)], strict=True):
            assert loss == pytest.approx(each[start:end].mean(), rel=1e-4)
    assert np.abs(sides[0] - sides[1]).max() > 0.1
    for micro in (3, 2):
        for whole, parts in zip(found[6], found[micro], strict=True):
            assert torch.allclose(whole[1], parts[1], rtol=1e-3, atol=1e-6)


def naive_pooled(lm, prompt, units, reason):
    ids = VOCABULARY.encode(prompt, bos=True) + VOCABULARY.encode(units, bos=False, eos=reason == "eos")
    with torch.no_grad():
        return float(lm.model(torch.tensor([ids])).logits[0, 0])


def test_a_whole_batch_is_what_trl_itself_computes(base, tmp_path):
    frame = pl.concat([pairs(10).with_columns(split=pl.lit("train")), pairs(2).with_columns(split=pl.lit("valid"))])
    trainer = trainer_of(base, tmp_path, CONFIG.model_copy(update={"batch_size": 10}), frame)
    shake(trainer.model)
    ((loss, _),) = steps_of(trainer, 10, 10)
    theirs = RewardTrainer.__new__(RewardTrainer)
    theirs.__dict__ = trainer.__dict__
    batch = trainer.data_collator(list(trainer.train_dataset))
    assert loss == pytest.approx(float(RewardTrainer.compute_loss(theirs, trainer.model, batch).detach()), rel=1e-5)


def trained(base, work, **changed):
    lm = with_reward_head(base, device="cpu")
    return train_reward(CONFIG.model_copy(update=changed), lm, pairs(24), seed=3, batch_size=8, work=work)


def bytes_of(outcome, folder):
    model, run, best = outcome
    merged = save_adapter_and_merge(model, folder / "adapter")
    save_lm(merged, VOCABULARY, CONTRACT, folder)
    write_log(run, best, folder / "log.json")
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_killed_run_ends_with_the_bytes_of_an_uninterrupted_one(base, tmp_path, monkeypatch):
    whole = trained(base, tmp_path / "whole")
    whole_step = Trainer.training_step

    def dies(trainer, *args, **kwargs):
        if trainer.state.global_step == 8:
            raise KeyboardInterrupt
        return whole_step(trainer, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "training_step", dies)
        with pytest.raises(KeyboardInterrupt):
            trained(base, tmp_path / "cut")
    assert [folder.name for folder in (tmp_path / "cut").glob("checkpoint-*")] == ["checkpoint-6"]
    resumed = trained(base, tmp_path / "cut")
    assert bytes_of(resumed, tmp_path / "b") == bytes_of(whole, tmp_path / "a")
    logged = json.loads((tmp_path / "a/log.json").read_text())
    assert logged["best"]["step"] > 0
    assert [row["step"] for row in logged["log"] if "eval_rewards/accuracies" in row["figures"]] == [3, 6, 9, 12]


def test_it_learns_what_is_preferred_and_the_merged_model_is_the_kept_one(base, tmp_path):
    model, run, best = trained(base, tmp_path / "w", max_steps=40)
    assert best.reward_accuracy >= 5 / 6
    valid = pairs(24).filter(pl.col("split") == "valid")
    merged = UnitLM(save_adapter_and_merge(model, tmp_path / "a"), VOCABULARY, CONTRACT, "merged")
    chosen, rejected = (unit_rewards(merged, side_of(valid, side), batch_size=8) for side in ("chosen", "rejected"))
    assert (chosen > rejected).mean() == best.reward_accuracy
    assert (chosen - rejected).mean() == pytest.approx(best.reward_margin, abs=1e-4)
    assert run.change.end == best.reward_margin


def test_too_few_pairs_are_refused(base, tmp_path):
    with pytest.raises(TooFewPairsError) as raised:
        trained(base, tmp_path / "w", min_pairs=1000)
    names(raised.value, "1000", "min_pairs", "prompts.train")


def test_ids_are_those_that_were_drawn(base):
    frame = pairs(3)
    row = reward_rows(with_reward_head(base, device="cpu"), frame)[0]
    prompt, units, reason = rows_of(frame)[0]
    assert row["chosen_ids"] == [1, *(unit + 3 for unit in [*prompt, *units]), *([2] if reason == "eos" else [])]


# What it agrees with


scored = st.lists(st.tuples(st.integers(1, 5), st.integers(-3, 3)), min_size=2, max_size=8)


@given(scored)
def test_rank_correlation_is_scipys(rows):
    first, second = (pl.Series(list(side), dtype=pl.Float64) for side in zip(*rows, strict=True))
    if min(first.n_unique(), second.n_unique()) == 1:
        assert spearman(first, second) is None
    else:
        assert spearman(first, second) == pytest.approx(stats.spearmanr(first, second).statistic, abs=1e-9)


def test_agreement_by_hand():
    rewarded = pl.DataFrame(
        [
            ("a", "a0", 5.0, 2.0),
            ("a", "a1", 3.0, 1.0),
            ("a", "a2", 1.0, 3.0),
            ("b", "b0", 4.0, 1.0),
            ("b", "b1", 2.0, 0.0),
            ("c", "c0", 3.0, 1.0),  # equal scores rank nothing
            ("c", "c1", 3.0, 2.0),
            ("d", "d0", None, 9.0),  # the judge failed
            ("d", "d1", 2.0, 0.0),
        ],
        schema=["prompt_id", "continuation_id", "judge_score", "reward"],
        orient="row",
    )
    chosen = pl.DataFrame({
        "prompt_id": ["a", "a", "b", "c"],
        "chosen_id": ["a0", "a0", "b0", "c0"],
        "rejected_id": ["a1", "a2", "b1", "c0"],
    })  # fmt: skip
    found = agreement(rewarded, chosen)
    assert found["pair_accuracy"].value == pytest.approx((1 + 0 + 1 + 0.5) / 4)
    assert found["rank_within_prompt"].value == pytest.approx((-0.5 + 1) / 2)
    assert (found["rank_within_prompt"].n, found["rank_within_prompt"].n_missing) == (2, 2)
    known = rewarded.drop_nulls()
    assert found["rank_correlation"].value == pytest.approx(
        stats.spearmanr(known["judge_score"], known["reward"]).statistic
    )


# The best of several draws


def drawn(prompts, draws, seed=0):
    rng = np.random.default_rng(seed)
    frame = pl.DataFrame({
        "continuation_id": [f"{p}-{d}" for p in prompts for d in range(draws)],
        "prompt_id": [p for p in prompts for _ in range(draws)],
        "sample_index": [*range(draws)] * len(prompts),
        "model_id": "m",
        "seed": 0,
        "units": [[1]] * (draws * len(prompts)),
        "finish_reason": "eos",
        "logprob": 0.0,
    })  # fmt: skip
    return tables.conform(frame, tables.CONTINUATIONS), rng.integers(0, 4, draws * len(prompts)).astype(float)


@settings(deadline=None)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 99))
def test_the_best_of_each_group_is_kept(groups, each, seed):
    prompts = ["a", "m", "z"]  # as in every table
    frame, rewards = drawn(prompts, groups * each, seed)
    found = best_of(frame, rewards, num_continuations=groups)
    told = dict(zip(frame["continuation_id"], rewards, strict=True))
    expected = []
    for prompt in prompts:
        for group in range(groups):
            members = [f"{prompt}-{draw}" for draw in range(group, groups * each, groups)]
            expected.append((max(members, key=lambda one: told[one]), prompt, group))
    assert sorted(found.select("continuation_id", "prompt_id", "sample_index").iter_rows()) == sorted(expected)


def test_the_best_of_one_is_what_was_drawn():
    frame, rewards = drawn(["a", "b"], 3)
    assert best_of(frame, rewards, num_continuations=3).equals(frame)


# As a reward of online training


def test_a_rollout_is_rewarded_by_units_and_repetition_costs(base):
    lm = shaken(with_reward_head(base, device="cpu"))
    frame, _ = drawn(["p", "q"], 3)
    units = pl.Series([[4, 5], [4, 5], [6], [4, 5], [7], []], dtype=pl.List(pl.UInt16))
    asked = pl.DataFrame({"prompt_id": ["p", "q"], "units": pl.Series([[1, 2], [3]], dtype=pl.List(pl.UInt16))})
    reward = UnitRewards(LazyModel(lambda: lm), batch_size=4, penalty=0.5)
    found = reward(frame.with_columns(units=units), asked, folder=None, label="")
    same = [2, 2, 0, 2, 0, 0]
    assert found["num_same_text"].to_list() == same
    prompts = [[1, 2]] * 3 + [[3]] * 3
    own = [naive_reward(lm, prompt, row, "eos") for prompt, row in zip(prompts, units.to_list(), strict=True)]
    expected = [value - 0.5 * count for value, count in zip(own, same, strict=True)]
    assert found["reward"].to_list() == pytest.approx(expected, abs=1e-4)
    assert all(map(math.isfinite, expected))


# What is refused


def experiment_with(root, reward_models):
    path = write_experiment(root) / "params.yaml"
    shutil.copy(ROOT / "experiments/trainer/reward.yaml", root / "experiments/trainer/reward.yaml")
    path.write_text(path.read_text().replace("reward_models: {}", f"reward_models: {reward_models}"))
    return path


RM = "{init_from: base, preferences: r1, trainer: reward}"


def test_a_reward_model_is_read_with_its_trainer(tmp_path):
    experiment_with(tmp_path, f"{{rm: {RM}}}")
    experiment = load_experiment(tmp_path)
    assert isinstance(experiment.reward_models["rm"], RewardTrainerConfig)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (f"{{r1: {RM}}}", ("reward_models.r1", "checkpoint")),
        ("{rm: {init_from: nowhere, preferences: r1, trainer: reward}}", ("reward_models.rm.init_from", "nowhere")),
        ("{rm: {init_from: base, preferences: r9, trainer: reward}}", ("reward_models.rm.preferences", "r9")),
        ("{rm: {init_from: base, preferences: r1, trainer: dpo}}", ("reward_models.rm.trainer", "preference")),
    ],
)
def test_what_cannot_be_is_refused(tmp_path, value, said):
    experiment_with(tmp_path, value)
    with pytest.raises(ConfigError) as raised:
        load_experiment(tmp_path)
    names(raised.value, *said)


@pytest.mark.parametrize(
    ("system", "said"),
    [
        ("{source: reward_models/rm}", "best_of"),
        ("{source: checkpoints/base, best_of: 4}", "best_of"),
        ("{source: reward_models/other, best_of: 4}", "other"),
        ("{source: best_of/other}", "other"),
        ("{source: best_of/five, best_of: 4}", "best_of"),
        ("{source: best_of/five, temperature_scale: 0.5}", "temperature_scale"),
    ],
)
def test_systems_say_of_how_many_draws_a_reward_model_takes_one(tmp_path, system, said):
    path = experiment_with(tmp_path, f"{{rm: {RM}}}")
    text = path.read_text().replace("best_of: {}", "best_of: {five: {sampled_from: base, num_continuations: 5}}")
    path.write_text(text.replace("\nsystems:\n", f"\nsystems:\n  best: {system}\n"))
    with pytest.raises(ConfigError) as raised:
        load_experiment(tmp_path)
    names(raised.value, "systems.best", said)


@pytest.mark.parametrize(
    ("best", "said"),
    [
        ("{sampled_from: nowhere, num_continuations: 5}", ("best_of.five.sampled_from", "nowhere")),
        ("{sampled_from: base, num_continuations: 1}", ("best_of.five.num_continuations", "2")),
    ],
)
def test_a_best_of_n_chooses_among_several_of_a_checkpoint(tmp_path, best, said):
    path = experiment_with(tmp_path, f"{{rm: {RM}}}")
    path.write_text(path.read_text().replace("best_of: {}", f"best_of: {{five: {best}}}"))
    with pytest.raises(ConfigError) as raised:
        load_experiment(tmp_path)
    names(raised.value, *said)


def test_a_reward_model_that_wants_more_pairs_than_there_can_be_is_refused(tmp_path):
    experiment_with(tmp_path, f"{{rm: {RM}}}")
    file = tmp_path / "experiments/trainer/reward.yaml"
    file.write_text(re.sub(r"min_pairs: \d+", "min_pairs: 1000000", file.read_text()))
    with pytest.raises(ConfigError) as raised:
        load_experiment(tmp_path)
    names(raised.value, "reward.yaml", "min_pairs", "1000000 pairs wanted", "at most")
