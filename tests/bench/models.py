"""Models of a chosen size with random weights: speed does not depend on what a model has learnt."""

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from transformers import LlamaConfig, LlamaForCausalLM, OPTConfig, OPTForCausalLM, PreTrainedModel

from alignslm.lm.checkpoint import UnitLM, disable_dropout
from alignslm.provenance import UnitContract
from alignslm.units import UnitVocabulary

Size: TypeAlias = Literal["tiny", "25m", "twist-1.3b", "twist-7b"]
RATE_HZ, FRAMES_HZ = 16_000, 25.0
POSITIONS = 2048


@dataclass(frozen=True)
class Shape:
    """Sizes of a decoder, and how much work a benchmark of it gets: 1 is what two cores do in some seconds."""

    family: Literal["llama", "opt"]
    hidden: int
    layers: int
    heads: int
    inner: int
    num_units: int
    work: int
    dtype: torch.dtype


SHAPES: dict[Size, Shape] = {
    "tiny": Shape("llama", 32, 2, 2, 64, 20, 1, torch.float32),  # for tests
    "25m": Shape("llama", 512, 6, 8, 2048, 100, 1, torch.float32),
    "twist-1.3b": Shape("opt", 2048, 24, 32, 8192, 500, 8, torch.bfloat16),
    "twist-7b": Shape("llama", 4096, 32, 32, 11008, 500, 8, torch.bfloat16),
}


def decoder(shape: Shape, *, vocab_size: int, device: str) -> PreTrainedModel:
    """Return a causal language model in evaluation mode; equal calls, equal weights."""
    torch.manual_seed(0)
    shared: dict[str, Any] = {"vocab_size": vocab_size, "hidden_size": shape.hidden, "num_hidden_layers": shape.layers}
    shared |= {"num_attention_heads": shape.heads, "max_position_embeddings": POSITIONS}
    shared |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    with torch.device(device):
        model = (
            OPTForCausalLM(OPTConfig(ffn_dim=shape.inner, word_embed_proj_dim=shape.hidden, **shared))
            if shape.family == "opt"
            else LlamaForCausalLM(LlamaConfig(intermediate_size=shape.inner, **shared))
        )
    disable_dropout(model)
    return model.eval().to(shape.dtype)


def unit_lm(shape: Shape, *, device: str) -> UnitLM:
    """Return a unit language model. An end comes once in about `num_units` draws, as in the embedded experiment."""
    vocabulary = UnitVocabulary(num_units=shape.num_units, offset=3, bos_id=1, eos_id=2, pad_id=0)
    model = decoder(shape, vocab_size=3 + shape.num_units, device=device)
    return UnitLM(model, vocabulary, contract(shape.num_units), "bench")


def contract(num_units: int) -> UnitContract:
    """Return a contract for units that no encoder made."""
    return UnitContract(
        encoder="bench",
        revision="1",
        sample_rate_hz=RATE_HZ,
        frame_rate_hz=FRAMES_HZ,
        layer=None,
        padding="none",
        codebook_sha256="00",
        num_units=num_units,
        deduplicated=True,
    )


def token_flop(shape: Shape, *, vocab_size: int, positions: float) -> float:
    """Return flop to read one token when `positions` tokens are attended to: two a weight, four a position and size."""
    gates = 3 if shape.family == "llama" else 2
    weights = shape.layers * (4 * shape.hidden**2 + gates * shape.hidden * shape.inner) + vocab_size * shape.hidden
    return 2.0 * weights + 4.0 * shape.layers * shape.hidden * positions


def weight_bytes(model: torch.nn.Module) -> int:
    """Return what a model's weights take."""
    return sum(weight.numel() * weight.element_size() for weight in model.parameters())
