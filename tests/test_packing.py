"""Two sides in one row: what a packed row holds, by an oracle, and that training notices nothing."""

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from transformers import FalconConfig, FalconForCausalLM, MixtralConfig, MixtralForCausalLM

from alignslm.config.models import PreferenceTrainerConfig
from alignslm.lm.checkpoint import UnitLM, disable_dropout
from alignslm.model_cache import UnsupportedModelError
from alignslm.training.packing import pack_pairs, require_packable
from alignslm.training.pair_rows import preference_rows
from alignslm.training.preference import (
    train_preferences,
)
from tests.messages import names
from tests.test_training import TRAINER, pairs, shake_adapter, trainer_for
from tests.tiny_lm import CONTRACT, VOCABULARY, tiny_model
from tests.tiny_states import tiny_by_name

SIDES = st.lists(st.integers(1, 3), min_size=1, max_size=7)


@settings(deadline=None)
@given(st.lists(st.tuples(SIDES, SIDES), min_size=1, max_size=4), st.integers(1, 8))
def test_every_token_sees_what_it_saw_in_a_row_of_its_own(rows, multiple_of):
    """Tokens are few, so that many pairs have a beginning in common, or are equal."""
    plain = [chosen for chosen, _ in rows] + [rejected for _, rejected in rows]
    longest = max(map(len, plain))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in plain])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in plain])
    packed = pack_pairs(ids, mask, multiple_of=multiple_of)
    needed = []
    for number, row in enumerate(plain):
        pair = number % len(rows)
        for at, token in enumerate(row):
            place = packed.places[number, at]
            assert (packed.ids[pair, place], packed.positions[pair, place]) == (token, at)
            seen = packed.seen[pair, 0, place].nonzero()[:, 0]
            assert packed.ids[pair, seen].tolist() == row[: at + 1]
            assert packed.positions[pair, seen].tolist() == list(range(at + 1))
        shared = [a == b for a, b in zip(*rows[pair], strict=False)]
        needed.append(sum(map(len, rows[pair])) - (shared.index(False) if False in shared else len(shared)))
    assert packed.ids.shape[1] == -(-max(needed) // multiple_of) * multiple_of
    assert packed.positions.max() < longest  # also of padding: a model may have no further positions
    assert packed.seen.diagonal(dim1=2, dim2=3).all()  # a position that sees nothing would be no number


def varied(count=6):
    """Prompts and sides of many lengths, with sides that begin alike, and one that ends where the other goes on."""
    rng = np.random.default_rng(5)
    frame = pl.DataFrame({
        "prompt_units": [rng.integers(0, 20, 2 + 5 * (row % 4)).tolist() for row in range(count)],
        "chosen_units": [rng.integers(0, 20, 9 - row).tolist() for row in range(count)],
        "rejected_units": [rng.integers(0, 20, 2 + 2 * row).tolist() for row in range(count)],
        "chosen_finish_reason": ["eos", "length"] * (count // 2),
        "rejected_finish_reason": ["length"] * count,
        "margin": [0.5 + row for row in range(count)],
    })  # fmt: skip
    one, two = frame["chosen_units"].to_list(), frame["rejected_units"].to_list()
    two[1], two[2] = [*one[1], 4, 5], [*one[2][:3], 1]
    return frame.with_columns(rejected_units=pl.Series(two))


def unit_lm(family):
    model = tiny_model(family, vocab_size=23)
    disable_dropout(model)
    return UnitLM(model, VOCABULARY, CONTRACT, family)


def step_of(config, family, work, *, multiple_of=None):
    """Return the loss of all pairs, its gradients, the figures of validation and the shapes that the model read."""
    lm = unit_lm(family)
    trainer = trainer_for(lm, varied(), config, work, multiple_of=multiple_of)
    shake_adapter(trainer.model)
    trainer.model.train()
    shapes = []
    backbone = trainer.model.get_base_model().model
    look = backbone.register_forward_hook(lambda _, __, given, ___: shapes.append(given), with_kwargs=True)
    loss = trainer.compute_loss(trainer.model, trainer.data_collator([*trainer.train_dataset]))
    loss.backward()
    look.remove()
    grads = [weight.grad.flatten() for weight in trainer.model.parameters() if weight.grad is not None]
    return (
        float(loss.detach()),
        torch.cat(grads),
        trainer.evaluate(),
        [tuple(given["input_ids"].shape) for given in shapes],
    )


MIXTURES = {
    "sigmoid": {"loss_weights": {"sigmoid": 1.0}},
    "ipo": {"loss_weights": {"ipo": 1.0}},
    "norm and sft": {"loss_weights": {"sigmoid_norm": 1.0, "sft": 2.0}},
    "free": {"loss_weights": {"sigmoid_norm": 1.0}, "reference_free": True, "target_margin": 0.3},
    "margins": {"loss_weights": {"sigmoid": 1.0, "sft": 2.0}, "margin_weights": True},
}


@pytest.mark.parametrize(("mixture", "multiple_of"), [(name, (None, 32)[at % 2]) for at, name in enumerate(MIXTURES)])
@pytest.mark.parametrize("family", ["llama", "opt"])
def test_losses_figures_and_gradients_are_those_of_plain_rows(tmp_path, family, mixture, multiple_of):
    config = TRAINER.model_copy(update=MIXTURES[mixture])
    plain = step_of(config, family, tmp_path)
    packed = step_of(config.model_copy(update={"pack_pairs": True}), family, tmp_path, multiple_of=multiple_of)
    assert packed[0] == pytest.approx(plain[0], rel=1e-5, abs=1e-5)
    assert float(plain[1].abs().max()) > 1e-2
    assert torch.allclose(packed[1], plain[1], rtol=1e-3, atol=2e-5 * float(plain[1].abs().max()))
    told = {name: value for name, value in plain[2].items() if "loss" in name or "/" in name}
    assert len(told) > 6
    assert {name: packed[2][name] for name in told} == pytest.approx(told, rel=1e-4, abs=1e-4)


def test_the_beginning_of_a_pair_is_read_once(tmp_path):
    packed = step_of(TRAINER.model_copy(update={"pack_pairs": True}), "llama", tmp_path)
    plain = step_of(TRAINER, "llama", tmp_path)
    rows = preference_rows(unit_lm("llama"), varied(), batch_size=8)
    whole = [[row["prompt_ids"] + row[f"{side}_ids"] for side in ("chosen", "rejected")] for row in rows]
    alike = [np.cumprod([a == b for a, b in zip(*sides, strict=False)]).sum() for sides in whole]
    assert [found[3][0] for found in (plain, packed)] == [
        (12, max(len(side) for sides in whole for side in sides)),
        (6, max(len(one) + len(two) - both for (one, two), both in zip(whole, alike, strict=True))),
    ]
    assert np.prod(packed[3][0]) < 0.7 * np.prod(plain[3][0])


def test_training_on_packed_rows_ends_where_training_on_plain_ones_does(tmp_path):
    found = []
    for packed in (False, True):
        config = TRAINER.model_copy(update={"pack_pairs": packed, "micro_batch_size": 2})
        lm = unit_lm("llama")
        model, run, best = train_preferences(
            config, lm, pairs(24), warmup_steps=0, seed=3, batch_size=8, work=tmp_path / f"{packed}"
        )
        weights = {name: weight.clone() for name, weight in model.state_dict().items() if "lora_B" in name}
        found.append((weights, run.steps, best.reward_margin))
    assert found[0][1] == found[1][1]
    assert found[1][2] == pytest.approx(found[0][2], rel=1e-3)
    assert all(torch.allclose(found[0][0][name], found[1][0][name], atol=1e-4) for name in found[0][0])


def mixture_of_experts():
    few = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "num_local_experts": 2}
    return MixtralForCausalLM(MixtralConfig(vocab_size=23, hidden_size=32, intermediate_size=48, **few))


@pytest.mark.parametrize("family", ["mistral", "mamba", "lfm2", "mixtral"])
def test_models_that_would_read_a_packed_row_otherwise_are_refused(tmp_path, family):
    made = {"mistral": lambda: tiny_model("mistral", vocab_size=23), "mixtral": mixture_of_experts}
    model = made[family]() if family in made else tiny_by_name(family, vocab_size=23)
    with pytest.raises(UnsupportedModelError) as raised:
        train_preferences(
            TRAINER.model_copy(update={"pack_pairs": True}),
            UnitLM(model, VOCABULARY, CONTRACT, family),
            pairs(),
            warmup_steps=0,
            seed=0,
            batch_size=8,
            work=tmp_path,
        )
    names(raised.value, "pack_pairs", type(model).__name__)
    for taken in ("llama", "opt", "qwen2"):
        require_packable(tiny_model(taken, vocab_size=23))


def test_a_model_that_takes_positions_and_ignores_them_is_refused():
    torch.manual_seed(0)
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "initializer_range": 0.3}
    model = FalconForCausalLM(FalconConfig(vocab_size=23, alibi=True, **size))
    with pytest.raises(UnsupportedModelError, match="does not go by the positions"):
        require_packable(model.eval())
    require_packable(FalconForCausalLM(FalconConfig(vocab_size=23, alibi=False, **size)).eval())


@pytest.mark.parametrize(
    "changed", [{"loss_weights": {"kto": 1.0}, "class_balance": 1.0}, {"loss_weights": {"sft": 1}}]
)
def test_losses_that_read_no_pairs_refuse_to_pack_them(changed):
    with pytest.raises(ValidationError) as raised:
        PreferenceTrainerConfig.model_validate(TRAINER.model_dump() | changed | {"pack_pairs": True})
    names(raised.value, "pack_pairs")
