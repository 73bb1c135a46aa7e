"""Every objective in experiments/trainer is its paper's equation on a two-layer model, and adds up."""

import numpy as np
import polars as pl
import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from ruamel.yaml import YAML

from alignslm.config.models import PreferenceTrainerConfig, TrainerConfig
from alignslm.config.presets import preview
from alignslm.training import pair_rows
from alignslm.training.pair_rows import pair_weights, reference_log_probs
from alignslm.training.preference import train_preferences
from tests.messages import names
from tests.micro import ROOT
from tests.test_training import LORA, TRAINER, naive_side, pairs, shake_adapter, sides, trainer_for
from tests.tiny_lm import CONTRACT, VOCABULARY, tiny_lm

MARGINS = [1.0, 2.5, None, 3.0, -0.5, 1.5, 2.0, 1.0, 4.0]
MEAN = (1 + 2.5 + 3 + 1.5 + 2 + 1 + 4) / 7
WEIGHTS = [1 / MEAN, 2.5 / MEAN, 1, 3 / MEAN, 1, 1.5 / MEAN, 2 / MEAN, 1 / MEAN, 4 / MEAN]


def nats(x):
    return np.logaddexp(0, -x)  # -log sigmoid(x)


def by_hand(p, r, n, b):
    """Each objective as its paper writes it: policy, reference and lengths (pairs, 2), chosen first; beta."""
    d, means, sft = (p - r) @ [1, -1], ((p - r) / n) @ [1, -1], -20 * p[:, 0].sum() / n[:, 0].sum()
    free, free_means = p @ [1, -1], (p / n) @ [1, -1]
    return {
        "dpo": nats(b * d).mean(),
        "dpo-nll": nats(b * d).mean() + sft,
        "dpo-margin": (np.array(WEIGHTS) * nats(b * d)).mean() + sft,
        "dpo-norm": nats(b * means).mean(),
        "ipo": ((means - 1 / (2 * b)) ** 2).mean(),
        "robust": ((0.9 * nats(b * d) - 0.1 * nats(-b * d)) / 0.8).mean(),
        "simpo": nats(b * free_means - 1.0).mean(),
        "cpo": nats(b * free).mean() + sft,
        "slic": np.maximum(0, 1 - b * free).mean() + sft,
        "sft": sft,
    }


def config_of(name):
    return TypeAdapter(TrainerConfig).validate_python(
        YAML(typ="safe").load((ROOT / "experiments/trainer" / f"{name}.yaml").read_text())
    )


CONFIGS = {path.stem: config_of(path.stem) for path in sorted((ROOT / "experiments/trainer").glob("*.yaml"))}
OFFLINE = [
    name for name, config in CONFIGS.items() if isinstance(config, PreferenceTrainerConfig) and "-paper" not in name
]
PREFERENCE = [name for name in OFFLINE if name != "kto"]  # which has no loss of pairs: tests/test_kto.py
SMALL = {"lora": LORA, "batch_size": 4, "micro_batch_size": None, "max_steps": 1, "autocast": "float32"}


def trainer_of(config, lm, frame, *, work):
    """Return a trainer whose adapter is not zero, and the rows it trains and evaluates on."""
    trainer = trainer_for(lm, frame, config, work)
    shake_adapter(trainer.model)
    return trainer, trainer.train_dataset


@pytest.mark.parametrize("name", PREFERENCE)
def test_every_choice_is_its_equation_also_over_micro_batches(tmp_path, name):
    config, lm = CONFIGS[name].model_copy(update=SMALL), tiny_lm()
    frame = pairs(9, seed=4).with_columns(margin=pl.Series(MARGINS))
    reference = np.array([[naive_side(lm, *side) for side in sides(row)] for row in frame.iter_rows(named=True)])
    sizes = np.array([[len(tail) for _, tail in sides(row)] for row in frame.iter_rows(named=True)])
    trainer, rows = trainer_of(config, lm, frame, work=tmp_path)
    policy_lm = type(lm)(trainer.model, VOCABULARY, CONTRACT, "policy")
    policy = np.array([[naive_side(policy_lm, *side) for side in sides(row)] for row in frame.iter_rows(named=True)])
    by_name = by_hand(policy, reference, sizes, config.beta)
    expected = by_name[name]
    found = trainer.evaluate()
    rewards = config.beta * (policy - reference)
    assert found["eval_loss"] == pytest.approx(expected, rel=1e-5, abs=1e-4)
    assert found["eval_rewards/margins"] == pytest.approx((rewards @ [1, -1]).mean(), abs=1e-3)
    assert found["eval_rewards/accuracies"] == pytest.approx((rewards @ [1, -1] > 0).mean())
    micro = [trainer.data_collator([rows[i] for i in range(at, min(at + 4, 9))]) for at in (0, 4, 8)]
    trainer.create_optimizer_and_scheduler(num_training_steps=1)
    trainer.current_gradient_accumulation_steps = len(micro)
    whole = trainer._get_num_items_in_batch(micro, torch.device("cpu"))
    added = sum(float(trainer.training_step(trainer.model, batch, whole)) for batch in micro)
    assert added == pytest.approx(expected, rel=1e-5, abs=1e-4)
    assert sum(abs(other - expected) < 1e-3 for other in by_name.values()) == 1  # no other objective gives this loss


def test_gradients_of_weighted_pairs_are_weighted(tmp_path):
    """The gradient of two pairs weighted 3 to 1 is that of four pairs, the first thrice."""
    config = CONFIGS["dpo-margin"].model_copy(update=SMALL | {"loss_weights": {"sigmoid": 1.0}})
    found = []
    for rows, weighted in (([0, 1], True), ([0, 0, 0, 1], False)):
        lm, run = tiny_lm(), config.model_copy(update={"margin_weights": weighted})
        frame = pairs(2)[rows].with_columns(margin=pl.Series([3.0] * (len(rows) - 1) + [1.0]))
        trainer, data = trainer_of(run, lm, frame, work=tmp_path)
        trainer.model.train()
        trainer.compute_loss(trainer.model, trainer.data_collator([*data])).backward()
        found.append(
            torch.cat([weight.grad.flatten() for weight in trainer.model.parameters() if weight.grad is not None])
        )
    assert torch.allclose(*found, rtol=1e-4, atol=1e-7)
    assert float(found[0].abs().max()) > 1e-3


def test_weights_are_margins_over_their_mean():
    assert pair_weights(pl.Series(MARGINS)) == pytest.approx(WEIGHTS)
    assert pair_weights(pl.Series([None, None], dtype=pl.Float64)) == [1, 1]  # imported preferences have no margin


def test_without_a_reference_none_is_computed_for_training(tmp_path, monkeypatch):
    asked = []

    def counted(lm, frame, side, *, batch_size):
        asked.append(len(frame))
        return reference_log_probs(lm, frame, side, batch_size=batch_size)

    monkeypatch.setattr(pair_rows, "reference_log_probs", counted)
    more = {"max_steps": 9, "learning_rate": 0.01, "num_evals": 3, "min_pairs": 4}
    config = CONFIGS["simpo"].model_copy(update=SMALL | more)
    _, run, best = train_preferences(
        config, tiny_lm(), pairs(16), warmup_steps=0, seed=0, batch_size=8, work=tmp_path / "w"
    )
    assert asked == [4, 4]
    assert run.change.end == best.reward_margin > 0


def test_the_preset_ways_compares_one_round_on_the_same_pairs_and_every_objective_at_the_calls_of_two():
    experiment = preview("ways", ROOT).experiment
    params = experiment.params
    first = {name: item for name, item in params.checkpoints.items() if item.init_from == "base"}
    assert {item.train_on for item in first.values()} == {"pairs/r1"}
    assert {item.trainer for item in first.values()} <= set(OFFLINE)
    again = {f"{name}-more": (name, item.trainer) for name, item in first.items()}
    twice = {name: item for name, item in params.checkpoints.items() if item.train_on == "pairs/more"}
    assert {name: (item.init_from, item.trainer) for name, item in twice.items()} == again
    alike = params.preferences["more"].model_dump() == params.preferences["r1"].model_dump()
    assert alike  # sampled from base, and paired by the same thresholds
    assert {*params.checkpoints} - {*first, *twice} == {"r2", "sft-2", "online"}
    budget = params.best_of["eighteen"].num_continuations * params.prompts.test * params.evaluation.num_continuations
    assert budget == 2 * (params.prompts.train + params.prompts.valid) * params.sampling.num_continuations
    assert {system.checkpoint for system in params.systems.values()} == {"base", None, *params.checkpoints}
    online = experiment.checkpoints["online"]
    prompts = params.prompts.train + params.prompts.valid
    assert online.num_rollouts * online.batch_size == prompts * params.sampling.num_continuations


@pytest.mark.parametrize(
    ("changed", "key"),
    [
        ({"target_margin": 1.0}, "target_margin"),
        ({"target_margin": 1.0, "reference_free": True}, "target_margin"),
        ({"loss_weights": {"sft": 1.0}, "reference_free": True}, "reference_free"),
        ({"loss_weights": {"sft": 1.0}, "margin_weights": True}, "margin_weights"),
        ({"label_smoothing": 0.1}, "label_smoothing"),
    ],
)
def test_a_knob_that_no_loss_reads_is_refused(changed, key):
    with pytest.raises(ValidationError) as raised:
        PreferenceTrainerConfig.model_validate(TRAINER.model_dump() | changed)
    names(raised.value, key)
