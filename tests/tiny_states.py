"""Two or three layers of architectures that keep states, and of some that look ahead or keep their states elsewhere."""

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

_FEW = {
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
}
_DELTA = {
    "head_dim": 8,
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "layer_types": ["linear_attention", "full_attention"],
}
_SSM = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_n_groups": 1, "mamba_d_state": 8, "mamba_chunk_size": 4}
_EXPERTS = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
}
STATES = {
    "mamba": {"num_hidden_layers": 2, "state_size": 4},
    "mamba2": {"num_hidden_layers": 2, "state_size": 4, "num_heads": 8, "head_dim": 8, "n_groups": 2, "chunk_size": 4},
    "falcon_mamba": {"num_hidden_layers": 2, "state_size": 4},
    "qwen3_next": _FEW | _DELTA | _EXPERTS,
    "qwen3_5_text": _FEW | _DELTA,
    "lfm2": _FEW | {"layer_types": ["conv", "full_attention"]},
    "granitemoehybrid": _FEW
    | _SSM
    | {"layer_types": ["mamba", "attention"], "num_local_experts": 0, "shared_intermediate_size": 48},
    "falcon_h1": _FEW | _SSM | {"mamba_d_ssm": 64, "head_dim": 8},
    "jamba": _FEW
    | {
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "expert_layer_period": 2,
        "expert_layer_offset": 1,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "mamba_d_state": 4,
        "mamba_dt_rank": 4,
        "use_mamba_kernels": False,
    },
    "olmo_hybrid": _FEW | _DELTA,
    "bamba": _FEW | _SSM | {"attn_layer_indices": [1]},  # takes positions from what it is given, not from its cache
}
REFUSED = {
    "rwkv": {"num_hidden_layers": 2},
    "recurrent_gemma": {
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "intermediate_size": 96,
        "lru_width": 32,
        "attention_window_size": 16,
    },
    "bert": {"num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48},
    "minimax": _FEW
    | {"head_dim": 8, "num_local_experts": 4, "layer_types": ["linear_attention", "full_attention"], "block_size": 4},
    "xlstm": {"num_hidden_layers": 2, "num_heads": 4, "embedding_dim": 32, "num_blocks": 2},
}
ATTENTION = {
    "gpt2": {"n_layer": 2, "n_head": 4, "n_positions": 64},
    "gpt_neox": _FEW,
    "bloom": {"n_layer": 2, "n_head": 4},
    "phi": _FEW,
    "gemma3_text": _FEW | {"head_dim": 8, "sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"]},
    "mixtral": _FEW | {"num_local_experts": 4},
    "smollm3": _FEW,
}


def tiny_by_name(name: str, *, vocab_size: int, **options) -> PreTrainedModel:
    """Return a model with random weights that are large enough for memory to matter."""
    torch.manual_seed(0)
    known = {**STATES, **REFUSED, **ATTENTION}[name]
    shared = {
        "vocab_size": vocab_size,
        "hidden_size": 32,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": 0,
    }
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(name, **{**shared, **known, **options})).eval()
    for weight in model.parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=0.2)
    return model
