import json
import math
from typing import get_args

import numpy as np
import polars as pl
import pytest
import torch
from peft import get_peft_model
from peft.tuners.lora import LoraLayer
from pydantic import ValidationError
from transformers import Trainer
from trl import DPOTrainer

from alignslm.config.models import LlamaScratchConfig, Lora, LossName, NextUnitTrainerConfig, PreferenceTrainerConfig
from alignslm.convnet import DivergedError
from alignslm.lm.checkpoint import CheckpointError, UnitLM, load_lm, save_lm
from alignslm.report.inputs import TrainingLog
from alignslm.training import pair_rows
from alignslm.training.adapter import AdapterError, lora_config, save_adapter_and_merge
from alignslm.training.next_unit import NextUnitCollator, continue_training, new_model, scratch_vocabulary, train_whole
from alignslm.training.pair_rows import preference_rows, reference_log_probs
from alignslm.training.preference import (
    TooFewPairsError,
    UnitPreferenceTrainer,
    is_better,
    preference_arguments,
    train_preferences,
    unit_tokenizer,
)
from alignslm.training.trainer_setup import BatchError, BestCheckpoint, batch_arguments, write_log
from tests.messages import names
from tests.tiny_lm import CONTRACT, CPU, VOCABULARY, naive_log_probs, tiny_lm, tiny_model
from tests.tiny_states import STATES, tiny_by_name

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


def trainer_for(lm, frame, config, tmp_path, *, multiple_of=None):
    rows = preference_rows(lm, frame, batch_size=8, margin_weights=config.margin_weights)
    arguments = preference_arguments(config, num_pairs=len(frame), warmup_steps=0, seed=0, work=tmp_path, device=CPU)
    arguments.pad_to_multiple_of = multiple_of
    return UnitPreferenceTrainer(
        config=config,
        model=lm.model,
        args=arguments,
        train_dataset=rows,
        eval_dataset=rows,
        processing_class=unit_tokenizer(lm.vocabulary, vocabulary_size=lm.model.config.vocab_size),
        peft_config=lora_config(config.lora, lm.model.config),
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


def by_hand(name, policy, reference, sizes, beta, smoothing=0.2):
    """Each loss as its paper writes it: log-probabilities (pairs, 2), chosen first; lengths (pairs, 2), in float64."""
    ratios = policy - reference
    means = ratios / sizes
    delta = ratios[:, 0] - ratios[:, 1]
    sigmoid = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
    match name:
        case "sigmoid":  # DPO, arXiv 2305.18290, eq. 7
            found = -np.log(sigmoid(beta * delta))
        case "hinge":  # SLiC, arXiv 2305.10425, with the reference of DPO
            found = np.maximum(0, 1 - beta * delta)
        case "ipo":  # arXiv 2310.12036, eq. 17, of means
            found = (means[:, 0] - means[:, 1] - 1 / (2 * beta)) ** 2
        case "robust":  # arXiv 2403.00409, eq. 12
            right, swapped = -np.log(sigmoid(beta * delta)), -np.log(sigmoid(-beta * delta))
            found = ((1 - smoothing) * right - smoothing * swapped) / (1 - 2 * smoothing)
        case "apo_zero":  # arXiv 2408.06266, eq. 7
            found = 1 - sigmoid(beta * ratios[:, 0]) + sigmoid(beta * ratios[:, 1])
        case "apo_down":  # eq. 8
            found = sigmoid(beta * ratios[:, 0]) + 1 - sigmoid(beta * delta)
        case "sigmoid_norm":
            found = -np.log(sigmoid(beta * (means[:, 0] - means[:, 1])))
        case "sft":  # one loss per unit of the chosen sides
            return -policy[:, 0].sum() / sizes[:, 0].sum()
    return found.mean()


def nine(tmp_path, config=TRAINER):
    """A shaken adapter on nine pairs, in batches of 4, 4 and 1; log-probabilities by hand, and lengths."""
    frame, lm = pairs(9, seed=4), tiny_lm()
    reference = np.array([[naive_side(lm, *side) for side in sides(row)] for row in frame.iter_rows(named=True)])
    sizes = np.array([[len(tail) for _, tail in sides(row)] for row in frame.iter_rows(named=True)])
    trainer = trainer_for(lm, frame, config, tmp_path)
    shake_adapter(trainer.model)
    policy_lm = type(lm)(trainer.model, VOCABULARY, CONTRACT, "policy")
    policy = np.array([[naive_side(policy_lm, *side) for side in sides(row)] for row in frame.iter_rows(named=True)])
    return trainer, policy, reference, sizes


@pytest.mark.parametrize("name", sorted({*get_args(LossName)} - {"kto"}))  # which reads no pairs: tests/test_kto.py
def test_every_loss_is_its_own_definition_over_pairs_not_batches(tmp_path, name):
    config = PreferenceTrainerConfig.model_validate(
        {**TRAINER.model_dump(), "loss_weights": {name: 1.0}, "label_smoothing": 0.2 if name == "robust" else None}
    )
    trainer, policy, reference, sizes = nine(tmp_path, config)
    expected = by_hand(name, policy, reference, sizes, TRAINER.beta)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(expected, abs=1e-5)
    if name == "robust":
        assert abs(expected - by_hand("sigmoid", policy, reference, sizes, TRAINER.beta)) > 0.01


def test_validation_figures_are_averages_over_pairs(tmp_path):
    """Averaged over batches of 4, 4 and 1, the last pair would weigh as much as four."""
    trainer, policy, reference, _ = nine(tmp_path)
    rewards = TRAINER.beta * (policy - reference)
    margins = rewards[:, 0] - rewards[:, 1]
    found = trainer.evaluate()
    assert found["eval_rewards/accuracies"] == pytest.approx((margins > 0).mean(), abs=1e-9)
    assert found["eval_rewards/margins"] == pytest.approx(margins.mean(), abs=1e-5)
    assert found["eval_logps/rejected"] == pytest.approx(policy[:, 1].mean(), abs=1e-4)
    batches = [margins[:4].mean(), margins[4:8].mean(), margins[8:].mean()]
    assert abs(np.mean(batches) - margins.mean()) > 0.01


def test_robust_and_its_smoothing_belong_together():
    for losses, smoothing in (({"robust": 1.0}, None), ({"sigmoid": 1.0}, 0.1), ({"robust": 1.0}, 0.5)):
        with pytest.raises(ValidationError) as raised:
            PreferenceTrainerConfig.model_validate(
                {**TRAINER.model_dump(), "loss_weights": losses, "label_smoothing": smoothing}
            )
        names(raised.value, "label_smoothing")


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

    monkeypatch.setattr(pair_rows, "reference_log_probs", counted)
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


@pytest.mark.parametrize("losses", [{"sigmoid": 1.0}, {"sft": 1.0}, {"sigmoid": 1.0, "sft": 2.0}])
def test_micro_batches_of_any_size_add_up_to_one_loss_per_pair_or_unit(tmp_path, losses):
    """Seven pairs in micro-batches of 3, 3 and 1: the gradient of the step is that of the seven at once."""
    found = []
    for micro in (8, 3):
        config = TRAINER.model_copy(update={"loss_weights": losses, "batch_size": 24, "micro_batch_size": micro})
        trainer = trainer_for(tiny_lm(), pairs(7), config, tmp_path / str(micro))
        shake_adapter(trainer.model)
        trainer.create_optimizer_and_scheduler(num_training_steps=1)
        trainer.current_gradient_accumulation_steps = 1
        rows = [trainer.train_dataset[row] for row in range(7)]
        batches = [trainer.data_collator(rows[start : start + micro]) for start in range(0, 7, micro)]
        whole = trainer._get_num_items_in_batch(batches, torch.device("cpu"))
        trainer.current_gradient_accumulation_steps = len(batches)
        trainer.model.zero_grad()
        loss = sum(trainer.training_step(trainer.model, batch, whole) for batch in batches)
        weights = [w.grad.flatten() for w in trainer.model.parameters() if w.grad is not None]
        found.append((float(loss), torch.cat(weights)))
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-5)
    assert torch.allclose(found[0][1], found[1][1], rtol=1e-3, atol=1e-5)


def test_next_unit_micro_batches_add_up_to_one_loss_per_unit(tmp_path):
    rows = [[1] * 3, [2, 3] * 9, [4], [5, 6, 7] * 5]
    found = []
    for micro in (None, 1):
        config = NEXT_UNIT.model_copy(
            update={"batch_size": 4, "micro_batch_size": micro, "max_steps": 1, "warmup_steps": 0}
        )
        _, run = continue_training(config, tiny_lm(), rows, seed=0, work=tmp_path / str(micro))
        found.append(next(row.figures["loss"] for row in run.log if "loss" in row.figures))
    ids = [VOCABULARY.encode(units, bos=True, eos=True) for units in rows]
    nats = [naive_log_probs(tiny_lm(), one) for one in ids]
    assert found == pytest.approx([-sum(map(sum, nats)) / sum(map(len, nats))] * 2, abs=1e-4)
    assert run.change.start == pytest.approx(found[0], abs=1e-4)


@pytest.mark.parametrize("alpha", [0.5, 1.9, 8.0])
def test_alpha_is_not_cut_to_an_integer(alpha):
    lora = Lora(r=4, alpha=alpha, target_modules="all-linear")
    model = get_peft_model(tiny_lm().model, lora_config(lora, tiny_lm().model.config))
    assert {part.scaling["default"] for part in model.modules() if isinstance(part, LoraLayer)} == {alpha / 4}


@pytest.mark.parametrize(
    ("family", "targets", "said"),
    [
        ("llama", ("q_proj", "v_proj", "fc1", "fc2"), ("llama", "fc1", "fc2", "gate_proj", "o_proj")),
        ("llama", ("c_attn",), ("c_attn",)),
        ("qwen2", ("q_proj", "embed_tokens"), ("embed_tokens", "tie_word_embeddings")),
        ("qwen2", ("lm_head",), ("lm_head", "tie_word_embeddings")),
        ("llama", ("input_layernorm",), ("PEFT", "llama")),
        ("llama", ("q_proj", "v_proj"), None),
        ("llama", ("lm_head", "embed_tokens"), None),
        ("llama", ("model.layers.0.mlp.up_proj",), None),
        ("opt", "all-linear", None),
        ("mamba", ("in_proj", "dt_proj"), ("mamba", "dt_proj", "x_proj")),
        *((family, "all-linear", None) for family in STATES),
    ],
)
def test_target_modules_are_those_of_the_model_or_refused(family, targets, said):
    make = tiny_by_name if family in STATES else tiny_model
    model, lora = make(family, vocab_size=23), Lora(r=4, alpha=8, target_modules=targets)
    if said is not None:
        with pytest.raises(AdapterError) as raised:
            lora_config(lora, model.config)
        names(raised.value, "lora.target_modules", *said)
        return
    adapted, ids = get_peft_model(model, lora_config(lora, model.config)), torch.tensor([[4, 5, 6, 7]])
    shake_adapter(adapted)
    with torch.no_grad():
        before = adapted.eval()(ids).logits
        assert (adapted.merge_and_unload()(ids).logits - before).abs().max() < 1e-4


def test_a_bfloat16_model_is_merged_in_float32_and_keeps_small_updates(tmp_path):
    """In bfloat16 three quarters of an update of 1e-3 would be rounded away."""
    lm = tiny_lm()
    save_lm(lm.model.to(torch.bfloat16), VOCABULARY, CONTRACT, tmp_path / "base")
    base = load_lm(tmp_path / "base", device="cpu").model
    before = {name: weight.double() for name, weight in base.state_dict().items()}
    model = get_peft_model(base, lora_config(LORA, base.config))
    torch.manual_seed(0)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=1e-3)
    weights = {name: weight.detach().double() for name, weight in model.state_dict().items()}
    merged = save_adapter_and_merge(model, tmp_path / "r1" / "adapter")
    save_lm(merged, VOCABULARY, CONTRACT, tmp_path / "r1")
    after = load_lm(tmp_path / "r1", device="cpu").model.state_dict()
    for name, weight in before.items():
        key = f"base_model.model.{name.removesuffix('.weight')}"
        if f"{key}.lora_A.default.weight" in weights:
            change = (
                weights[f"{key}.lora_B.default.weight"] @ weights[f"{key}.lora_A.default.weight"] * LORA.alpha / LORA.r
            )
            torch.testing.assert_close(after[name].double() - weight, change, rtol=0.01, atol=1e-6)
            assert after[name].dtype == torch.float32


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


def test_a_killed_run_ends_with_the_log_of_an_uninterrupted_one(tmp_path, monkeypatch):
    """Logged every 10 steps, saved every 6: what was summed up between a log and a checkpoint is not lost."""
    vocabulary = scratch_vocabulary(20)
    whole = train_base(SCRATCH, COUNTING, vocabulary, seed=0, work=tmp_path / "whole")[1]
    cut_training(monkeypatch, tmp_path / "cut", step=21)
    resumed = train_base(SCRATCH, COUNTING, vocabulary, seed=0, work=tmp_path / "cut")[1]
    for name, run in (("whole", whole), ("resumed", resumed)):
        write_log(run, None, tmp_path / f"{name}.json")
    assert [row.step for row in whole.log] == [6, 10, 12, 18, 20, 24, 30, 30]
    assert (tmp_path / "whole.json").read_bytes() == (tmp_path / "resumed.json").read_bytes()


def train_on_pairs(config, work):
    train_preferences(config, tiny_lm(), pairs(24), warmup_steps=0, seed=3, batch_size=8, work=work)


def train_on_units(config, work):
    continue_training(config, tiny_lm(), COUNTING, seed=0, work=work)


@pytest.mark.parametrize(("config", "train"), [(TRAINER, train_on_pairs), (NEXT_UNIT, train_on_units)])
def test_a_diverging_training_stops_and_leaves_no_checkpoint_to_resume(tmp_path, config, train):
    with pytest.raises(DivergedError) as raised:
        train(config.model_copy(update={"learning_rate": 1e30}), tmp_path)
    names(raised.value, "learning_rate", "step")
    assert list(tmp_path.glob("checkpoint-*")) == []


def test_weights_that_are_no_numbers_are_not_written(tmp_path):
    lm = tiny_lm()
    lm.model.model.layers[1].mlp.up_proj.weight.data[0, 0] = math.nan
    with pytest.raises(CheckpointError) as raised:
        save_lm(lm.model, VOCABULARY, CONTRACT, tmp_path / "r1")
    names(raised.value, tmp_path / "r1", "model.layers.1.mlp.up_proj.weight", "learning_rate")
    assert not (tmp_path / "r1").exists()


def test_a_checkpoint_worse_than_its_start_is_said_loudly(tmp_path, capsys):
    """Chosen and rejected of the validation pairs are swapped, so that what training learns is wrong there."""
    valid = pl.col("split") == "valid"
    frame = pairs(24).with_columns(
        pl.when(valid).then(f"{there}_{part}").otherwise(f"{here}_{part}").alias(f"{here}_{part}")
        for here, there in (("chosen", "rejected"), ("rejected", "chosen"))
        for part in ("units", "finish_reason")
    )
    _, run, best = train_preferences(
        TRAINER, tiny_lm(), frame, warmup_steps=0, seed=3, batch_size=8, work=tmp_path / "bad"
    )
    assert best.reward_margin < 0
    write_log(run, best, tmp_path / "r1.json")
    names(capsys.readouterr().err, "r1", "WORSE", f"{best.reward_margin:.4g}", "learning_rate")
    recorded = TrainingLog.model_validate_json((tmp_path / "r1.json").read_text())
    assert (recorded.change.worse, recorded.change.start, recorded.change.end) == (True, 0.0, best.reward_margin)

    _, run, best = train_preferences(
        TRAINER, tiny_lm(), pairs(24), warmup_steps=0, seed=3, batch_size=8, work=tmp_path / "good"
    )
    write_log(run, best, tmp_path / "r1.json")
    assert capsys.readouterr().err == ""
    hot = {"learning_rate": 300.0, "warmup_steps": 0, "lr_scheduler_type": "constant", "max_steps": 3}
    base, _ = train_base(SCRATCH, COUNTING, scratch_vocabulary(20), seed=0, work=tmp_path / "base")
    lm = UnitLM(base, scratch_vocabulary(20), CONTRACT, "base")
    _, run = continue_training(NEXT_UNIT.model_copy(update=hot), lm, COUNTING, seed=0, work=tmp_path / "hot")
    write_log(run, None, tmp_path / "ntp.json")
    names(capsys.readouterr().err, "ntp", "WORSE", "nats")


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


def steps_of(trainer, batch, micro):
    """What training does for each optimiser step, without moving: its loss and its gradients."""
    trainer.create_optimizer_and_scheduler(num_training_steps=1)
    rows = list(trainer.train_dataset)
    for at in range(0, len(rows), batch):
        end = min(at + batch, len(rows))
        parts = [trainer.data_collator(rows[i : min(i + micro, end)]) for i in range(at, end, micro)]
        trainer.current_gradient_accumulation_steps = len(parts)
        trainer.model.zero_grad()
        whole = trainer._get_num_items_in_batch(parts, torch.device("cpu"))
        loss = sum(float(trainer.training_step(trainer.model, part, whole)) for part in parts)
        grads = [weight.grad.flatten() for weight in trainer.model.parameters() if weight.grad is not None]
        yield loss, torch.cat(grads).clone()
