import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alignslm.config.feedback import Sampling
from alignslm.lm.checkpoint import CheckpointError, disable_dropout, load_lm, save_lm
from alignslm.lm.draws import sample_top_p
from alignslm.lm.likelihood import LikelihoodRequest, unit_log_likelihoods
from alignslm.lm.sampling import sample
from tests.messages import names
from tests.tiny_lm import CONTRACT, VOCABULARY, naive_log_probs, tiny_lm

LM = tiny_lm()
SAMPLING = Sampling(num_continuations=3, temperature=0.9, top_p=0.9, max_new_units=12)
UNITS = st.lists(st.integers(0, 19), min_size=1, max_size=9)


@settings(max_examples=25, deadline=None)
@given(UNITS, UNITS, st.booleans())
def test_likelihood_equals_a_loop_over_single_tokens(context, target, eos):
    [found] = unit_log_likelihoods(LM, [LikelihoodRequest(context, target, eos)], batch_size=4)
    ids = VOCABULARY.encode([*context, *target], bos=True, eos=eos)
    expected = naive_log_probs(LM, ids)[len(context) :]
    assert len(found) == len(target) + eos
    np.testing.assert_allclose(found, expected, atol=1e-5)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(UNITS, UNITS), min_size=2, max_size=8), st.integers(1, 8))
def test_likelihood_is_independent_of_batch_and_neighbours(pairs, batch_size):
    items = [LikelihoodRequest(context, target, eos=True) for context, target in pairs]
    together = unit_log_likelihoods(LM, items, batch_size=batch_size)
    for item, values in zip(items, together, strict=True):
        np.testing.assert_allclose(values, unit_log_likelihoods(LM, [item], batch_size=1)[0], atol=1e-5)


def test_without_begin_token_the_first_unit_only_conditions():
    lm = tiny_lm()
    bare = type(lm)(lm.model, VOCABULARY.model_copy(update={"bos_id": None}), CONTRACT, "bare")
    [values] = unit_log_likelihoods(bare, [LikelihoodRequest([], [4, 5, 6], eos=False)], batch_size=1)
    np.testing.assert_allclose(values, naive_log_probs(bare, [7, 8, 9]), atol=1e-5)
    assert [len(v) for v in unit_log_likelihoods(bare, [LikelihoodRequest([], [4], eos=False)], batch_size=1)] == [0]


def naive_nucleus(probabilities, uniform, top_p):
    """Keep the most likely tokens until their mass reaches top_p, then walk the kept ones in order of id."""
    kept, mass = set(), 0.0
    for token in sorted(range(len(probabilities)), key=lambda t: (-probabilities[t], t)):
        kept.add(token)
        mass += probabilities[token]
        if mass >= top_p:
            break
    total, walked = sum(probabilities[t] for t in kept), 0.0
    for token in sorted(kept):
        walked += probabilities[token]
        if uniform * total < walked:
            return token
    return max(kept)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.floats(-4, 4), min_size=3, max_size=12, unique=True),
    st.floats(0, 0.999),
    st.sampled_from([0.3, 0.7, 0.95, 1.0]),
    st.sampled_from([0.5, 1.0, 1.3]),
)
def test_nucleus_choice_equals_its_definition(logits, uniform, top_p, temperature):
    probabilities = torch.softmax(torch.tensor([logits], dtype=torch.float64) / temperature, -1)[0].tolist()
    found = sample_top_p(
        torch.tensor([logits], dtype=torch.float64), torch.tensor([uniform]), temperature=temperature, top_p=top_p
    )
    slack = {
        naive_nucleus(probabilities, min(max(uniform + d, 0), 0.9999), top_p + e)
        for d in (-1e-6, 0, 1e-6)
        for e in (-1e-9, 0, 1e-9)
    }
    assert found.item() in slack


def test_draws_follow_the_nucleus_distribution():
    logits = torch.tensor([[1.0, 0.0, -1.0, -9.0]]).repeat(20000, 1)
    uniforms = torch.from_numpy(np.random.default_rng(0).random(20000, dtype=np.float32))
    counts = torch.bincount(sample_top_p(logits, uniforms, temperature=1.0, top_p=0.95), minlength=4) / 20000
    expected = torch.softmax(torch.tensor([1.0, 0.0, -1.0]), 0)
    np.testing.assert_allclose(counts[:3], expected, atol=0.012)
    assert counts[3] == 0


PROMPTS = [[1, 2, 3], [4, 5], [6, 7, 8], [9], [1, 2, 3, 4, 5]]
SEEDS = [[10 * row + draw for draw in range(3)] for row in range(len(PROMPTS))]


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_draws_do_not_depend_on_the_batch(batch_size):
    together = sample(LM, PROMPTS, SEEDS, SAMPLING, batch_size=100)
    again = sample(LM, PROMPTS, SEEDS, SAMPLING, batch_size=batch_size)
    assert [[draw.units for draw in row] for row in again] == [[draw.units for draw in row] for row in together]


def test_draws_do_not_depend_on_order_or_company():
    together = sample(LM, PROMPTS, SEEDS, SAMPLING, batch_size=100)
    backwards = sample(LM, PROMPTS[::-1], SEEDS[::-1], SAMPLING, batch_size=100)[::-1]
    assert [[d.units for d in row] for row in backwards] == [[d.units for d in row] for row in together]
    alone = sample(LM, PROMPTS[1:2], [[SEEDS[1][2]]], SAMPLING, batch_size=1)
    assert alone[0][0].units == together[1][2].units


def test_sampling_equals_a_slow_loop_without_cache():
    """One forward pass over everything so far for every unit, one row at a time."""
    config = SAMPLING
    for prompt, seeds, row in zip(PROMPTS, SEEDS, sample(LM, PROMPTS, SEEDS, config, batch_size=100), strict=True):
        for seed, draw in zip(seeds, row, strict=True):
            uniforms = np.random.Generator(np.random.Philox(key=seed)).random(config.max_new_units, dtype=np.float32)
            ids, total, finish = VOCABULARY.encode(prompt, bos=True), 0.0, "length"
            for uniform in uniforms:
                with torch.no_grad():
                    logits = LM.model(torch.tensor([ids])).logits[:, -1].float()
                logits[:, [0, 1]] = -torch.inf
                token = sample_top_p(
                    logits, torch.tensor([uniform]), temperature=config.temperature, top_p=config.top_p
                ).item()
                total += logits.log_softmax(-1)[0, token].item()
                if token == 2:
                    finish = "eos"
                    break
                ids.append(token)
            assert draw.units == VOCABULARY.decode(ids[1 + len(prompt) :])
            assert draw.finish_reason == finish
            assert draw.logprob == pytest.approx(total, abs=1e-4)


def test_an_empty_prompt_without_begin_token_is_refused():
    lm = tiny_lm()
    bare = type(lm)(lm.model, VOCABULARY.model_copy(update={"bos_id": None}), CONTRACT, "bare")
    with pytest.raises(ValueError, match="prompt 1 is empty: there is nothing to continue"):
        sample(bare, [[1], []], [[0], [1]], SAMPLING, batch_size=4)


def test_a_checkpoint_comes_back_equal(tmp_path):
    save_lm(LM.model, VOCABULARY, CONTRACT, tmp_path)
    loaded = load_lm(tmp_path, device="cpu")
    assert (loaded.vocabulary, loaded.contract) == (VOCABULARY, CONTRACT)
    assert sample(loaded, PROMPTS, SEEDS, SAMPLING, batch_size=8) == sample(LM, PROMPTS, SEEDS, SAMPLING, batch_size=8)
    assert loaded.model_id == load_lm(tmp_path, device="cpu").model_id


def test_a_folder_that_says_nothing_of_units_is_refused(tmp_path):
    LM.model.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError) as raised:
        load_lm(tmp_path, device="cpu")
    names(raised.value, "unit_vocabulary.json")


def test_a_vocabulary_that_does_not_fit_is_refused(tmp_path):
    save_lm(LM.model, VOCABULARY.model_copy(update={"offset": 9}), CONTRACT, tmp_path)
    with pytest.raises(CheckpointError) as raised:
        load_lm(tmp_path, device="cpu")
    names(raised.value, "20", "9", "vocabulary", "23")


def test_functional_dropout_is_silenced_too():
    from transformers import OPTConfig, OPTForCausalLM

    model = OPTForCausalLM(
        OPTConfig(vocab_size=23, hidden_size=16, ffn_dim=32, num_hidden_layers=2, num_attention_heads=2, dropout=0.5)
    ).train()
    ids = torch.tensor([[1, 4, 5, 6]])
    assert not torch.equal(model(ids).logits, model(ids).logits)
    disable_dropout(model)
    assert torch.equal(model(ids).logits, model(ids).logits)
