"""A tiny Llama and its tokenizer as one GGUF file, as llama.cpp's converter writes it."""

import json
from pathlib import Path

import torch
from transformers import AutoTokenizer, LlamaForCausalLM

NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def write_gguf(file: Path, source: Path) -> Path:
    """Write the Llama of a folder in transformers' form, in float32."""
    from gguf import GGUFWriter, TokenType

    model, tokenizer = (
        LlamaForCausalLM.from_pretrained(source, dtype=torch.float32),
        AutoTokenizer.from_pretrained(source),
    )
    config, writer = model.config, GGUFWriter(str(file), "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([word for word, _ in vocabulary])
    writer.add_token_types([TokenType.CONTROL if one in special else TokenType.NORMAL for _, one in vocabulary])
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_chat_template(tokenizer.chat_template)
    for name, tensor in model.state_dict().items():
        writer.add_tensor(*_tensor(name, tensor, config))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def _tensor(name: str, tensor: torch.Tensor, config) -> tuple[str, object]:
    """Return llama.cpp's name and numbers: queries and keys of a head are interleaved, for its rotary embedding."""
    outer = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    path = name.removesuffix(".weight")
    if path in outer:
        return f"{outer[path]}.weight", tensor.numpy()
    _, _, layer, part = path.split(".", 3)
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}.get(NAMES[part])
    if heads:
        size = tensor.shape[0] // heads
        tensor = tensor.reshape(heads, 2, size // 2, -1).swapaxes(1, 2).reshape(tensor.shape).contiguous()
    return f"blk.{layer}.{NAMES[part]}.weight", tensor.numpy()
