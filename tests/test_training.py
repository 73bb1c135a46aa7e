import json
import math

import numpy as np
import polars as pl
import pytest
import torch
from transformers import Trainer
from trl import DPOTrainer

from alignslm.config.models import LlamaScratchConfig, Lora, NextUnitTrainerConfig, PreferenceTrainerConfig
from alignslm.lm.checkpoint import load_lm, save_lm
from alignslm.training import preference
from alignslm.training.adapter import lora_config, save_adapter_and_merge
from alignslm.training.next_unit import NextUnitCollator, continue_training, new_model, scratch_vocabulary, train_whole
from alignslm.training.preference import (
    TooFewPairsError,
    UnitPreferenceTrainer,
    is_better,
    preference_arguments,
    preference_rows,
    reference_log_probs,
    train_preferences,
    unit_tokenizer,
)
from alignslm.training.trainer_setup import BatchError, BestCheckpoint, batch_arguments
from tests.messages import names
from tests.tiny_lm import CONTRACT, VOCABULARY, naive_log_probs, tiny_lm

LORA = Lora(r=4, alpha=8, target_modules="all-linear")
TRAINER = PreferenceTrainerConfig(
    kind="preference",
    loss_weights={"sigmoid": 1.0},
    beta=0.5,
    lora=LORA,
    learning_rate=0.01,
    lr_scheduler_type="linear",
    num_train_epochs=3,
    max_steps=None,
    batch_size=4,
    micro_batch_size=None,
    weight_decay=0.0,
    max_grad_norm=1.0,
    num_evals=3,
    min_pairs=4,
    autocast="float32",
)

NEXT_UNIT = NextUnitTrainerConfig(
    kind="next-unit",
    lora=LORA,
    learning_rate=0.01,
    lr_scheduler_type="linear",
    max_steps=20,
    batch_size=8,
    micro_batch_size=None,
    weight_decay=0.0,
    warmup_steps=2,
    autocast="float32",
)


def pairs(count=12, seed=0):
    """Chosen continuations count up, rejected ones are random; every third is cut at the limit."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        start = int(rng.integers(0, 10))
        rows.append(
            {
                "split": "valid" if number % 4 == 3 else "train",
                "prompt_units": [start, start + 1, start + 2],
                "chosen_units": [start + 3, start + 4, start + 5],
                "rejected_units": rng.integers(0, 20, int(rng.integers(2, 6))).tolist(),
                "chosen_finish_reason": "length" if number % 3 == 0 else "eos",
                "rejected_finish_reason": "eos",
            }
        )
    return pl.DataFrame(rows)


def trainer_for(lm, frame, config, tmp_path):
    rows = preference_rows(lm, frame, batch_size=8)
    return UnitPreferenceTrainer(
        model=lm.model,
        args=preference_arguments(config, num_pairs=len(frame), warmup_steps=0, seed=0, work=tmp_path),
        train_dataset=rows,
        eval_dataset=rows,
        processing_class=unit_tokenizer(lm.vocabulary, vocabulary_size=lm.model.config.vocab_size),
        peft_config=lora_config(config.lora),
    )


def shake_adapter(model, seed=1):
    torch.manual_seed(seed)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.2)


def sides(row):
    prompt = VOCABULARY.encode(row["prompt_units"], bos=True)
    for side in ("chosen", "rejected"):
        tail = VOCABULARY.encode(row[f"{side}_units"], bos=False, eos=row[f"{side}_finish_reason"] == "eos")
        yield prompt, tail


def naive_side(lm, prompt, tail):
    return sum(naive_log_probs(lm, prompt + tail)[len(prompt) - 1 :])


def test_reference_log_probs_and_dpo_loss_equal_a_hand_computation(tmp_path):
    """Equation 7 of DPO (arXiv 2305.18290) on a two-layer model, one token at a time, in float64."""
    frame = pairs(8)
    reference = [[naive_side(tiny_lm(), *side) for side in sides(row)] for row in frame.iter_rows(named=True)]
    lm = tiny_lm()
    trainer = trainer_for(lm, frame, TRAINER, tmp_path)
    columns = trainer.train_dataset.select_columns(["ref_chosen_logps", "ref_rejected_logps"])
    np.testing.assert_allclose(
        [[r["ref_chosen_logps"], r["ref_rejected_logps"]] for r in columns], reference, atol=1e-4
    )

    shake_adapter(trainer.model)
    policy = type(lm)(trainer.model, VOCABULARY, CONTRACT, "policy")
    margins = []
    for row, (ref_chosen, ref_rejected) in zip(frame.iter_rows(named=True), reference, strict=True):
        chosen, rejected = (naive_side(policy, *side) for side in sides(row))
        margins.append((chosen - ref_chosen) - (rejected - ref_rejected))
    expected = np.mean([math.log1p(math.exp(-TRAINER.beta * margin)) for margin in margins])
    metrics = trainer.evaluate()
    assert metrics["eval_loss"] == pytest.approx(expected, abs=1e-4)
    assert metrics["eval_rewards/margins"] == pytest.approx(TRAINER.beta * np.mean(margins), abs=1e-4)
    assert metrics["eval_rewards/accuracies"] == pytest.approx(np.mean(np.array(margins) > 0), abs=1e-6)


def test_the_loss_mixture_adds_the_mean_likelihood_of_the_chosen(tmp_path):
    frame = pairs(8)
    config = TRAINER.model_copy(update={"loss_weights": {"sft": 10.0}, "batch_size": 8})
    lm = tiny_lm()
    nats = [naive_side(lm, *next(iter(sides(row)))) for row in frame.iter_rows(named=True)]
    sizes = [len(next(iter(sides(row)))[1]) for row in frame.iter_rows(named=True)]
    metrics = trainer_for(lm, frame, config, tmp_path).evaluate()
    token_mean, pair_mean = -10 * sum(nats) / sum(sizes), -10 * np.mean(np.array(nats) / np.array(sizes))
    assert min(abs(metrics["eval_loss"] - token_mean), abs(metrics["eval_loss"] - pair_mean)) < 1e-3


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None])


@pytest.mark.parametrize(("losses", "halves"), [({"sft": 10.0}, 1), ({"sigmoid": 1.0, "sft": 10.0}, 2)])
def test_rejected_sides_are_computed_only_where_a_loss_reads_them(tmp_path, monkeypatch, losses, halves):
    """Loss and gradients of a training step are those of TRL's own, which always computes both sides."""
    config = TRAINER.model_copy(update={"loss_weights": losses, "batch_size": 8})
    trainer = trainer_for(tiny_lm(), pairs(8), config, tmp_path)
    shake_adapter(trainer.model)
    trainer.model.train()
    batch = next(iter(trainer.get_train_dataloader()))
    theirs = DPOTrainer.compute_loss(trainer, trainer.model, batch)
    expected = gradients(trainer.model, theirs)
    seen = []
    hook = trainer.model.register_forward_pre_hook(lambda _, __, given: seen.append(given), with_kwargs=True)
    ours = trainer.compute_loss(trainer.model, batch)
    hook.remove()
    assert [len(given["input_ids"]) for given in seen] == [8 * halves]
    assert float(ours.detach()) == pytest.approx(float(theirs.detach()), rel=1e-5)
    assert torch.allclose(gradients(trainer.model, ours), expected, rtol=1e-4, atol=1e-6)
    assert float(expected.abs().max()) > 1e-3


def test_references_are_computed_only_where_they_are_read(tmp_path, monkeypatch):
    """Validation pairs need them for rewards; training pairs only where a loss compares with the reference."""
    asked: list[int] = []

    def counted(lm, frame, side, *, batch_size):
        asked.append(len(frame))
        return reference_log_probs(lm, frame, side, batch_size=batch_size)

    monkeypatch.setattr(preference, "reference_log_probs", counted)
    frame = pairs(16)
    for losses, expected in (({"sft": 1.0}, [4, 4]), ({"sigmoid": 1.0}, [12, 12, 4, 4])):
        config = TRAINER.model_copy(update={"loss_weights": losses})
        _, run, best = train_preferences(
            config, tiny_lm(), frame, warmup_steps=0, seed=0, batch_size=8, work=tmp_path / next(iter(losses))
        )
        assert asked == expected
        assert run.steps == 9
        assert 0 <= best.reward_accuracy <= 1
        asked.clear()


def test_no_end_of_sequence_is_invented_for_a_cut_continuation():
    frame = pairs(2).with_columns(chosen_finish_reason=pl.Series(["length", "eos"]))
    rows = preference_rows(tiny_lm(), frame, batch_size=4)
    assert [ids[-1] == VOCABULARY.eos_id for ids in rows["chosen_ids"]] == [False, True]


def test_training_prefers_the_chosen_keeps_the_best_and_repeats_exactly(tmp_path):
    frame = pairs(24)
    outcomes = []
    for attempt in ("one", "two"):
        lm = tiny_lm()
        before = {name: weight.clone() for name, weight in lm.model.state_dict().items()}
        model, run, best = train_preferences(
            TRAINER, lm, frame, warmup_steps=0, seed=3, batch_size=8, work=tmp_path / attempt
        )
        merged = save_adapter_and_merge(model, tmp_path / attempt / "adapter")
        outcomes.append({name: weight.clone() for name, weight in merged.state_dict().items()})
    assert all(torch.equal(outcomes[0][name], outcomes[1][name]) for name in outcomes[0])
    assert any(not torch.equal(outcomes[0][name], before[name]) for name in before)
    evaluated = [
        (row.figures["eval_rewards/accuracies"], row.figures["eval_rewards/margins"], row.step)
        for row in run.log
        if "eval_rewards/accuracies" in row.figures
    ]
    kept = BestCheckpoint(-1, -math.inf, -math.inf)
    for accuracy, margin, step in evaluated:
        now = BestCheckpoint(step, accuracy, margin)
        kept = now if is_better(now, kept, num_pairs=frame.filter(pl.col("split") == "valid").height) else kept
    assert len(evaluated) >= TRAINER.num_evals
    assert best == kept
    assert best.reward_margin > 0


@pytest.mark.parametrize(
    ("accuracy", "margin", "better"),
    [
        (0.83, 0.1, True),  # one standard error of .8 over 400 pairs is .02: more than that decides alone
        (0.77, 9.0, False),
        (0.81, 0.1, False),
        (0.81, 0.6, True),
        (0.79, 0.6, True),  # within the noise the margin decides
        (0.79, 0.4, False),
        (0.80, 0.5, False),  # equal in both: the first stays
    ],
)
def test_accuracies_within_their_noise_are_told_apart_by_margin(accuracy, margin, better):
    assert is_better(BestCheckpoint(9, accuracy, margin), BestCheckpoint(3, 0.8, 0.5), num_pairs=400) == better


def test_micro_batches_add_up_to_the_batch(tmp_path, monkeypatch):
    frame = pairs(24)
    losses = []
    for micro in (None, 1, 2):
        config = TRAINER.model_copy(update={"micro_batch_size": micro, "max_steps": 1, "num_evals": 1})
        model, _, _ = train_preferences(
            config, tiny_lm(), frame, warmup_steps=0, seed=3, batch_size=8, work=tmp_path / f"{micro}"
        )
        losses.append({n: w.clone() for n, w in model.state_dict().items() if "lora_B" in n})
    for other in losses[1:]:
        assert all(torch.allclose(losses[0][name], other[name], atol=1e-4) for name in other)
    assert batch_arguments(512, 8) == {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 64}
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert batch_arguments(512, 8) == {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 16}
    with pytest.raises(BatchError) as raised:
        batch_arguments(512, 48)
    names(raised.value, "batch_size", "512", "4", "48")


def test_an_adapter_lists_its_modules_in_one_order(tmp_path):
    """PEFT keeps them in a set, and the order of a set of texts differs from process to process."""
    trainer = trainer_for(tiny_lm(), pairs(), TRAINER, tmp_path)
    save_adapter_and_merge(trainer.model, tmp_path / "adapter")
    modules = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["target_modules"]
    assert len(modules) > 5
    assert modules == sorted(modules)


def test_merged_model_equals_the_adapted_one(tmp_path):
    lm = tiny_lm()
    model, _, _ = train_preferences(TRAINER, lm, pairs(24), warmup_steps=0, seed=3, batch_size=8, work=tmp_path / "w")
    ids = torch.tensor([[1, 4, 5, 6, 7]])
    with torch.no_grad():
        adapted = model(ids).logits
    merged = save_adapter_and_merge(model, tmp_path / "m" / "adapter")
    save_lm(merged, VOCABULARY, CONTRACT, tmp_path / "m")
    loaded = load_lm(tmp_path / "m", device="cpu")
    with torch.no_grad():
        np.testing.assert_allclose(loaded.model(ids).logits, adapted, atol=1e-4)


def test_too_few_pairs_say_which_keys_to_change(tmp_path):
    with pytest.raises(TooFewPairsError) as error:
        train_preferences(TRAINER, tiny_lm(), pairs(3), warmup_steps=0, seed=0, batch_size=8, work=tmp_path)
    names(error.value, "3", "0", "4", "1")
    assert "preferences.*.min_chosen_score, max_rejected_score, min_margin" in str(error.value)


SCRATCH = LlamaScratchConfig(
    kind="llama-scratch",
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    max_position_embeddings=64,
    max_steps=30,
    batch_size=8,
    learning_rate=0.01,
    warmup_steps=2,
    weight_decay=0.0,
    autocast="float32",
)
COUNTING = [[(start + i) % 20 for i in range(8)] for start in range(20)]


def train_base(config, utterances, vocabulary, *, seed, work):
    model = new_model(config, vocabulary, seed=seed)
    return model, train_whole(config, model, utterances, vocabulary, seed=seed, work=work)


def test_the_base_model_learns_what_it_is_shown(tmp_path):
    vocabulary = scratch_vocabulary(20)
    whole, run = train_base(SCRATCH, COUNTING, vocabulary, seed=0, work=tmp_path / "whole")
    ids = torch.tensor([vocabulary.encode([3, 4, 5], bos=True)])
    assert whole(ids).logits[0, -1].argmax().item() - vocabulary.offset == 6
    assert run.steps == 30


def test_a_run_killed_between_checkpoints_ends_in_equal_weights(tmp_path, monkeypatch):
    vocabulary = scratch_vocabulary(20)
    whole, _ = train_base(SCRATCH, COUNTING, vocabulary, seed=0, work=tmp_path / "whole")
    cut_training(monkeypatch, tmp_path / "cut", step=21)
    assert [folder.name for folder in (tmp_path / "cut").glob("checkpoint-*")] == ["checkpoint-18"]
    resumed, _ = train_base(SCRATCH, COUNTING, vocabulary, seed=0, work=tmp_path / "cut")
    assert all(torch.equal(resumed.state_dict()[name], weight) for name, weight in whole.state_dict().items())


def cut_training(monkeypatch, work, *, step):
    """Train the counting model until it dies at a step."""
    whole_step = Trainer.training_step

    def dies(trainer, *args, **kwargs):
        if trainer.state.global_step == step:
            raise KeyboardInterrupt
        return whole_step(trainer, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "training_step", dies)
        with pytest.raises(KeyboardInterrupt):
            train_base(SCRATCH, COUNTING, scratch_vocabulary(20), seed=0, work=work)


def _truncate(checkpoint):
    weights = checkpoint / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-9])


def _flip(checkpoint):
    optimiser = checkpoint / "optimizer.pt"
    data = bytearray(optimiser.read_bytes())
    data[len(data) // 2] ^= 1
    optimiser.write_bytes(data)


def _leave_unfinished(checkpoint):
    (checkpoint / "trainer_state.json").unlink()
    checkpoint.with_name(f"sealed-{checkpoint.name}.sha256").unlink()


@pytest.mark.parametrize("damage", [_truncate, _flip, _leave_unfinished])
def test_a_damaged_checkpoint_is_told_and_not_gone_on_from(tmp_path, monkeypatch, capsys, damage):
    vocabulary, work = scratch_vocabulary(20), tmp_path / "cut"
    whole, _ = train_base(SCRATCH, COUNTING, vocabulary, seed=0, work=tmp_path / "whole")
    cut_training(monkeypatch, work, step=21)
    damage(work / "checkpoint-18")
    capsys.readouterr()
    resumed, run = train_base(SCRATCH, COUNTING, vocabulary, seed=0, work=work)
    told = capsys.readouterr().out
    names(told, work / "checkpoint-18")
    assert "of an interrupted run" not in told
    assert run.steps == 30
    assert all(torch.equal(resumed.state_dict()[name], weight) for name, weight in whole.state_dict().items())


def test_a_checkpoint_whole_but_for_its_seal_is_gone_on_from(tmp_path, monkeypatch, capsys):
    work = tmp_path / "cut"
    cut_training(monkeypatch, work, step=21)
    (work / "sealed-checkpoint-18.sha256").unlink()
    train_base(SCRATCH, COUNTING, scratch_vocabulary(20), seed=0, work=work)
    names(capsys.readouterr().out, "18")


def test_preference_training_that_must_start_anew_keeps_no_best_of_the_run_before(tmp_path):
    """The record of a run whose checkpoints are gone speaks of weights that nobody has."""
    clean = train_preferences(TRAINER, tiny_lm(), pairs(24), warmup_steps=0, seed=3, batch_size=8, work=tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "best.json").write_text('{"step": 3, "reward_accuracy": 1.0, "reward_margin": 99.0}')
    anew = train_preferences(TRAINER, tiny_lm(), pairs(24), warmup_steps=0, seed=3, batch_size=8, work=tmp_path / "b")
    assert anew[2] == clean[2]


def test_continued_training_starts_from_the_given_model(tmp_path):
    lm = tiny_lm()
    before = np.mean([np.sum(naive_log_probs(lm, VOCABULARY.encode(u, bos=True))) for u in COUNTING])
    model, _ = continue_training(NEXT_UNIT, lm, COUNTING, seed=0, work=tmp_path / "work")
    after_lm = type(lm)(save_adapter_and_merge(model, tmp_path / "adapter"), VOCABULARY, CONTRACT, "after")
    after = np.mean([np.sum(naive_log_probs(after_lm, VOCABULARY.encode(u, bos=True))) for u in COUNTING])
    assert after > before + 5


def test_padding_is_neither_read_nor_scored():
    batch = NextUnitCollator(0)([{"ids": [1, 5, 6]}, {"ids": [1]}])
    assert batch["input_ids"].tolist() == [[1, 5, 6], [1, 0, 0]]
    assert batch["labels"].tolist() == [[1, 5, 6], [1, -100, -100]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]


def test_the_tokenizer_names_units():
    tokenizer = unit_tokenizer(VOCABULARY, vocabulary_size=23)
    assert tokenizer.convert_tokens_to_ids(["<u0>", "<u19>"]) == [3, 22]
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (0, 2)
