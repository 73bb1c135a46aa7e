"""Sampling, likelihood and training on the architectures of published unit language models."""

import math

import numpy as np
import polars as pl
import pytest
import torch

from alignslm.config.feedback import Sampling
from alignslm.config.models import PreferenceTrainerConfig
from alignslm.lm.checkpoint import UnitLM, disable_dropout, load_lm, save_lm
from alignslm.lm.draws import sample_top_p
from alignslm.lm.likelihood import LikelihoodRequest, unit_log_likelihoods
from alignslm.lm.positions import TooLongError, named_rows
from alignslm.lm.sampling import sample
from alignslm.training.adapter import save_adapter_and_merge
from alignslm.training.next_unit import NextUnitCollator, continue_training
from alignslm.training.pair_rows import preference_rows
from alignslm.training.preference import train_preferences, unit_tokenizer
from alignslm.units import UnitVocabulary
from tests.messages import names
from tests.test_training import NEXT_UNIT, TRAINER, pairs, trainer_for
from tests.tiny_lm import CONTRACT, NUM_UNITS, naive_log_probs, tiny_model

FAMILIES = ["opt", "llama", "qwen2", "mistral"]
TWIST = UnitVocabulary(num_units=NUM_UNITS, offset=4, bos_id=None, eos_id=None, pad_id=1)
SLAM = UnitVocabulary(num_units=NUM_UNITS, offset=2, bos_id=1, eos_id=1, pad_id=0)
VOCABULARIES = {"twist": TWIST, "slam": SLAM}
SAMPLING = Sampling(num_continuations=2, temperature=0.9, top_p=0.9, max_new_units=9)
PROMPTS = [[1, 2, 3], [4, 5], [6, 7, 8], [9], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]]
SEEDS = [[10 * row + draw for draw in range(2)] for row in range(len(PROMPTS))]


def unit_lm(family, vocabulary, **options):
    model = tiny_model(family, vocab_size=vocabulary.offset + NUM_UNITS, **options)
    disable_dropout(model)
    return UnitLM(model, vocabulary, CONTRACT, family)


def slow_draw(lm, prompt, seed, config):
    """One row, one unit at a time, every forward pass over everything so far: no cache, no padding, no mask."""
    vocabulary = lm.vocabulary
    ids = vocabulary.encode(prompt, bos=True)
    start = len(ids)
    allowed = {vocabulary.offset + unit for unit in range(NUM_UNITS)} | {vocabulary.eos_id}
    barred = [token for token in range(lm.model.config.vocab_size) if token not in allowed]
    for uniform in np.random.Generator(np.random.Philox(key=seed)).random(config.max_new_units, dtype=np.float32):
        with torch.no_grad():
            logits = lm.model(torch.tensor([ids])).logits[:, -1].float()
        logits[:, barred] = -torch.inf
        token = sample_top_p(logits, torch.tensor([uniform]), temperature=config.temperature, top_p=config.top_p).item()
        if token == vocabulary.eos_id:
            return vocabulary.decode(ids[start:]), "eos"
        ids.append(token)
    return vocabulary.decode(ids[start:]), "length"


@pytest.mark.parametrize("kind", VOCABULARIES)
@pytest.mark.parametrize("family", FAMILIES)
def test_left_padded_draws_equal_a_loop_over_single_rows(family, kind):
    lm = unit_lm(family, VOCABULARIES[kind])
    drawn = sample(lm, PROMPTS, SEEDS, SAMPLING, batch_size=100)
    for prompt, seeds, row in zip(PROMPTS, SEEDS, drawn, strict=True):
        expected = [slow_draw(lm, prompt, seed, SAMPLING) for seed in seeds]
        assert [(draw.units, draw.finish_reason) for draw in row] == expected


@pytest.mark.parametrize("kind", VOCABULARIES)
@pytest.mark.parametrize("family", FAMILIES)
def test_likelihoods_equal_a_loop_over_single_tokens(family, kind):
    vocabulary = VOCABULARIES[kind]
    lm = unit_lm(family, vocabulary)
    items = [
        LikelihoodRequest(context, target, eos)
        for context in ([], [3], [5, 6, 7, 8])
        for target in ([9], [1, 2, 19, 0], [4] * 7)
        for eos in (False, True)
    ]
    for item, found in zip(items, unit_log_likelihoods(lm, items, batch_size=3), strict=True):
        ids = vocabulary.encode([*item.context, *item.target], bos=True, eos=item.eos)
        unscored = len(vocabulary.encode(item.context, bos=True))
        np.testing.assert_allclose(found, naive_log_probs(lm, ids)[max(0, unscored - 1) :], atol=2e-5)
        ends = item.eos and vocabulary.eos_id is not None
        assert len(found) == len(item.target) + ends - (kind == "twist" and not item.context)


@pytest.mark.parametrize("family", ["opt", "qwen2"])
def test_bfloat16_logits_are_normalised_in_fp32(family):
    """Held against the very logits that were read: bfloat16 products may depend on a batch's shape (AVX2 kernels)."""
    lm = unit_lm(family, SLAM)
    lm.model.to(torch.bfloat16)
    items = [LikelihoodRequest([], [unit, unit + 1, unit + 2], eos=False) for unit in range(12)]
    read = []
    with lm.model.register_forward_hook(lambda model, args, output: read.append(output.logits)):
        found = np.stack(unit_log_likelihoods(lm, items, batch_size=4))
    logits = torch.cat(read)[:, :3]  # the rest of a row is padding
    ids = torch.tensor([SLAM.encode(item.target, bos=True) for item in items])
    exact = logits.double().log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0].numpy()
    coarse = logits.log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0].double().numpy()
    assert logits.dtype == torch.bfloat16
    np.testing.assert_allclose(found, exact, atol=1e-5)
    assert np.abs(coarse - exact).max() > 1e-3
    assert len(set(found.sum(axis=1))) == len(items)


@pytest.mark.parametrize("pad_id", [0, 7, 23])
def test_padding_may_share_the_id_of_a_unit(pad_id):
    lm = unit_lm("opt", TWIST)
    clashing = UnitLM(lm.model, TWIST.model_copy(update={"pad_id": pad_id}), CONTRACT, "clash")
    assert sample(clashing, PROMPTS, SEEDS, SAMPLING, batch_size=100) == sample(
        lm, PROMPTS, SEEDS, SAMPLING, batch_size=100
    )
    batch = NextUnitCollator(pad_id)([{"ids": [7, 23, 7]}, {"ids": [23]}])
    assert batch["labels"].tolist() == [[7, 23, 7], [23, -100, -100]]


def test_one_token_may_begin_and_end_a_sequence():
    batch = NextUnitCollator(SLAM.pad_id)([{"ids": SLAM.encode([0, 1], bos=True, eos=True)}])
    assert batch["labels"].tolist() == [[1, 2, 3, 1]]


def test_the_limit_counts_the_continuation_alone():
    """TWIST's own code counts the prompt too: a long prompt then gives nothing at all."""
    drawn = sample(unit_lm("opt", TWIST), [[1, 2] * 20], [[1, 2]], SAMPLING, batch_size=4)
    assert [len(draw.units) for draw in drawn[0]] == [9, 9]


@pytest.mark.parametrize("family", ["opt", "qwen2"])
def test_positions_are_used_to_the_last_and_no_further(family):
    lm = unit_lm(family, TWIST, positions=16)
    exact = [[1] * 8]
    assert len(sample(lm, exact, [[0]], SAMPLING, batch_size=1)[0][0].units) == 9  # 8 + 9 - 1 = 16 positions
    with pytest.raises(TooLongError) as error:
        sample(lm, [[1], [1] * 10, [1] * 9], [[0], [0], [0]], SAMPLING, batch_size=1)
    names(
        error.value,
        "2",
        "3",
        "16",
        "positions",
        "max_position_embeddings",
        "config.json",
        "18",
        "sampling.max_new_units",
        "9",
        "prompts.max_duration_s",
    )
    for context in range(4):
        whole = LikelihoodRequest([1] * context, [1] * (17 - context), eos=False)
        assert len(unit_log_likelihoods(lm, [whole], batch_size=1)[0]) == 17 - max(1, context)
    with pytest.raises(TooLongError) as raised:
        unit_log_likelihoods(lm, [LikelihoodRequest([1], [1] * 17, eos=False)], batch_size=1)
    names(raised.value, "1", "16", "positions")


def test_training_refuses_what_is_too_long(tmp_path):
    lm = unit_lm("opt", SLAM, positions=8)
    with pytest.raises(TooLongError) as raised:
        continue_training(NEXT_UNIT, lm, [[1] * 6, [1] * 7], seed=0, work=tmp_path)
    names(raised.value, "1", "2", "8", "positions", "exclude_ids")
    with pytest.raises(TooLongError) as raised, named_rows(["anna-1", "ben-2", "carl-3"]):
        continue_training(NEXT_UNIT, lm, [[1] * 7, [1] * 6, [1] * 9], seed=0, work=tmp_path)
    names(raised.value, "2", "3", "11", "carl-3, anna-1")
    assert "ben-2" not in str(raised.value)
    frame = pairs(4).with_columns(prompt_units=pl.Series([[1], [1] * 7, [1], [1]]))
    with pytest.raises(TooLongError) as raised:
        preference_rows(lm, frame, batch_size=4)
    names(raised.value, "1", "4", "8", "positions")


def sides(lm, row):
    prompt = lm.vocabulary.encode(row["prompt_units"], bos=True)
    for side in ("chosen", "rejected"):
        yield prompt, lm.vocabulary.encode(row[f"{side}_units"], bos=False, eos=row[f"{side}_finish_reason"] == "eos")


def slow_side(lm, prompt, tail):
    return sum(naive_log_probs(lm, prompt + tail)[len(prompt) - 1 :])


@pytest.mark.parametrize(("family", "kind"), [("opt", "twist"), ("qwen2", "slam"), ("llama", "twist")])
def test_references_are_exact_in_training_mode_and_the_first_loss_is_log_two(tmp_path, family, kind):
    """Before its first step the policy is the reference: every reward is 0. Dropout or another base would show."""
    lm, frame = unit_lm(family, VOCABULARIES[kind]), pairs(8)
    trainer = trainer_for(lm, frame, TRAINER, tmp_path)
    rows = trainer.train_dataset
    for number, row in enumerate(frame.iter_rows(named=True)):
        chosen, rejected = (slow_side(lm, *side) for side in sides(lm, row))
        assert rows[number]["ref_chosen_logps"] == pytest.approx(chosen, abs=1e-4)
        assert rows[number]["ref_rejected_logps"] == pytest.approx(rejected, abs=1e-4)
    batch = trainer._prepare_inputs(trainer.data_collator([rows[n] for n in range(8)]))
    trainer.model.train()
    assert trainer.compute_loss(trainer.model, batch).item() == pytest.approx(math.log(2), abs=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("family", "kind"), [("opt", "twist"), ("qwen2", "slam")])
def test_a_round_of_dpo_is_merged_and_comes_back_equal(tmp_path, family, kind, dtype):
    lm = unit_lm(family, VOCABULARIES[kind])
    save_lm(lm.model.to(dtype=getattr(torch, dtype)), lm.vocabulary, CONTRACT, tmp_path / "base")
    lm = load_lm(tmp_path / "base", device="cpu")
    config = PreferenceTrainerConfig.model_validate({**TRAINER.model_dump(), "max_steps": 2, "learning_rate": 0.02})
    model, _, best = train_preferences(
        config, lm, pairs(16), warmup_steps=0, seed=3, batch_size=8, work=tmp_path / "work"
    )
    assert best.reward_margin > 0
    trained = {name: weight for name, weight in model.named_parameters() if "lora_" in name}
    assert {weight.dtype for weight in trained.values()} == {torch.float32}
    assert not [name for name in trained if "embed" in name or "lm_head" in name]
    ids = torch.tensor([lm.vocabulary.encode([4, 5, 6, 7, 8], bos=True)])
    with torch.no_grad():
        adapted = model(ids).logits.float()
    merged = save_adapter_and_merge(model, tmp_path / "round" / "adapter")
    save_lm(merged, lm.vocabulary, CONTRACT, tmp_path / "round")
    loaded = load_lm(tmp_path / "round", device="cpu")
    assert loaded.model.dtype == torch.float32  # merged, whatever the base was in
    assert loaded.model_id != lm.model_id
    with torch.no_grad():
        assert torch.equal(loaded.model(ids).logits, merged(ids).logits)
        again = loaded.model(ids).logits.float()
    np.testing.assert_allclose(again, adapted, atol=1e-4 if dtype == "float32" else 0.15)


def test_the_second_round_refers_to_the_merged_first(tmp_path):
    lm = unit_lm("opt", TWIST)
    save_lm(lm.model, TWIST, CONTRACT, tmp_path / "base")
    config = TRAINER.model_copy(update={"max_steps": 2})
    base = load_lm(tmp_path / "base", device="cpu")
    model, _, _ = train_preferences(config, base, pairs(16), warmup_steps=0, seed=3, batch_size=8, work=tmp_path / "w")
    save_lm(save_adapter_and_merge(model, tmp_path / "r1" / "adapter"), TWIST, CONTRACT, tmp_path / "r1")
    first, frame = load_lm(tmp_path / "r1", device="cpu"), pairs(4)
    references = trainer_for(first, frame, TRAINER, tmp_path / "w2").train_dataset["ref_chosen_logps"]
    of_first, of_base = (
        [slow_side(one, *next(sides(one, row))) for row in frame.iter_rows(named=True)]
        for one in (load_lm(tmp_path / "r1", device="cpu"), load_lm(tmp_path / "base", device="cpu"))
    )
    np.testing.assert_allclose(references, of_first, atol=1e-4)
    assert np.abs(np.subtract(references, of_base)).min() > 1e-2


def test_pairs_become_ids_without_loss_or_invented_end(tmp_path):
    """The first unit of a continuation is trained on, the prompt has no end, a cut continuation gets none."""
    frame = pairs(2).with_columns(chosen_finish_reason=pl.Series(["length", "eos"]))
    rows = preference_rows(unit_lm("qwen2", SLAM), frame, batch_size=4)
    for number, row in enumerate(frame.iter_rows(named=True)):
        assert rows[number]["prompt_ids"] == [1, *(unit + 2 for unit in row["prompt_units"])]
        assert rows[number]["chosen_ids"][:3] == [unit + 2 for unit in row["chosen_units"]]
        assert rows[number]["chosen_ids"][3:] == ([1] if row["chosen_finish_reason"] == "eos" else [])
    tokenizer = unit_tokenizer(SLAM, vocabulary_size=NUM_UNITS + 2)
    assert tokenizer.convert_tokens_to_ids(["<u0>", "<u19>"]) == [2, 21]
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (0, 1)
