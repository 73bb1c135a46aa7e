import json

import pytest
import torch

from alignslm.config.pretrained_lm import TwistInitConfig
from alignslm.config.sources import FolderSource
from alignslm.lm.checkpoint import load_lm
from alignslm.lm.likelihood import LikelihoodRequest, unit_log_likelihoods
from alignslm.lm.twist_init import twist_init
from alignslm.training.base_model import make_base
from alignslm.training.next_unit import scratch_vocabulary
from tests.tiny_lm import CONTRACT, NUM_UNITS, tiny_text_lm

VOCABULARY = scratch_vocabulary(NUM_UNITS)
COUNTING = [[(start + i) % NUM_UNITS for i in range(8)] for start in range(NUM_UNITS)]


def warm(path, **changes):
    return TwistInitConfig.model_validate(
        {
            "kind": "twist-init",
            "weights": FolderSource(kind="folder", path=str(path)),
            "max_steps": 60,
            "batch_size": 10,
            "learning_rate": 0.01,
            "warmup_steps": 2,
            "weight_decay": 0.0,
            "autocast": "float32",
            "dtype": "float32",
            **changes,
        }
    )


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", ["opt", "llama", "qwen2"])
def test_only_the_token_embedding_gives_way(tmp_path, family, tied):
    text = tiny_text_lm(tmp_path, family, tie_word_embeddings=tied).state_dict()
    model = twist_init(tmp_path, VOCABULARY, seed=0)
    size = NUM_UNITS + VOCABULARY.offset
    replaced = {name for name, weight in model.state_dict().items() if not torch.equal(weight, text[name])}
    assert {name.split(".")[-2] for name in replaced} == {"embed_tokens", "lm_head"}
    assert {len(model.state_dict()[name]) for name in replaced} == {size} == {model.config.vocab_size}
    embedding, output = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    assert (embedding is output) == tied
    assert tied or not torch.equal(embedding, output)
    assert embedding.std().item() == pytest.approx(0.3, rel=0.15)
    assert not torch.equal(embedding, text[next(n for n in text if "embed_tokens" in n)][:size])


def test_equal_seeds_give_equal_weights(tmp_path):
    tiny_text_lm(tmp_path)
    one, again, other = (twist_init(tmp_path, VOCABULARY, seed=seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(weight, again[name]) for name, weight in one.items())
    assert not all(torch.equal(weight, other[name]) for name, weight in one.items())


def test_no_special_token_of_the_text_model_stays(tmp_path):
    """OPT pads with token 1, whose embedding takes no gradient: here it begins every sequence."""
    tiny_text_lm(tmp_path / "text", "opt")
    model = twist_init(tmp_path / "text", VOCABULARY, seed=0)
    model(torch.tensor([[1, 5, 6]]), labels=torch.tensor([[1, 5, 6]])).loss.backward()
    moved = model.model.decoder.embed_tokens.weight.grad.abs().sum(dim=1)
    assert (moved > 0).tolist()[:4] == [True, True, True, True]  # the output layer is tied to it
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    model.zero_grad()
    model(torch.tensor([[1, 5, 6]]), labels=torch.tensor([[1, 5, 6]])).loss.backward()
    read = model.model.decoder.embed_tokens.weight.grad.abs().sum(dim=1) > 0
    assert read.nonzero().flatten().tolist() == [1, 5]
    for settings in (model.config, model.generation_config):
        assert (settings.pad_token_id, settings.bos_token_id, settings.eos_token_id) == (0, 1, 2)


@pytest.mark.parametrize(("family", "dtype"), [("opt", "float32"), ("qwen2", "bfloat16")])
def test_a_warm_start_learns_the_corpus_and_is_a_checkpoint(tmp_path, family, dtype):
    tiny_text_lm(tmp_path / "text", family)
    config = warm(tmp_path / "text", dtype=dtype)
    run = make_base(config, COUNTING, CONTRACT, seed=0, work=tmp_path / "work", folder=tmp_path / "base")
    lm = load_lm(tmp_path / "base", device="cpu")
    assert (run.steps, lm.vocabulary, lm.contract) == (60, VOCABULARY, CONTRACT)
    assert {weight.dtype for weight in lm.model.parameters()} == {getattr(torch, dtype)}
    [known] = unit_log_likelihoods(lm, [LikelihoodRequest([], [3, 4, 5, 6], eos=False)], batch_size=1)
    assert known[1:].mean() > -0.5  # the first unit is anyone's guess
    assert json.loads((tmp_path / "base/source.json").read_text())["identity"].startswith("sha256:")
    assert json.loads((tmp_path / "base/generation_config.json").read_text())["eos_token_id"] == 2


def test_training_from_the_text_model_repeats_exactly(tmp_path):
    tiny_text_lm(tmp_path / "text", "opt", dropout=0.5)
    for name in ("one", "two"):
        config = warm(tmp_path / "text", max_steps=3)
        make_base(config, COUNTING, CONTRACT, seed=1, work=tmp_path / f"work-{name}", folder=tmp_path / name)
    one, two = (load_lm(tmp_path / name, device="cpu") for name in ("one", "two"))
    assert one.model_id == two.model_id
    assert (tmp_path / "one/model.safetensors").read_bytes() == (tmp_path / "two/model.safetensors").read_bytes()
