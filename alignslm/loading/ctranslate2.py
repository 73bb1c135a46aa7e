"""Whisper in CTranslate2's form (model.bin), as faster-whisper reads it, turned into transformers'."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from transformers import GenerationConfig, WhisperConfig

from alignslm.config.ctranslate2_file import WEIGHTS_FILE, read_variables

_NORM = {"gamma": "weight", "beta": "bias"}
_ATTENTION = {"self_attention": "self_attn", "attention": "encoder_attn"}


def is_ctranslate2(folder: Path) -> bool:
    """Return whether a folder contains a model in CTranslate2's format."""
    return (folder / WEIGHTS_FILE).is_file() and not any(folder.glob("*.safetensors"))


def read_state(folder: Path) -> dict[str, torch.Tensor]:
    """Return the weights by transformers' names, rounded ones in float32.

    Raises CTranslate2Error if the file is of another model, another format version or cut off.
    """
    return dict(_renamed(read_variables(folder / WEIGHTS_FILE)))


def read_config(folder: Path) -> tuple[WhisperConfig, GenerationConfig]:
    """Return the checkpoint's shape and how it is to decode. Raises CTranslate2Error."""
    found = read_variables(folder / WEIGHTS_FILE)
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    vocabulary, width = found["decoder/embeddings/weight"].shape
    tokens = _token_ids(folder)
    shape = {
        "vocab_size": vocabulary,
        "num_mel_bins": found["encoder/conv1/weight"].shape[1],
        "d_model": width,
        "max_source_positions": len(found["encoder/position_encodings/encodings"]),
        "max_target_positions": len(found["decoder/position_encodings/encodings"]),
        **{name: number for side in ("encoder", "decoder") for name, number in _sizes(found, side)},
    }
    suppressed = {"suppress_tokens": settings["suppress_ids"], "begin_suppress_tokens": settings["suppress_ids_begin"]}
    return WhisperConfig.from_dict({**shape, **tokens}), GenerationConfig.from_dict({**suppressed, **tokens})


def _sizes(found: dict[str, np.ndarray], side: str) -> Iterator[tuple[str, int]]:
    layers = {name.split("/")[1] for name in found if name.startswith(f"{side}/layer_") and "/ffn/" in name}
    yield f"{side}_layers", len(layers)
    yield f"{side}_attention_heads", int(found[f"{side}/num_heads"].item())
    yield f"{side}_ffn_dim", len(found[f"{side}/layer_0/ffn/linear_0/weight"])


def _token_ids(folder: Path) -> dict[str, int]:
    added = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["added_tokens"]
    ids = {token["content"]: token["id"] for token in added}
    end, start = ids["<|endoftext|>"], ids["<|startoftranscript|>"]
    return {"bos_token_id": end, "eos_token_id": end, "pad_token_id": end, "decoder_start_token_id": start}


def _float(name: str, found: dict[str, np.ndarray]) -> np.ndarray:
    """Return a weight as floating point: 16 bits of bfloat16 are a float32's upper ones; int8 is scaled row by row."""
    array, scale = found[name], found.get(f"{name}_scale")
    if array.dtype == np.uint16:
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array if scale is None else array / scale.reshape(-1, *[1] * (array.ndim - 1))


def _renamed(found: dict[str, np.ndarray]) -> Iterator[tuple[str, torch.Tensor]]:
    for name in found:
        if name.count("/") < 2 or name.endswith("_scale"):  # settings, and what int8 is scaled by
            continue
        side, *path = name.split("/")
        tensor = torch.from_numpy(np.array(_float(name, found)))  # a copy that may be written to
        prefix = f"model.{side}."
        if len(path) > 2:
            yield from _layer(f"{prefix}layers.{path[0].removeprefix('layer_')}.", path[1:], tensor)
        elif path[0] in {"conv1", "conv2"}:
            yield f"{prefix}{'.'.join(path)}", tensor
        elif path[0] == "layer_norm":
            yield f"{prefix}layer_norm.{_NORM[path[1]]}", tensor
        elif path[0] == "embeddings":
            yield f"{prefix}embed_tokens.weight", tensor
            yield "proj_out.weight", tensor
        elif path[0] == "position_encodings":
            yield f"{prefix}embed_positions.weight", tensor


def _layer(prefix: str, path: list[str], tensor: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the tensors of one of a layer's: keys, queries and values are one, and normalization comes first."""
    block, part, what = path
    if block == "ffn":
        inner = {"linear_0": "fc1", "linear_1": "fc2", "layer_norm": "final_layer_norm"}[part]
        yield f"{prefix}{inner}.{_NORM.get(what, what)}", tensor
        return
    name = f"{prefix}{_ATTENTION[block]}"
    if part == "layer_norm":
        yield f"{name}_layer_norm.{_NORM[what]}", tensor
        return
    fused = {("self_attention", "linear_0"): "qkv", ("attention", "linear_0"): "q", ("attention", "linear_1"): "kv"}
    projections = [f"{one}_proj" for one in fused.get((block, part), ())] or ["out_proj"]
    for one, piece in zip(projections, tensor.chunk(len(projections)), strict=True):
        if f"{one}.{what}" != "k_proj.bias":  # Whisper's keys have none; CTranslate2 writes zeros
            yield f"{name}.{one}.{what}", piece
