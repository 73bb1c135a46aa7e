"""Models that keep a state instead of keys and values, or both: drawn from, scored and trained as plain loops say."""

import numpy as np
import pytest
import torch

from alignslm.config.feedback import Sampling
from alignslm.config.pretrained_lm import HFLMConfig
from alignslm.lm.checkpoint import UnitLM, load_lm
from alignslm.lm.likelihood import LikelihoodRequest, log_likelihoods
from alignslm.lm.pretrained import import_lm
from alignslm.lm.sampling import sample
from alignslm.model_cache import UnsupportedModelError, keeps_states
from alignslm.training.adapter import save_adapter_and_merge
from alignslm.training.preference import train_preferences
from alignslm.units import UnitVocabulary
from tests.messages import names
from tests.test_lm_architectures import PROMPTS, SEEDS, slow_draw
from tests.test_training import TRAINER, pairs
from tests.tiny_lm import CONTRACT, NUM_UNITS, naive_log_probs
from tests.tiny_states import ATTENTION, REFUSED, STATES, tiny_by_name

VOCABULARY = UnitVocabulary(num_units=NUM_UNITS, offset=4, bos_id=None, eos_id=2, pad_id=0)
SAMPLING = Sampling(num_continuations=2, temperature=0.9, top_p=0.9, max_new_units=9)
UNITS = {
    "num_units": NUM_UNITS,
    "sample_rate_hz": 16000,
    "frame_rate_hz": 25.0,
    "layer": None,
    "deduplicated": True,
    "revision": None,
    "codebook_sha256": None,
    "codebook_file_sha256": None,
}


def unit_lm(name):
    return UnitLM(tiny_by_name(name, vocab_size=NUM_UNITS + 4), VOCABULARY, CONTRACT, name)


def imported(name, folder):
    """Publish a tiny model as others do, and import it as the stage `base` does."""
    tiny_by_name(name, vocab_size=NUM_UNITS + 4).save_pretrained(folder / "published")
    chosen = {
        "kind": "hf",
        "weights": {"kind": "folder", "path": str(folder / "published")},
        "units": UNITS,
        "ids": {"offset": 4, "bos": None, "eos": 2, "pad": 0},
        "dtype": "float32",
    }
    import_lm(HFLMConfig.model_validate(chosen), CONTRACT, folder / "base")
    return load_lm(folder / "base", device="cpu")


@pytest.mark.parametrize("name", [*STATES, *ATTENTION])
def test_draws_and_likelihoods_equal_plain_loops(name, tmp_path):
    lm = imported(name, tmp_path)
    assert keeps_states(lm.model) == (name in STATES)
    drawn = sample(lm, PROMPTS, SEEDS, SAMPLING, batch_size=6)
    for prompt, seeds, row in zip(PROMPTS, SEEDS, drawn, strict=True):
        assert [(draw.units, draw.finish_reason) for draw in row] == [
            slow_draw(lm, prompt, seed, SAMPLING) for seed in seeds
        ]
        ids, barred = VOCABULARY.encode(prompt, bos=True), [0, 1, 3]
        tail, nats = VOCABULARY.encode(row[0].units, bos=False, eos=row[0].finish_reason == "eos"), 0.0
        for token in tail:
            with torch.no_grad():
                logits = lm.model(torch.tensor([ids])).logits[0, -1].double()
            logits[barred] = -torch.inf
            nats, ids = nats + float(logits.log_softmax(0)[token]), [*ids, token]
        assert row[0].logprob == pytest.approx(nats, abs=1e-4)
    items = [
        LikelihoodRequest(context, target, eos)
        for context in ([], [3], [5, 6, 7, 8], [1] * 13)
        for target, eos in (([9], False), ([1, 2, 19, 0], True), ([4] * 7, False))
    ]
    for item, found in zip(items, log_likelihoods(lm, items, batch_size=3), strict=True):
        wanted = naive_log_probs(lm, VOCABULARY.encode([*item.context, *item.target], bos=True, eos=item.eos))
        np.testing.assert_allclose([*found.context, *found.target], wanted, atol=1e-4)
        assert len(found.context) == max(0, len(item.context) - 1)


@pytest.mark.parametrize("name", REFUSED)
def test_a_model_that_forgets_or_looks_ahead_is_refused_at_import_by_name(name, tmp_path):
    with pytest.raises(UnsupportedModelError) as raised:
        imported(name, tmp_path)
    names(raised.value, type(tiny_by_name(name, vocab_size=NUM_UNITS + 4)).__name__)
    assert not (tmp_path / "base").exists()


@pytest.mark.parametrize("name", ["mamba2", "qwen3_next", "lfm2"])
def test_a_state_model_is_aligned_and_its_references_are_exact(name, tmp_path):
    """An adapter on every linear layer that PEFT can adapt; the merged model draws as its plain loop does."""
    lm = unit_lm(name)
    config = TRAINER.model_copy(update={"max_steps": 2})
    model, run, _ = train_preferences(config, lm, pairs(16), warmup_steps=0, seed=3, batch_size=8, work=tmp_path / "w")
    assert run.steps == 2
    aligned = UnitLM(save_adapter_and_merge(model, tmp_path / "adapter"), VOCABULARY, CONTRACT, "r1")
    ((draw,),) = sample(aligned, [[1, 2, 3]], [[7]], SAMPLING, batch_size=1)
    assert (draw.units, draw.finish_reason) == slow_draw(aligned, [1, 2, 3], 7, SAMPLING)
