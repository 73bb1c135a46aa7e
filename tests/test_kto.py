"""KTO on single continuations: its labels, its loss with the divergence it starts from, and what it refuses."""

import numpy as np
import polars as pl
import pytest
import torch
from pydantic import ValidationError
from transformers import Trainer
from trl import KTOTrainer

from alignslm.config.models import PreferenceTrainerConfig
from alignslm.pairs.labels import label_continuations, labeled_continuations, unpaired
from alignslm.training.adapter import save_adapter_and_merge
from alignslm.training.kto import (
    UnitKTOTrainer,
    class_weights,
    kto_arguments,
    kto_rows,
    mismatched,
    train_offline,
    validation_figures,
)
from alignslm.training.preference import TooFewPairsError, unit_tokenizer
from alignslm.training.trainer_setup import BatchError, write_log
from tests.messages import names
from tests.pair_selection import JUDGE_ALONE, QUANTILES, RULES, THRESHOLDS, selected, written
from tests.test_objectives import CONFIGS, SMALL
from tests.test_training import TRAINER, lora_config, naive_side, pairs, shake_adapter, steps_of
from tests.tiny_lm import CONTRACT, CPU, VOCABULARY, tiny_lm

KTO = CONFIGS["kto"].model_copy(update=SMALL | {"class_balance": 4 / 3, "beta": 0.5, "min_pairs": 4})
JUDGED = [
    {"prompt": "a", "score": 4.0},  # in a pair with the next
    {"prompt": "a", "score": 2.0},
    {"prompt": "a", "score": 2.5},
    {"prompt": "b", "score": 3.0},  # a prompt without a pair
    {"prompt": "b", "score": 4.5, "num_words": 1},
    {"prompt": "b", "score": 4.5, "units": []},
    {"prompt": "c", "score": 4.5, "auto_bleu": 0.2},  # vetoed, whatever its score
    {"prompt": "c", "score": None, "auto_bleu": None, "ppl": None, "num_words": 0, "status": "empty"},
    {"prompt": "c", "score": None, "auto_bleu": 0.0, "ppl": None, "status": "failed"},
    {"prompt": "d", "score": 1.0, "split": "valid"},
    {"prompt": "e", "score": 1.0, "split": "test"},
]
LABELS = [
    *("desirable", "undesirable", "neither"),
    *("desirable", "neither", "neither"),
    *("undesirable", "undesirable", "neither"),
    "undesirable",
]


def test_every_continuation_of_a_training_prompt_has_the_label_of_its_judgement(tmp_path):
    sources = written(tmp_path, JUDGED)
    found = label_continuations(sources, weights=JUDGE_ALONE, selector=THRESHOLDS, rules=RULES)
    assert found["label"].to_list() == LABELS
    assert found["split"].to_list() == ["train"] * 9 + ["valid"]
    rows = labeled_continuations(found, sources)
    assert rows["units"].to_list() == [[0], [1], [3], [6], [7], [9]]
    assert set(map(tuple, rows["prompt_units"].to_list())) == {(7,)}
    sides = selected(sources).pairs.select("chosen_id", "rejected_id").row(0)
    assert [found.filter(continuation_id=side)["label"].item() for side in sides] == ["desirable", "undesirable"]


def test_quantiles_label_by_the_rounds_own_thresholds(tmp_path):
    rows = [{"prompt": "a", "score": 1 + i / 10} for i in range(11)]  # 1.0 to 2.0: thresholds 1.3 and 1.7
    found = label_continuations(written(tmp_path, rows), weights=JUDGE_ALONE, selector=QUANTILES, rules=RULES)
    assert found["label"].to_list() == ["undesirable"] * 4 + ["neither"] * 3 + ["desirable"] * 4


def test_sides_of_pairs_are_labeled_once(tmp_path):
    frame = pairs(2)
    found = unpaired(pl.concat([frame, frame[:1]]))
    assert found["label"].to_list() == ["desirable"] * 2 + ["undesirable"] * 2
    assert found["units"].to_list() == [*frame["chosen_units"].to_list(), *frame["rejected_units"].to_list()]


@pytest.mark.parametrize(
    ("counts", "balance", "weights"),
    [
        ((10, 100), 1.0, (10, 1)),
        ((10, 100), 4 / 3, (40 / 3, 1)),
        ((100, 10), 1.0, (1, 10)),
        ((50, 50), 4 / 3, (4 / 3, 1)),
    ],
)
def test_classes_are_weighted_as_the_paper_advises(counts, balance, weights):
    """Equation 8; its example is one desirable to ten undesirable ones: between 10 and 13.3 to 1."""
    assert tuple(class_weights(*counts, balance).values()) == pytest.approx(weights)


def test_mismatched_continuations_are_those_of_the_batch_rotated_by_one():
    rows = pl.DataFrame({"units": [[i] for i in range(7)], "finish_reason": list("abcdefg")})
    assert mismatched(rows, 3)["units"].to_list() == [[2], [0], [1], [5], [3], [4], [5]]
    assert "".join(mismatched(rows, 3)["finish_reason"]) == "cabfdef"
    assert mismatched(rows[:2], 5)["units"].to_list() == [[1], [0]]


def rows_of(count=10, seed=4):
    """More desirable rows than undesirable ones, in an order of their own."""
    sides = unpaired(pairs(count, seed=seed).with_columns(split=pl.lit("train")))
    return sides[np.random.default_rng(0).permutation(len(sides))][:count]


def trainer_of(config, lm, rows, work):
    arguments = kto_arguments(config, rows["label"], warmup_steps=0, seed=0, work=work, device=CPU)
    trainer = UnitKTOTrainer(
        figures=validation_figures(lm, rows, pairs(9, seed=4), arguments, batch_size=8),
        model=lm.model,
        args=arguments,
        train_dataset=kto_rows(lm, rows, size=config.batch_size, batch_size=8),
        eval_dataset=[],
        processing_class=unit_tokenizer(lm.vocabulary, vocabulary_size=23),
        peft_config=lora_config(config.lora, lm.model.config),
    )
    return trainer, arguments


def rises(before, after, prompts, tails):
    """How much log p(tail | prompt) rose, one token at a time, in float64."""
    ids = [
        (VOCABULARY.encode(p, bos=True), VOCABULARY.encode(units, bos=False, eos=reason == "eos"))
        for p, (units, reason) in zip(prompts, tails, strict=True)
    ]
    return np.array([naive_side(after, *row) - naive_side(before, *row) for row in ids])


def by_hand(before, after, rows, config):
    """Equation 7 of the paper for the rows of one step, and its reference point."""
    prompts, tails = rows["prompt_units"].to_list(), list(rows.select("units", "finish_reason").iter_rows())
    own, others = rises(before, after, prompts, tails), rises(before, after, prompts, tails[-1:] + tails[:-1])
    point = max(0.0, others.mean())
    found = []
    for rise, label in zip(own, rows["label"], strict=True):
        distance = config.beta * (rise - point if label == "desirable" else point - rise)
        found.append(1 - 1 / (1 + np.exp(-distance)))
    return np.array(found), point


def kto_steps(trainer, batch, micro):
    """Loss, gradients and the reference point of every optimiser step."""
    return [(*step, float(trainer.divergence)) for step in steps_of(trainer, batch, micro)]


@pytest.mark.parametrize(("shaken", "above"), [(1, False), (3, True), (11, True)])
def test_the_loss_is_the_papers_whatever_the_micro_batch(tmp_path, shaken, above):
    """Ten rows are a step of six and one of four; micro-batches of six, four and two add up to the same."""
    rows, found = rows_of(), {}
    weights = class_weights((rows["label"] == "desirable").sum(), (rows["label"] == "undesirable").sum(), 4 / 3)
    each = np.where(rows["label"] == "desirable", weights["desirable_weight"], weights["undesirable_weight"])
    for micro in (6, 3, 2):
        lm = tiny_lm()
        trainer, _ = trainer_of(KTO.model_copy(update={"batch_size": 6, "micro_batch_size": micro}), lm, rows, tmp_path)
        shake_adapter(trainer.model, seed=shaken)
        after = type(lm)(trainer.model, VOCABULARY, CONTRACT, "policy")
        steps = [(0, 6), (6, 10)]
        expected = [by_hand(tiny_lm(), after, rows[start:end], KTO) for start, end in steps]
        found[micro] = kto_steps(trainer, 6, micro)
        for (loss, _, divergence), (losses, point), (start, end) in zip(found[micro], expected, steps, strict=True):
            assert divergence == pytest.approx(point, abs=1e-4)
            assert loss == pytest.approx((each[start:end] * losses).mean(), rel=1e-5)
    assert any(divergence > 0.5 for _, _, divergence in found[6]) == above
    for micro in (3, 2):
        for whole, parts in zip(found[6], found[micro], strict=True):
            assert torch.allclose(whole[1], parts[1], rtol=1e-3, atol=1e-6)
    assert float(found[6][0][1].abs().max()) > 1e-3


def test_a_whole_batch_is_what_trl_itself_computes(tmp_path):
    rows, config = rows_of(), KTO.model_copy(update={"batch_size": 10})
    trainer, _ = trainer_of(config, tiny_lm(), rows, tmp_path)
    shake_adapter(trainer.model, seed=11)
    ((loss, _, _),) = kto_steps(trainer, 10, 10)
    theirs = KTOTrainer.__new__(KTOTrainer)
    theirs.__dict__ = trainer.__dict__
    batch = trainer.data_collator(list(trainer.train_dataset))
    assert loss == pytest.approx(float(KTOTrainer.compute_loss(theirs, trainer.model, batch).detach()), rel=1e-5)


def test_validation_has_the_loss_of_all_rows_and_the_rewards_of_pairs(tmp_path):
    rows, lm, compared = rows_of(), tiny_lm(), pairs(9, seed=4)
    trainer, arguments = trainer_of(KTO, lm, rows, tmp_path)
    assert trainer.evaluate()["eval_rewards/margins"] == 0
    shake_adapter(trainer.model, seed=11)
    after = type(lm)(trainer.model, VOCABULARY, CONTRACT, "policy")
    losses, _ = by_hand(tiny_lm(), after, rows, KTO)
    each = np.where(rows["label"] == "desirable", arguments.desirable_weight, arguments.undesirable_weight)
    found = trainer.evaluate()
    assert found["eval_loss"] == pytest.approx((each * losses).mean(), rel=1e-4)
    sides = [
        rises(
            tiny_lm(), after, compared["prompt_units"], list(compared.select(f"{s}_units", f"{s}_finish_reason").rows())
        )
        for s in ("chosen", "rejected")
    ]
    assert found["eval_rewards/margins"] == pytest.approx(0.5 * (sides[0] - sides[1]).mean(), abs=1e-4)
    assert found["eval_rewards/accuracies"] == pytest.approx((sides[0] > sides[1]).mean())


def trained(work, **changed):
    config = KTO.model_copy(update={"max_steps": 12, "learning_rate": 0.01, "num_evals": 4, **changed})
    return train_offline(config, tiny_lm(), pairs(24), warmup_steps=0, seed=3, batch_size=8, work=work)


def bytes_of(outcome, folder):
    model, run, best = outcome
    save_adapter_and_merge(model, folder / "adapter")
    write_log(run, best, folder / "log.json")
    return [path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()]


def test_a_killed_run_ends_with_the_bytes_of_an_uninterrupted_one(tmp_path, monkeypatch):
    whole = trained(tmp_path / "whole")
    whole_step = Trainer.training_step

    def dies(trainer, *args, **kwargs):
        if trainer.state.global_step == 8:
            raise KeyboardInterrupt
        return whole_step(trainer, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "training_step", dies)
        with pytest.raises(KeyboardInterrupt):
            trained(tmp_path / "cut")
    assert [folder.name for folder in (tmp_path / "cut").glob("checkpoint-*")] == ["checkpoint-6"]
    resumed = trained(tmp_path / "cut")
    assert bytes_of(resumed, tmp_path / "b") == bytes_of(whole, tmp_path / "a")
    assert whole[2].reward_margin > 0
    assert whole[2].step > 0
    assert {"kl", "loss"} <= whole[1].log[0].figures.keys()


def test_desirable_rows_become_likelier_than_undesirable_ones(tmp_path):
    _, run, best = trained(tmp_path, max_steps=40)
    assert best.reward_accuracy >= 5 / 6
    assert run.change.end == best.reward_margin > 0.5


@pytest.mark.parametrize("label", ["desirable", "undesirable"])
def test_rows_of_one_class_are_refused(tmp_path, label):
    frame = pairs(24)
    rows = unpaired(frame).filter((pl.col("label") == label) | (pl.col("split") == "valid"))
    with pytest.raises(TooFewPairsError) as raised:
        train_offline(KTO, tiny_lm(), frame, labeled=rows, warmup_steps=0, seed=3, batch_size=8, work=tmp_path)
    count = (rows["split"] == "train").sum()
    names(raised.value, "0", count, label, "min_chosen_score", "max_rejected_score", "min_pairs")


def test_a_batch_of_one_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(BatchError) as raised:
        kto_arguments(KTO, rows_of()["label"], warmup_steps=0, seed=0, work=tmp_path, device=CPU)
    names(raised.value, "batch_size", "4", "processes")


@pytest.mark.parametrize(
    ("changed", "key"),
    [
        ({"batch_size": 1}, "batch_size"),
        ({"micro_batch_size": 1}, "micro_batch_size"),
        ({"class_balance": None}, "class_balance"),
        ({"loss_weights": {"kto": 1.0, "sft": 1.0}}, "loss_weights"),
        ({"reference_free": True}, "reference_free"),
        ({"margin_weights": True}, "margin_weights"),
        ({"label_smoothing": 0.1}, "label_smoothing"),
    ],
)
def test_settings_that_kto_cannot_keep_are_refused(changed, key):
    with pytest.raises(ValidationError) as raised:
        PreferenceTrainerConfig.model_validate(KTO.model_dump() | changed)
    names(raised.value, key)


def test_class_balance_without_kto_is_refused():
    with pytest.raises(ValidationError) as raised:
        PreferenceTrainerConfig.model_validate(TRAINER.model_dump() | {"class_balance": 1.0})
    names(raised.value, "class_balance", "kto")
