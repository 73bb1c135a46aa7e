"""Folders of models in transformers' form, looked into without loading weights: what would stop a stage hours later."""

import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from alignslm.config.hubert import HubertEncoderConfig
from alignslm.config.llm_judges import CausalLMJudgeConfig
from alignslm.config.pretrained_lm import HFLMConfig, SlamLMConfig, TwistInitConfig, TwistLMConfig
from alignslm.config.whisper import WhisperASRConfig

INDEX_SUFFIX = ".index.json"
MAX_HEADER_BYTES = 100_000_000  # safetensors' own limit
FLOATS = ("F64", "F32", "F16", "BF16")
EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "word_embeddings.weight", "embed_in.weight", "embeddings.weight")
GENERATES = ("CausalLM", "LMHead", "ConditionalGeneration")  # ends or parts of the names of classes that write text
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")


class _Expected(NamedTuple):
    """What a stage wants of a folder: its model_type, whether it reads .bin, tokenizes, writes text; its tokens."""

    model_type: str | None = None
    pickled: bool = True
    tokenizer: bool = False
    generates: bool = False
    min_tokens: int = 0


def model_folder_problems(config: object, folder: Path) -> list[str]:
    """Return what is wrong with the folder of a config's `weights`; nothing if the config is of no transformers model.

    Config, tokenizer, and the names, shapes, dtypes and completeness of the weights are read; no weight is loaded.
    """
    expected = _expected_of(config)
    return [] if expected is None else list(_problems(folder, expected))


def _expected_of(config: object) -> _Expected | None:
    match config:
        case HFLMConfig() | TwistLMConfig():
            offset = config.ids.offset if isinstance(config, HFLMConfig) else 0  # TWIST's is in its config.json
            return _Expected(generates=isinstance(config, HFLMConfig), min_tokens=offset + config.units.num_units)
        case CausalLMJudgeConfig():
            return _Expected(pickled=False, tokenizer=True, generates=True)
        case WhisperASRConfig():
            return _Expected("whisper", tokenizer=True)
        case HubertEncoderConfig() | SlamLMConfig() | TwistInitConfig():
            return _Expected({"hubert": "hubert", "slam": "speech_language_model"}.get(config.kind))
    return None


def _problems(folder: Path, expected: _Expected) -> Iterator[str]:
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else [folder.name]
    if any(name.endswith(".gguf") for name in names) and "config.json" not in names:
        yield f"{folder} is GGUF; name a folder with config.json and safetensors, or serve it and use kind: openai"
    elif not folder.is_dir():
        yield f"{folder} is a file; name the folder that has config.json and the weights"
    elif not names:
        yield f"{folder} is empty; download the model into it again"
    elif "config.json" not in names:
        yield _without_config(folder, names)
    elif isinstance(settings := _read_json(folder / "config.json"), str):
        yield settings
    else:
        yield from _config_problems(folder, settings, expected)
        if expected.tokenizer:
            yield from _tokenizer_problems(folder, settings)
        yield from _weights_problems(folder, settings, expected)


def _without_config(folder: Path, names: list[str]) -> str:
    adapter = _read_json(folder / "adapter_config.json") if "adapter_config.json" in names else None
    if adapter is None:
        return f"{folder} has no config.json, so it is not a model in transformers' form; download it again"
    base = adapter.get("base_model_name_or_path") if isinstance(adapter, Mapping) else None
    return f"{folder} is an adapter of {base or 'an unknown model'} without its base; merge the two and name the result"


def _read_json(file: Path) -> dict[str, Any] | str:
    """Return a JSON object, or what is wrong with its file."""
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        return f"{file} cannot be read as JSON ({error}); download it again"
    return found if isinstance(found, dict) else f"{file} is not a JSON object; download it again"


def _config_problems(folder: Path, settings: Mapping[str, Any], expected: _Expected) -> Iterator[str]:
    found, classes = settings.get("model_type"), settings.get("architectures") or []
    if expected.model_type not in {None, found}:
        yield f"{folder} is a model of type {found!r}, expected {expected.model_type!r}; name another model"
    if expected.generates and classes and not any(word in str(name) for name in classes for word in GENERATES):
        yield f"{folder} is a {', '.join(map(str, classes))}, which is not a causal language model; name another model"
    size = settings.get("vocab_size")
    if isinstance(size, int) and size < expected.min_tokens:
        yield f"{folder} has vocab_size {size}, but offset and units of the config need {expected.min_tokens} tokens"
    if "quantization_config" in settings:
        yield f"{folder} is quantized, which is not read; name the model in float32, float16 or bfloat16"


def _tokenizer_problems(folder: Path, settings: Mapping[str, Any]) -> Iterator[str]:
    if not any((folder / name).is_file() for name in TOKENIZERS):
        yield f"{folder} has no tokenizer (none of {', '.join(TOKENIZERS)}); copy it from the model it was made of"
    file, size = folder / "tokenizer.json", settings.get("vocab_size")
    content = _read_json(file) if file.is_file() else {}
    if isinstance(content, str):
        yield content
    elif isinstance(size, int) and (highest := _highest_token(content)) >= size:
        yield f"{file} numbers tokens up to {highest}, but the model has a vocab_size of {size}: they are of two models"


def _highest_token(content: Mapping[str, Any]) -> int:
    vocabulary = (content.get("model") or {}).get("vocab") or {}
    numbers = vocabulary.values() if isinstance(vocabulary, Mapping) else range(len(vocabulary))
    added = [token.get("id", -1) for token in content.get("added_tokens") or []]
    return max((number for number in (*numbers, *added) if isinstance(number, int)), default=-1)


def _weights_problems(folder: Path, settings: Mapping[str, Any], expected: _Expected) -> Iterator[str]:
    patterns = ["*.safetensors", *(["pytorch_model*.bin"] if expected.pickled else [])]
    stored = ([path for path in sorted(folder.glob(one)) if "adapter_model" not in path.name] for one in patterns)
    files = next(filter(None, stored), [])
    lacking = list(_missing_shards(folder, [pattern.partition(".")[2] for pattern in patterns]))
    yield from lacking
    if not files and not lacking:
        others = [path.name for path in folder.iterdir() if path.suffix in {".bin", ".pt", ".pth", ".pkl", ".ckpt"}]
        wanted = f"needs {' or '.join(patterns)}"
        pickles = (
            f"; it has only pickles ({', '.join(sorted(others)[:3])}), whose reading may run code" if others else ""
        )
        yield f"{folder} has no weights: it {wanted}{pickles}"
    headers: dict[str, Any] = {}
    for file in files:
        header = read_header(file) if file.suffix == ".safetensors" else {}
        if isinstance(header, str):
            yield header
        else:
            headers |= header
    yield from _tensor_problems(folder, headers, settings)


def _missing_shards(folder: Path, suffixes: list[str]) -> Iterator[str]:
    for index in sorted(folder.glob(f"*{INDEX_SUFFIX}")):
        content = _read_json(index) if index.name.removesuffix(INDEX_SUFFIX).endswith(tuple(suffixes)) else {}
        if isinstance(content, str):
            yield content
            continue
        wanted = content.get("weight_map") or {}
        missing = sorted({str(name) for name in wanted.values() if not (folder / str(name)).is_file()})
        if missing:
            yield f"{index} names {len(missing)} files that are missing ({', '.join(missing[:3])}); download them"


def read_header(file: Path) -> dict[str, Any] | str:
    """Return dtype and shape of every tensor of a safetensors file, or what is wrong with it: cut, empty or junk."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        head = stream.read(8)
        length = struct.unpack("<Q", head)[0] if len(head) == 8 else MAX_HEADER_BYTES + 1
        if length > min(size - 8, MAX_HEADER_BYTES):
            return f"{file} is not a safetensors file, or is cut ({size} bytes); download it again"
        try:
            found = json.loads(stream.read(length))
            tensors = {name: part for name, part in found.items() if name != "__metadata__"}
            end = 8 + length + max((part["data_offsets"][1] for part in tensors.values()), default=0)
        except (ValueError, AttributeError, KeyError, IndexError, TypeError, RecursionError):
            return f"{file} is not a safetensors file; download it again"
    return tensors if size == end else f"{file} has {size} of its {end} bytes; download it again"


def _tensor_problems(folder: Path, tensors: Mapping[str, Any], settings: Mapping[str, Any]) -> Iterator[str]:
    odd = {str(part.get("dtype")) for name, part in tensors.items() if name.endswith("weight")} - {*FLOATS}
    if odd and "quantization_config" not in settings:
        yield f"{folder} has weights of dtype {', '.join(sorted(odd))}; float32, float16 or bfloat16 is expected"
    size = settings.get("vocab_size")
    for name, part in tensors.items():
        rows = (part.get("shape") or [size])[0]
        if name.endswith(EMBEDDINGS) and "position" not in name and isinstance(size, int) and rows < size:
            yield f"{folder}: {name} has {rows} rows, but vocab_size is {size}: config.json belongs to another model"
