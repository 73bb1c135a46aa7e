"""Which kernels of a GPU are asked for; what they compute there is not tested here."""

import numpy as np
import pytest
import torch

from alignslm.asr import load_asr, prepare_asr
from alignslm.device import planless_attention
from alignslm.encoder import load_encoder, prepare_encoder
from alignslm.judge.generation import generate_replies
from alignslm.lm.sampling import sample
from tests.test_judge_causal import prepared, stories
from tests.test_lm_architectures import PROMPTS, SAMPLING, SEEDS, TWIST, unit_lm
from tests.tiny_hubert import tiny_hubert
from tests.tiny_whisper import config_of, write_whisper

cudnn = torch.backends.cuda.cudnn_sdp_enabled
NOISE = np.random.default_rng(0).normal(scale=0.1, size=16_000).astype(np.float32)


@pytest.fixture
def asked(monkeypatch):
    """Return a list that fills with whether cuDNN might have computed each attention."""
    found = []
    plain = torch.nn.functional.scaled_dot_product_attention

    def attend(*args, **options):
        found.append(cudnn())
        return plain(*args, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", attend)
    return found


def test_attention_without_plans_ends_with_its_block():
    before = cudnn()
    with pytest.raises(KeyError, match="False"), planless_attention():
        {}[cudnn()]
    assert cudnn() == before


def test_work_of_many_shapes_keeps_attention_from_cudnn(asked, tmp_path):
    """An utterance's length, a transcript's and a step's are each another shape."""
    assert cudnn()  # torch's default, also without a GPU
    encoder = tiny_hubert(tmp_path / "hubert", [NOISE])
    prepare_encoder(encoder, [], tmp_path / "encoder")
    whisper = config_of(write_whisper(tmp_path / "whisper"))
    prepare_asr(whisper, [], tmp_path / "asr")
    hears, speaks = (
        load_encoder(encoder, tmp_path / "encoder", device="cpu"),
        load_asr(whisper, tmp_path / "asr", device="cpu"),
    )
    judge, written = prepared("chat", "greedy"), stories(2)
    for work in (
        lambda: hears.encode([NOISE]),
        lambda: speaks.transcribe([NOISE]),
        lambda: generate_replies(
            judge.model, judge.questions, [judge.questions.text(one) for one in written], judge._written, rows=2
        ),
    ):
        asked.clear()
        work()
        assert asked
        assert not any(asked)


def test_steps_of_exact_shapes_keep_attention_from_cudnn(asked):
    lm = unit_lm("llama", TWIST)
    sample(lm, PROMPTS[:1], SEEDS[:1], SAMPLING, batch_size=9)
    layers, steps = lm.model.config.num_hidden_layers, SAMPLING.max_new_units
    assert asked == [True] * layers + [False] * layers * (steps - 1)
