"""Benchmarks in bfloat16: right paths agree within the stated tolerances, and wrong ones do not, in float32 as well."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from alignslm.judge import JudgeInput
from alignslm.judge.causal_lm import CausalLMJudge
from tests.bench import judge, likelihood, models, preference, sampling
from tests.bench.case import BF16_NATS, MismatchError, rms_difference, scaled_difference
from tests.bench.models import SHAPES
from tests.bench.stages import STAGES
from tests.messages import names

DTYPES = (torch.float32, torch.bfloat16)
WORK = {"sampling": {"rows": 1000}, "judge": {"write": False}}  # standard errors fall with the draws
STAGES_OF_LMS = ("sampling", "storycloze", "sblimp", "judge", "perplexity", "preference")


def built(stage, dtype, monkeypatch):
    """A case at the tiny size whose weights make units unequally likely, and look back, as large models' do."""

    def loud(*given, **options):
        model = plain(*given, **options)
        with torch.no_grad():
            model.lm_head.weight.mul_(16)
            for layer in model.model.layers:
                for part in (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj):
                    part.weight.mul_(32)
        return model

    plain = models.decoder
    monkeypatch.setattr(models, "decoder", loud)
    monkeypatch.setattr(judge, "decoder", loud)
    monkeypatch.setitem(SHAPES, "tiny", replace(SHAPES["tiny"], dtype=dtype))
    return STAGES[stage]("tiny", scale=1, device="cpu", **WORK.get(stage, {}))


def compare(case):
    ours = case.paths["ours"]()
    return {name: case.require_equal(name, ours, path()) for name, path in case.paths.items() if name != "ours"}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("stage", STAGES_OF_LMS)
def test_right_paths_agree(stage, dtype, monkeypatch):
    case = built(stage, dtype, monkeypatch)
    assert next(case.model.parameters()).dtype == dtype
    for difference in compare(case).values():
        assert difference <= case.tolerance / 2
    assert (stage == "sampling") == (case.done is not None)


def half(words):
    return words[len(words) // 2 :]


def changed(name):
    """A wrong `sample` of ours."""

    def wrong(lm, prompts, seeds, config, **options):
        if name in {"temperature", "top_p"}:
            config = config.model_copy(update={name: 1.0})
        drawn = real(
            lm, [half(prompt) for prompt in prompts] if name == "prompt" else prompts, seeds, config, **options
        )
        if name != "logprob":
            return drawn
        return [[draw._replace(logprob=draw.logprob / config.temperature) for draw in row] for row in drawn]

    real = sampling.sample
    return wrong


@pytest.mark.parametrize("wrong", ["temperature", "top_p", "prompt", "logprob"])
def test_a_wrong_sampler_is_caught_in_bfloat16(wrong, monkeypatch):
    case = built("sampling", torch.bfloat16, monkeypatch)
    monkeypatch.setattr(sampling, "sample", changed(wrong))
    with pytest.raises(MismatchError) as raised:
        compare(case)
    names(raised.value, "0.3 nats" if wrong in {"prompt", "logprob"} else "4 standard errors")


def test_other_draws_of_the_same_distribution_agree(monkeypatch):
    """As on a GPU, where a rounding soon makes another continuation of every draw."""
    case, real = built("sampling", torch.bfloat16, monkeypatch), sampling.sample
    other = lambda lm, prompts, seeds, config, **options: real(  # noqa: E731
        lm, prompts, [[10**6 + seed for seed in row] for row in seeds], config, **options
    )
    monkeypatch.setattr(sampling, "sample", other)
    ours, theirs = case.paths["ours"](), case.paths["padded generate"]()
    assert sampling._unequal_draws(ours, theirs) > 0.9
    assert 0 < case.require_equal("padded generate", ours, theirs) < case.tolerance


@pytest.mark.parametrize("wrong", ["temperature", "prompt"])
def test_a_wrong_sampler_is_caught_in_float32(wrong, monkeypatch):
    case = built("sampling", torch.float32, monkeypatch)
    monkeypatch.setattr(sampling, "sample", changed(wrong))
    with pytest.raises(MismatchError):
        compare(case)


def test_forced_nats_are_those_of_a_pass_a_draw(monkeypatch):
    """Against one row at a time, in float32: padding, order, ends and what may not be drawn."""
    case = built("sampling", torch.float32, monkeypatch)
    monkeypatch.setattr(sampling, "FORCED_TOKENS", 100)
    ours = case.paths["ours"]()
    lm, rng = models.unit_lm(SHAPES["tiny"], device="cpu"), np.random.default_rng(0)
    prompts = [rng.integers(0, 20, length).tolist() for length in rng.integers(3, 9, 200)]  # as the case draws them
    forced, counts = sampling._Forced(lm, prompts, longest=12).nats(ours)
    assert 12 in counts
    assert min(counts) < 12
    assert np.abs(forced - [row[0] for row in ours]).max() < 1e-3
    with torch.inference_mode():
        for row in range(0, 1000, 100):
            ids = lm.vocabulary.encode(prompts[row // 5], bos=True)
            ends = [] if len(ours[row]) == 13 else [2]
            tail = [3 + int(unit) for unit in ours[row][1:]] + ends
            logits = lm.model(torch.tensor([ids + tail])).logits[0, len(ids) - 1 : -1].clone()
            logits[:, :2] = -torch.inf
            nats = logits.log_softmax(-1)[torch.arange(len(tail)), tail].sum()
            assert forced[row] == pytest.approx(float(nats), abs=1e-3)
            assert counts[row] == len(tail)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_cut_context_is_caught(dtype, monkeypatch):
    case, real = built("storycloze", dtype, monkeypatch), likelihood.unit_log_likelihoods
    cut = lambda lm, items, **options: real(lm, [i._replace(context=half(i.context)) for i in items], **options)  # noqa: E731
    monkeypatch.setattr(likelihood, "unit_log_likelihoods", cut)
    with pytest.raises(MismatchError):
        compare(case)


@pytest.mark.parametrize("stage", ["judge", "perplexity"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_cut_story_is_caught(stage, dtype, monkeypatch):
    case, method = built(stage, dtype, monkeypatch), {"judge": "judge", "perplexity": "perplexities"}[stage]
    real = getattr(CausalLMJudge, method)
    cut = lambda self, given: real(self, [JudgeInput(" ".join(half(s.prompt.split())), s.continuation) for s in given])  # noqa: E731
    monkeypatch.setattr(CausalLMJudge, method, cut)
    with pytest.raises(MismatchError):
        compare(case)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("wrong", ["references", "beta"])
def test_wrong_training_is_caught(wrong, dtype, monkeypatch):
    rows, stepper = preference.preference_rows, preference._stepper

    def without(lm, pairs, *, references, **options):
        found = rows(lm, pairs, references=references, **options)
        return found.map(lambda row: {name: 0.0 for name in row if name.startswith("ref_")}) if references else found

    def weaker(lm, pairs, config, *, cached, steps):
        config = config.model_copy(update={"beta": 0.08}) if cached else config
        return stepper(lm, pairs, config, cached=cached, steps=steps)

    if wrong == "references":
        monkeypatch.setattr(preference, "preference_rows", without)
    else:
        monkeypatch.setattr(preference, "_stepper", weaker)
    with pytest.raises(MismatchError):
        compare(built("preference", dtype, monkeypatch))


def test_differences_of_roundings_by_hand():
    apart = scaled_difference([0.5, 2.0])
    assert apart([np.array([4.0]), np.array([1.0])], [np.array([1.0]), np.array([1.5])]) == 1.5
    assert apart([np.array([1.0])], [np.array([1.0])]) == np.inf
    assert rms_difference([np.array([1.0]), np.array([2.0])], [np.array([4.0]), np.array([6.0])]) == 12.5**0.5
    assert rms_difference([np.array([1.0])], []) == np.inf
    assert BF16_NATS > 1.2 / 50**0.5  # what was seen on a GPU
