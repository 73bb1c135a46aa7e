"""What is shared between sequences, and how they are batched, shows in no bit of a likelihood."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alignslm.lm.checkpoint import UnitLM
from alignslm.lm.likelihood import LikelihoodRequest, log_likelihoods, unit_log_likelihoods
from alignslm.speed.onednn import fast_linear
from tests.tiny_lm import CONTRACT, VOCABULARY, naive_log_probs, tiny_lm, tiny_model

LM = tiny_lm()
UNITS = st.lists(st.integers(0, 19), max_size=12)
ITEMS = st.lists(st.tuples(UNITS, UNITS, st.booleans()), min_size=1, max_size=12)


@settings(max_examples=20, deadline=None)
@given(ITEMS, st.integers(1, 8), st.randoms())
def test_batch_order_and_neighbours_change_no_bit(rows, batch_size, random):
    items = [LikelihoodRequest(*row) for row in rows] + [LikelihoodRequest(rows[0][0], rows[-1][1], eos=True)]
    alone = [log_likelihoods(LM, [item], batch_size=1)[0] for item in items]
    order = random.sample(range(len(items)), len(items))
    together = log_likelihoods(LM, [items[place] for place in order], batch_size=batch_size)
    for place, found in zip(order, together, strict=True):
        np.testing.assert_array_equal(found.context, alone[place].context)
        np.testing.assert_array_equal(found.target, alone[place].target)


@pytest.mark.parametrize("family", ["opt", "llama", "qwen2", "mistral"])
def test_every_family_scores_after_a_shared_context_as_token_by_token(family):
    model = tiny_model(family, vocab_size=23, positions=21)  # 21: padding to a multiple of 8 would not fit
    lm = UnitLM(model, VOCABULARY, CONTRACT, family)
    context = [3, 1, 4, 1, 5]
    items = [
        LikelihoodRequest(context, target, eos=False)
        for target in ([9], [2, 6, 5], [9, 2, 6, 5, 3, 5, 8, 9, 7], [3] * 16)
    ]
    for item, found in zip(items, log_likelihoods(lm, items, batch_size=3), strict=True):
        ids = VOCABULARY.encode([*context, *item.target], bos=True)
        oracle = naive_log_probs(lm, ids)
        np.testing.assert_allclose(found.context, oracle[: len(context)], atol=2e-5)
        np.testing.assert_allclose(found.target, oracle[len(context) :], atol=2e-5)


def test_without_begin_token_the_contexts_first_unit_only_conditions():
    bare = UnitLM(LM.model, VOCABULARY.model_copy(update={"bos_id": None}), CONTRACT, "bare")
    [found] = log_likelihoods(bare, [LikelihoodRequest([4, 5, 6], [7, 8], eos=False)], batch_size=1)
    np.testing.assert_allclose([*found.context, *found.target], naive_log_probs(bare, [7, 8, 9, 10, 11]), atol=1e-5)
    assert [len(part) for part in found] == [2, 2]


def test_equal_sequences_and_contexts_are_computed_once(monkeypatch):
    seen, forward = [], LM.model.forward
    monkeypatch.setattr(LM.model, "forward", lambda *args, **options: seen.append(args[0]) or forward(*args, **options))
    unit_log_likelihoods(
        LM, [LikelihoodRequest([1, 2, 3], target, eos=False) for target in ([4], [4], [5])], batch_size=8
    )
    context, targets = (part.tolist() for part in seen)
    assert [row[:3] for row in context] == [VOCABULARY.encode([1, 2], bos=True)]
    assert [row[0] for row in targets] == VOCABULARY.encode([3, 3], bos=False)


def test_without_the_quick_operator_only_speed_changes(monkeypatch):
    items = [LikelihoodRequest([1, 2], [3, 4, 5], eos=True)]
    [quick] = unit_log_likelihoods(LM, items, batch_size=1)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    [plain] = unit_log_likelihoods(LM, items, batch_size=1)
    np.testing.assert_allclose(quick, plain, atol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
def test_quick_linear_layers_multiply_as_defined(bias):
    layer, rows = torch.nn.Linear(5, 3, bias=bias), torch.randn(2, 4, 5)
    expected = (rows @ layer.weight.T + (layer.bias if bias else 0)).detach()
    with torch.inference_mode(), fast_linear(torch.device("cpu")):
        torch.testing.assert_close(layer(rows), expected)
        assert layer.bfloat16()(rows.bfloat16()).dtype == torch.bfloat16


def test_small_layers_stay_where_they_are():
    weight, rows = torch.randn(40, 30), torch.randn(5, 30)
    plain = torch.nn.functional.linear(rows, weight)
    with torch.inference_mode(), fast_linear(torch.device("cpu"), least_weights=1201):
        assert torch.equal(torch.nn.functional.linear(rows, weight), plain)
    with torch.inference_mode(), fast_linear(torch.device("cpu"), least_weights=1200) as quick:
        again = [torch.nn.functional.linear(rows, weight) for _ in range(2)]
    assert torch.equal(*again)
    torch.testing.assert_close(again[0], plain)
    assert quick is None or len(quick._laid_out) == 1  # laid out once, however often it is used


def test_a_model_of_small_layers_only_is_left_alone():
    model = torch.nn.Sequential(torch.nn.Linear(30, 40), torch.nn.ReLU(), torch.nn.Linear(40, 20))
    with fast_linear(torch.device("cpu"), least_weights=1201, model=model) as quick:
        assert quick is None
    with fast_linear(torch.device("cpu"), least_weights=1200, model=model) as quick:
        assert (quick is not None) == torch.backends.mkldnn.is_available()
