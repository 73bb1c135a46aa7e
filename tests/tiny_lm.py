"""Tiny unit language models with random weights: one in memory, and folders in the formats that others publish."""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from alignslm.lm.checkpoint import UnitLM
from alignslm.provenance import UnitContract
from alignslm.units import UnitVocabulary

CPU = torch.device("cpu")
NUM_UNITS = 20
VOCABULARY = UnitVocabulary(num_units=NUM_UNITS, offset=3, bos_id=1, eos_id=2, pad_id=0)
CONTRACT = UnitContract(
    encoder="test",
    revision="1",
    sample_rate_hz=16000,
    frame_rate_hz=25.0,
    layer=None,
    padding="none",
    codebook_sha256="00",
    num_units=NUM_UNITS,
    deduplicated=True,
)


def tiny_lm(seed: int = 0) -> UnitLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=23,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=128,
        initializer_range=0.3,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    return UnitLM(LlamaForCausalLM(config).eval(), VOCABULARY, CONTRACT, f"tiny-{seed}")


def naive_log_probs(lm: UnitLM, ids: list[int]) -> list[float]:
    """Log p of every token after the first, one forward pass a token, in float64."""
    found = []
    with torch.no_grad():
        for at in range(1, len(ids)):
            logits = lm.model(torch.tensor([ids[:at]])).logits[0, -1].double()
            found.append(float(logits[ids[at]] - torch.logsumexp(logits, 0)))
    return found


def tiny_model(family: str, *, vocab_size: int, positions: int = 64, seed: int = 0, **options) -> PreTrainedModel:
    """Return two layers of an architecture: opt, llama, qwen2 or mistral (whose attention spans 4 tokens)."""
    torch.manual_seed(seed)
    shared = {
        "vocab_size": vocab_size,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": positions,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    }
    gated = {"intermediate_size": 48, "num_key_value_heads": 2, "initializer_range": 0.3}
    match family:
        case "opt":  # TWIST's 350M has a projection between embedding and layers; and the dropout is OPT's own
            more = {"ffn_dim": 64, "word_embed_proj_dim": 16, "init_std": 0.3, "dropout": 0.1, "layerdrop": 0.1}
            model = OPTForCausalLM(OPTConfig(**{**shared, **more, **options}))
            torch.nn.init.normal_(model.model.decoder.embed_positions.weight, std=1.0)  # positions must matter
            return model.eval()
        case "llama":
            return LlamaForCausalLM(LlamaConfig(**{**shared, **gated, **options})).eval()
        case "qwen2":
            tied = {"tie_word_embeddings": True, "attention_dropout": 0.1}
            return Qwen2ForCausalLM(Qwen2Config(**{**shared, **gated, **tied, **options})).eval()
        case "mistral":
            return MistralForCausalLM(MistralConfig(**{**shared, **gated, "sliding_window": 4, **options})).eval()
    raise ValueError(family)


def tiny_twist(
    folder: Path, family: str = "opt", *, num_units: int = NUM_UNITS, offset: int = 4, positions: int = 64, **options
) -> PreTrainedModel:
    """Write a TWIST folder as unzipped: config.json with `offset`, and pytorch_model.bin (2023's default)."""
    model = tiny_model(family, vocab_size=offset + num_units, positions=positions, offset=offset, **options)
    model.save_pretrained(folder)
    (folder / "model.safetensors").unlink()
    weights = {name: tensor for name, tensor in model.state_dict().items() if not name.endswith("lm_head.weight")}
    if not model.config.tie_word_embeddings:
        weights["lm_head.weight"] = model.state_dict()["lm_head.weight"]
    torch.save(weights, folder / "pytorch_model.bin")
    return model


def tiny_slam(
    folder: Path, family: str = "qwen2", *, num_units: int = NUM_UNITS, positions: int = 64, **options
) -> PreTrainedModel:
    """Write a folder as slamkit's UnitLM does: weights under `lm.`, the inner configuration under base_config."""
    specials = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1}
    inner = tiny_model(family, vocab_size=num_units + 2, positions=positions, **{**specials, **options})
    folder.mkdir(parents=True, exist_ok=True)
    shared = "lm_head.weight" if inner.config.tie_word_embeddings else None
    weights = {f"lm.{name}": tensor.contiguous() for name, tensor in inner.state_dict().items() if name != shared}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    base = {**inner.config.to_dict(), "torch_dtype": "bfloat16"}
    rope = base.pop("rope_parameters", None)
    if rope:  # written by transformers 4, as the published ones are
        base |= {"rope_theta": rope["rope_theta"], "rope_scaling": None}
    settings = {
        "architectures": ["UnitLM"],
        "base_config": base,
        "base_model_name": "Qwen/Qwen2.5-0.5B",
        "max_position_embeddings": positions,
        "model_type": "speech_language_model",
        "tie_word_embeddings": inner.config.tie_word_embeddings,
        "torch_dtype": "bfloat16",
        "twist_init": True,
        "use_cache": True,
        "vocab_size": num_units + 2,
    }
    (folder / "config.json").write_text(json.dumps(settings))
    return inner


def tiny_text_lm(folder: Path, family: str = "opt", *, vocab_size: int = 90, **options) -> PreTrainedModel:
    """Write a text model's folder, its special tokens those of OPT, as a warm start finds it."""
    specials = {"pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 2}
    model = tiny_model(family, vocab_size=vocab_size, **{**specials, **options})
    model.save_pretrained(folder)
    return model


def zipped(folder: Path) -> Path:
    """Pack a folder's files flat, as the published archives are; return the archive."""
    return Path(shutil.make_archive(str(folder), "zip", folder))
