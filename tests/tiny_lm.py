"""A two-layer unit language model with random weights, for tests of sampling, likelihood and training."""

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from alignslm.lm.checkpoint import UnitLm
from alignslm.provenance import UnitContract
from alignslm.units import UnitVocabulary

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


def tiny_lm(seed: int = 0) -> UnitLm:
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
    return UnitLm(LlamaForCausalLM(config).eval(), VOCABULARY, CONTRACT, f"tiny-{seed}")


def naive_log_probs(lm: UnitLm, ids: list[int]) -> list[float]:
    """Log p of every token after the first, one forward pass a token, in float64."""
    found = []
    with torch.no_grad():
        for at in range(1, len(ids)):
            logits = lm.model(torch.tensor([ids[:at]])).logits[0, -1].double()
            found.append(float(logits[ids[at]] - torch.logsumexp(logits, 0)))
    return found
