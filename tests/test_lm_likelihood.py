"""What is shared between sequences, and how they are batched, shows in no bit of a likelihood."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alignslm.buckets import CPU, GPU
from alignslm.lm.checkpoint import UnitLM
from alignslm.lm.likelihood import LikelihoodRequest, log_likelihoods, unit_log_likelihoods
from alignslm.speed.onednn import fast_linear
from tests.tiny_lm import CONTRACT, VOCABULARY, naive_log_probs, tiny_lm, tiny_model
from tests.tiny_states import ATTENTION, tiny_by_name

LM = tiny_lm()
UNITS = st.lists(st.integers(0, 19), max_size=12)
FAMILIES = ["opt", "llama", "qwen2", "mistral"]
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


@pytest.mark.parametrize("family", FAMILIES)
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


# Shapes of a GPU, on a CPU: contexts of several lengths in one pass, padded behind them

PADDED = {"small": GPU._replace(context=4, target=4, apart=3, tokens=64), "gpu": GPU}
LMS = {
    "llama": LM,
    "opt": UnitLM(tiny_model("opt", vocab_size=23, positions=37), VOCABULARY, CONTRACT, "opt"),
    "window": UnitLM(tiny_model("mistral", vocab_size=23), VOCABULARY, CONTRACT, "window"),
    "no-bos": UnitLM(LM.model, VOCABULARY.model_copy(update={"bos_id": None}), CONTRACT, "bare"),
}


@torch.inference_mode()
def one_plain_pass(lm, item):
    """Nats of every token after the first, of one item in one pass; how many are the context's."""
    ids = lm.vocabulary.encode([*item.context, *item.target], bos=True, eos=item.eos)
    nats = lm.model(torch.tensor([ids])).logits[0, :-1].float().log_softmax(-1)
    context = len(lm.vocabulary.encode(item.context, bos=True))
    return nats[range(len(ids) - 1), ids[1:]].numpy(), max(0, context - 1)


def assert_scored(lm, item, found, **tolerance):
    nats, context = one_plain_pass(lm, item)
    assert [len(found.context), len(found.target)] == [context, len(nats) - context]
    np.testing.assert_allclose([*found.context, *found.target], nats, **tolerance)


@pytest.mark.parametrize("shapes", PADDED)
@pytest.mark.parametrize("name", LMS)
@settings(max_examples=15, deadline=None)
@given(
    contexts=st.lists(UNITS, min_size=1, max_size=4),
    targets=st.lists(st.tuples(st.integers(0, 3), UNITS, st.booleans()), min_size=1, max_size=16),
    batch_size=st.integers(1, 40),
    random=st.randoms(),
)
def test_in_a_gpus_shapes_company_changes_no_bit_and_a_plain_pass_says_the_same(
    name, shapes, contexts, targets, batch_size, random
):
    lm = LMS[name]
    given_shapes = PADDED[shapes] if shapes == "small" else GPU._replace(apart=random.choice([3, 128]))
    least = [7] if lm.vocabulary.bos_id is None else []  # without a begin token, some unit has to be there
    items = [LikelihoodRequest(contexts[which % len(contexts)], target or least, eos) for which, target, eos in targets]
    order = random.sample(range(len(items)), len(items))
    together = log_likelihoods(lm, [items[at] for at in order], batch_size=batch_size, shapes=given_shapes)
    for place, found in zip(order, together, strict=True):
        [alone] = log_likelihoods(lm, [items[place]], batch_size=1, shapes=given_shapes)
        np.testing.assert_array_equal(found.context, alone.context)
        np.testing.assert_array_equal(found.target, alone.target)
        assert_scored(lm, items[place], found, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", [*FAMILIES, *ATTENTION, "mamba", "lfm2"])
def test_every_architecture_reads_over_the_padding_behind_a_context(name):
    build = tiny_model if name in FAMILIES else tiny_by_name
    lm = UnitLM(build(name, vocab_size=23), VOCABULARY, CONTRACT, name)
    rng = np.random.default_rng(0)
    contexts = [rng.integers(0, 20, length).tolist() for length in (0, 1, 5, 6, 8, 9, 15, 31)]
    items = [
        LikelihoodRequest(context, rng.integers(0, 20, length).tolist(), eos=True)
        for context in contexts
        for length in (1, 4, 9)
    ]
    for item, found in zip(items, log_likelihoods(lm, items, batch_size=99, shapes=PADDED["small"]), strict=True):
        assert_scored(lm, item, found, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("shapes", PADDED)
@pytest.mark.parametrize("name", ["llama", "opt"])
def test_in_bfloat16_a_plain_pass_says_nearly_the_same(name, shapes):
    """And company changes no bit where the processor multiplies tiles of bfloat16; others may round by the shape."""
    lm = UnitLM(copy.deepcopy(LMS[name].model).bfloat16(), VOCABULARY, CONTRACT, name)
    rng = np.random.default_rng(1)
    contexts = [rng.integers(0, 20, length).tolist() for length in rng.integers(0, 18, 9)]
    items = [
        LikelihoodRequest(context, rng.integers(0, 20, rng.integers(1, 12)).tolist(), eos=False)
        for context in contexts * 3
    ]
    for item, found in zip(items, log_likelihoods(lm, items, batch_size=99, shapes=PADDED[shapes]), strict=True):
        assert_scored(lm, item, found, atol=0.3)
        if torch.cpu._is_amx_tile_supported():
            [alone] = log_likelihoods(lm, [item], batch_size=1, shapes=PADDED[shapes])
            np.testing.assert_array_equal([*found.context, *found.target], [*alone.context, *alone.target])


def passes_of(model, compute):
    """Shapes of the ids, and lengths of the cache before, of all forward passes in `compute`."""
    seen = []

    def see(_, args, options):
        cache = options.get("past_key_values")
        seen.append((*args[0].shape, cache.get_seq_length() if cache else 0))

    hook = model.register_forward_pre_hook(see, with_kwargs=True)
    compute()
    hook.remove()
    return seen


def test_stories_in_a_gpus_shapes_waste_little_and_have_few_of_them():
    """Contexts of 120 to 260 units with two endings of 30 to 70, as StoryCloze's."""
    lm = UnitLM(tiny_model("opt", vocab_size=23, positions=400), VOCABULARY, CONTRACT, "stories")
    rng = np.random.default_rng(0)
    draw = lambda low, high: rng.integers(0, 20, rng.integers(low, high + 1)).tolist()  # noqa: E731
    contexts = [draw(120, 260) for _ in range(150)]
    items = [LikelihoodRequest(context, draw(30, 70), eos=False) for context in contexts for _ in range(2)]
    exact, padded, whole = (
        passes_of(lm.model, lambda shapes=shapes: log_likelihoods(lm, items, batch_size=999, shapes=shapes))
        for shapes in (CPU, GPU, GPU._replace(apart=999))
    )
    long = {tuple(context) for context in contexts if len(context) >= GPU.apart}
    needed = sum(map(len, long)) + sum(
        len(item.target) + len(item.context) * (tuple(item.context) not in long) for item in items
    )
    computed, again = (sum(rows * width for rows, width, _ in passes) for passes in (padded, whole))
    assert needed > 0.75 * computed
    assert computed < 0.75 * again
    assert len(set(padded)) <= len(padded) <= 45 < len(set(exact)) / 4
    assert len(whole) <= 8
    assert all(width % 32 == 0 and held % 32 == 0 for _, width, held in padded)
    assert any(held for _, _, held in padded)
