"""Drawing in fixed shapes: equal to plain loops, to the last bit whatever the batch, and to steps that are replayed."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoConfig, AutoModelForCausalLM

from alignslm.config.feedback import Sampling
from alignslm.lm import probe, sampling
from alignslm.lm.checkpoint import UnitLM, disable_dropout
from alignslm.lm.draws import Draws, uniforms
from alignslm.lm.fixed_shapes import (
    INVARIANT,
    DecodeShapes,
    FixedReader,
    StepGraphs,
    takes_fixed_shapes,
)
from alignslm.lm.probe import fits_fixed_shapes
from alignslm.lm.sampling import sample, shapes_of
from tests.test_lm_architectures import PROMPTS, SAMPLING, SEEDS, TWIST, VOCABULARIES, slow_draw, unit_lm
from tests.tiny_lm import CONTRACT, tiny_lm

SMALL = DecodeShapes(width_step=4, span_step=4, prompt_rows=2)
FAMILIES = ["opt", "llama", "qwen2"]
LM = tiny_lm()
ENDING = Sampling(num_continuations=3, temperature=1.3, top_p=1.0, max_new_units=40)
MANY = [[unit] * (1 + unit % 7) for unit in range(20)]
MANY_SEEDS = [[100 * row + draw for draw in range(3)] for row in range(len(MANY))]


def parts(drawn):
    return [[(draw.units, draw.finish_reason) for draw in row] for row in drawn]


@pytest.mark.parametrize("shapes", [SMALL, SMALL._replace(rows=7), DecodeShapes(), INVARIANT])
@pytest.mark.parametrize("kind", VOCABULARIES)
@pytest.mark.parametrize("family", FAMILIES)
def test_draws_in_fixed_shapes_equal_a_loop_over_single_rows(family, kind, shapes):
    lm = unit_lm(family, VOCABULARIES[kind])
    drawn = sample(lm, PROMPTS, SEEDS, SAMPLING, batch_size=6, shapes=shapes)
    exact = sample(lm, PROMPTS, SEEDS, SAMPLING, batch_size=100)
    for prompt, seeds, row, same in zip(PROMPTS, SEEDS, drawn, exact, strict=True):
        assert [(draw.units, draw.finish_reason) for draw in row] == [
            slow_draw(lm, prompt, seed, SAMPLING) for seed in seeds
        ]
        assert [draw.logprob for draw in row] == pytest.approx([draw.logprob for draw in same], abs=1e-4)


def test_rows_are_dropped_by_half_and_what_they_drew_is_kept(monkeypatch):
    """Draws end at any step, so batches shrink, and a batch uses again what the one before it left."""
    monkeypatch.setattr(sampling, "LOOK_EVERY", 2)
    numbers = []
    plain = sampling.FixedReader.advance
    monkeypatch.setattr(
        sampling.FixedReader, "advance", lambda self, draws: (numbers.append(draws.num_rows), plain(self, draws))[1]
    )
    drawn = sample(LM, MANY, MANY_SEEDS, ENDING, batch_size=24, shapes=SMALL)
    exact = sample(LM, MANY, MANY_SEEDS, ENDING, batch_size=24)
    assert parts(drawn) == parts(exact)
    assert len({finish for row in parts(drawn) for _, finish in row}) == 2
    assert {24, 12, 6} <= set(numbers)


def test_idle_rows_have_ended_and_are_never_told():
    reader = FixedReader(LM.model, SMALL, pad_id=0, capacity=20, graphs=StepGraphs(capture=None))
    draws = reader.begin([[1, 5], [1]], [0, 1] * 8 + [1], Draws(LM, uniforms(range(17), 3), SAMPLING))
    assert draws.ended.tolist() == [False] * 17 + [True]
    draws.choose()
    assert sorted(draws.told(LM.vocabulary.decode)) == list(range(17))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@settings(max_examples=15, deadline=None)
@given(order=st.permutations(range(8)), count=st.integers(1, 8), batch_size=st.sampled_from([1, 3, 64, 500]))
def test_invariant_draws_are_the_same_bits_whatever_the_batch(dtype, order, count, batch_size):
    lm = invariant_lm(dtype)
    together = sample(lm, MANY[:8], MANY_SEEDS[:8], SAMPLING, batch_size=100, batch_invariant=True)
    some = order[:count]
    prompts, seeds = [MANY[row] for row in some], [MANY_SEEDS[row][:2] for row in some]
    found = sample(lm, prompts, seeds, SAMPLING, batch_size=batch_size, batch_invariant=True)
    assert found == [together[row][:2] for row in some]


def invariant_lm(dtype):
    lm = unit_lm("llama", VOCABULARIES["slam"])
    lm.model.to(dtype)
    return lm


def test_a_prompt_without_padding_is_read_as_it_is_among_padded_ones(monkeypatch):
    """Without any padding in a pass transformers leaves the mask out, and another kernel reads it."""
    lm, shapes = unit_lm("llama", VOCABULARIES["slam"]), set()
    assert fits_fixed_shapes(lm)  # which reads something itself
    plain = torch.nn.functional.scaled_dot_product_attention

    def attend(query, key, value, attn_mask=None, **options):
        shapes.add((query.shape, key.shape, attn_mask is None, options.get("is_causal")))
        return plain(query, key, value, attn_mask=attn_mask, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", attend)
    whole = [(7 * at) % 20 for at in range(INVARIANT.width_step - 1)]  # and the token that begins a sequence
    alone = sample(lm, [whole], [[1, 2]], SAMPLING, batch_size=100, batch_invariant=True)
    alone_in, _ = set(shapes), shapes.clear()
    assert sample(lm, [whole, whole[9:]], [[1, 2], [3, 4]], SAMPLING, batch_size=9, batch_invariant=True)[:1] == alone
    assert shapes == alone_in
    assert len(shapes) == 2  # of the prompt, and of a step


def test_one_prompt_may_have_more_draws_than_a_step_has_rows():
    seeds = [list(range(150)), list(range(7, 157))]
    drawn = sample(LM, MANY[:2], seeds, SAMPLING, batch_size=8, batch_invariant=True)
    assert parts(drawn) == parts(sample(LM, MANY[:2], seeds, SAMPLING, batch_size=500))


SIZES = {"vocab_size": 22, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "head_dim": 8}
OTHERS = {
    "bloom": {"n_layer": 2, "n_head": 4},
    "gemma": {"intermediate_size": 48, "num_key_value_heads": 1},
    "gemma2": {"intermediate_size": 48, "num_key_value_heads": 2, "sliding_window": 4},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
    "gpt_neox": {"intermediate_size": 48},
    "mpt": {"d_model": 32, "n_heads": 4, "n_layers": 2},
    "phi": {"intermediate_size": 48},
    "qwen3": {"intermediate_size": 48, "num_key_value_heads": 2},
}


@pytest.mark.parametrize("kind", OTHERS)
def test_an_architecture_draws_in_fixed_shapes_only_if_it_predicts_the_same(kind):
    """bloom and mpt know where a token is from a mask of two dimensions; gemma2 sees a window."""
    torch.manual_seed(0)
    shared = {} if kind in {"gpt2", "mpt"} else SIZES
    shared = {"vocab_size": 22, "bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 0, **shared}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **shared, **OTHERS[kind]))
    disable_dropout(model)
    lm = UnitLM(model.eval(), VOCABULARIES["slam"], CONTRACT, kind)
    assert fits_fixed_shapes(lm) == (kind not in {"bloom", "gemma2", "mpt"})
    drawn = sample(lm, PROMPTS, SEEDS, SAMPLING, batch_size=100, batch_invariant=True)
    for prompt, seeds, row in zip(PROMPTS, SEEDS, parts(drawn), strict=True):
        assert row == [slow_draw(lm, prompt, seed, SAMPLING) for seed in seeds]


def test_only_what_attends_to_everything_has_fixed_shapes_and_a_cpu_asks_for_none():
    assert [takes_fixed_shapes(unit_lm(family, TWIST).model) for family in ("llama", "mistral")] == [True, False]
    lm = unit_lm("opt", TWIST)
    assert (shapes_of(lm, batch_invariant=False), shapes_of(lm, batch_invariant=True)) == (None, INVARIANT)
    windowed = unit_lm("mistral", TWIST)
    alone = [sample(windowed, [p], [s], SAMPLING, batch_size=9)[0] for p, s in zip(PROMPTS, SEEDS, strict=True)]
    assert sample(windowed, PROMPTS, SEEDS, SAMPLING, batch_size=9, batch_invariant=True) == alone
    lm.model.set_attn_implementation("eager")
    assert not takes_fixed_shapes(lm.model)


class Recorder(TorchDispatchMode):
    """Records which kernels run on which memory, as a CUDA graph does, and leaves memory as it was."""

    def __init__(self):
        super().__init__()
        self.kernels, self.before = [], {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func is not torch.ops.aten._local_scalar_dense.default, "a captured step cannot wait for a number"
        for given_as, one in zip(func._schema.arguments, args, strict=False):
            if given_as.alias_info is not None and given_as.alias_info.is_write:
                memory = one.untyped_storage()
                self.before.setdefault(memory.data_ptr(), (memory, memory.clone()))
        found = func(*args, **(kwargs or {}))
        self.kernels.append((func, args, kwargs or {}, found))
        return found

    def restore(self):
        for memory, content in self.before.values():
            memory.copy_(content)

    def replay(self):
        """Run the kernels again on the same memory, without the Python code that chose them."""
        for func, args, kwargs, place in self.kernels:
            again = func(*args, **kwargs)
            for into, new in zip(*(tree_leaves(found) for found in (place, again)), strict=True):
                if isinstance(into, torch.Tensor) and into.data_ptr() != new.data_ptr():
                    into.copy_(new)


class Captures:
    """Stands in for CUDA graphs; counts captures and replays."""

    def __init__(self):
        self.captured, self.replayed = 0, 0

    def __call__(self, step):
        recorder = Recorder()
        with recorder:
            step()
        recorder.restore()
        self.captured += 1

        def replay():
            self.replayed += 1
            recorder.replay()

        return replay


@pytest.mark.parametrize("family", FAMILIES)
def test_replayed_steps_draw_what_plain_steps_draw(monkeypatch, family):
    """Three batches of one shape: what was captured in the first serves the others."""
    lm = unit_lm(family, VOCABULARIES["slam"])
    monkeypatch.setattr(sampling, "LOOK_EVERY", 4)
    plain = sample(lm, MANY, MANY_SEEDS, ENDING, batch_size=24, shapes=SMALL)
    captures = Captures()
    monkeypatch.setattr(sampling, "StepGraphs", lambda _: StepGraphs(captures))
    assert sample(lm, MANY, MANY_SEEDS, ENDING, batch_size=24, shapes=SMALL) == plain
    assert captures.captured < captures.replayed / 3


def test_where_capturing_fails_steps_go_on_plainly(monkeypatch):
    def refuse(step):
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(sampling, "StepGraphs", lambda _: StepGraphs(refuse))
    with pytest.warns(UserWarning, match="without CUDA graphs") as warned:
        drawn = sample(LM, MANY, MANY_SEEDS, ENDING, batch_size=24, shapes=SMALL)
    assert len(warned) == 1
    assert parts(drawn) == parts(sample(LM, MANY, MANY_SEEDS, ENDING, batch_size=24))


def test_a_model_that_fails_in_fixed_shapes_is_told_of_and_lack_of_memory_is_no_such_failure(monkeypatch):
    lm = unit_lm("llama", VOCABULARIES["slam"])

    def fail(_):
        raise kind("not enough")

    monkeypatch.setattr(probe, "_fixed_difference", fail)
    kind = torch.OutOfMemoryError
    with pytest.raises(torch.OutOfMemoryError):
        fits_fixed_shapes(lm)
    kind = RuntimeError
    with pytest.warns(UserWarning, match="fails in fixed shapes.*not enough"):
        assert not fits_fixed_shapes(lm)
