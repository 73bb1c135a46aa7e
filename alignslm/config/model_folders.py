"""Folders of models in transformers' form, looked into without loading weights: what would stop a stage hours later."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple
from zipfile import is_zipfile

from safetensors import SafetensorError, safe_open

from alignslm.config.ctranslate2_file import WEIGHTS_FILE, CTranslate2Error, read_variables
from alignslm.config.hubert import HubertEncoderConfig
from alignslm.config.llm_judges import CausalLMJudgeConfig
from alignslm.config.pretrained_lm import HFLMConfig, SlamLMConfig, TwistInitConfig, TwistLMConfig
from alignslm.config.speech_kmeans import SpeechKMeansConfig
from alignslm.config.whisper import FasterWhisperASRConfig, WhisperASRConfig

INDEX_SUFFIX = ".index.json"
FLOATS = ("F64", "F32", "F16", "BF16")
EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "word_embeddings.weight", "embed_in.weight", "embeddings.weight")
GENERATES = ("CausalLM", "LMHead", "ConditionalGeneration")  # ends or parts of the names of classes that write text
SETTINGS = ("*config.json", "tokenizer.json", f"*{INDEX_SUFFIX}")
LAYER = re.compile(r"\.(?:layers|h|blocks)\.(\d+)\.")
PICKLES = {".bin", ".pt", ".pth", ".pkl", ".ckpt"}
SLAM_OFFSET = 2  # <PAD> and <S> come before its units
SPEECH_ENCODERS = ("whisper", "hubert", "wav2vec2", "wavlm")
EXTRACTORS = ("preprocessor_config.json", "processor_config.json")
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")


class _Expected(NamedTuple):
    """What a stage expects in a folder: its model_type, whether it reads .bin, tokenizes, writes text; tokens, layers.

    `ctranslate2`: whether that form is "taken" too, "required", or None. `offset`: whether config.json says the first
    unit's token.
    """

    model_types: tuple[str, ...] = ()
    ctranslate2: Literal["taken", "required"] | None = None
    gguf: bool = False
    pickled: bool = True
    tokenizer: bool = False
    generates: bool = False
    offset: bool = False
    min_tokens: int = 0
    min_layers: int = 0


def model_folder_problems(config: object, folder: Path) -> list[str]:
    """Return what is wrong with the folder of a config's `weights`; nothing if the config is of no transformers model.

    Config, tokenizer, and the names, shapes, dtypes and completeness of the weights are read; no weight is loaded.
    """
    expected = _expected_of(config)
    try:
        return [] if expected is None else list(_problems(folder, expected))
    except (AttributeError, TypeError, OSError) as error:  # a list where a mapping is expected, a folder without rights
        return [f"{folder} cannot be read as a model ({error}); download it again"]


def _expected_of(config: object) -> _Expected | None:
    found: _Expected | None = None
    match config:
        case HFLMConfig():
            found = _Expected(generates=True, min_tokens=config.ids.offset + config.units.num_units)
        case TwistLMConfig():
            found = _Expected(offset=True, min_tokens=config.units.num_units)
        case SlamLMConfig():
            found = _Expected(
                ("speech_language_model",), pickled=False, min_tokens=SLAM_OFFSET + config.units.num_units
            )
        case TwistInitConfig():
            found = _Expected(generates=True)
        case CausalLMJudgeConfig():
            found = _Expected(pickled=False, tokenizer=True, generates=True, gguf=True)
        case WhisperASRConfig():
            found = _Expected(("whisper",), "taken", tokenizer=True)
        case SpeechKMeansConfig():
            found = _Expected(SPEECH_ENCODERS, "taken", min_layers=config.layer)
        case FasterWhisperASRConfig():
            found = _Expected(("whisper",), "required")
        case HubertEncoderConfig():
            found = _Expected(("hubert",), min_layers=config.layer)
    return found


def _problems(folder: Path, expected: _Expected) -> Iterator[str]:
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else [folder.name]
    if any(name.endswith(".gguf") for name in names) and "config.json" not in names:
        yield from _gguf_problems(folder, expected)
    elif expected.ctranslate2 and WEIGHTS_FILE in names and "model.safetensors" not in names:
        yield from _ctranslate2_problems(folder, names)
    elif expected.ctranslate2 == "required":
        yield f"{folder} has no {WEIGHTS_FILE}, which CTranslate2 needs; for other formats use kind: whisper"
    elif not folder.is_dir():
        yield f"{folder} is a file; use the folder with config.json and the weights"
    elif not names:
        yield f"{folder} is empty; download the model into it again"
    elif "config.json" not in names:
        yield _without_config(folder, names)
    elif isinstance(settings := read_json(folder / "config.json"), str):
        yield settings
    else:
        settings = {**(settings.get("base_config") or {}), **settings}  # of slamkit
        yield from _config_problems(folder, settings, expected)
        if expected.tokenizer:
            yield from _tokenizer_problems(folder, settings)
        yield from _weights_problems(folder, settings, expected)


def _gguf_problems(path: Path, expected: _Expected) -> Iterator[str]:
    if not expected.gguf:
        yield f"{path} is GGUF, which only judges read; name a folder with config.json and safetensors"
    elif path.is_dir():
        yield f"{path} contains GGUF files; choose one: {next(path.glob('*.gguf'))}"
    elif not _begins(path).startswith(b"GGUF"):
        yield f"{path} is not a GGUF file; download it again"


def _begins(file: Path) -> bytes:
    with file.open("rb") as stream:
        return stream.read(64)


def _ctranslate2_problems(folder: Path, names: list[str]) -> Iterator[str]:
    if absent := [name for name in ("config.json", "tokenizer.json") if name not in names]:
        yield f"{folder} has no {' and no '.join(absent)}; copy it from the model it was made of"
    try:
        read_variables(folder / WEIGHTS_FILE)
    except CTranslate2Error as error:
        yield str(error)


def settings_problems(folder: Path) -> list[str]:
    """Return what is wrong with the JSON files that transformers reads from a folder; it ignores some of them."""
    files = [path for name in SETTINGS for path in sorted(folder.glob(name))]
    return [found for file in files if isinstance(found := read_json(file), str)]


def _without_config(folder: Path, names: list[str]) -> str:
    adapter = read_json(folder / "adapter_config.json") if "adapter_config.json" in names else None
    if adapter is None:
        return f"{folder} has no config.json, so it is not a model in transformers' form; download it again"
    base = adapter.get("base_model_name_or_path") if isinstance(adapter, Mapping) else None
    return f"{folder} is an adapter of {base or 'an unknown model'} without its base; merge the two and name the result"


def read_json(file: Path) -> dict[str, Any] | str:
    """Return a JSON object, or what is wrong with its file."""
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        return f"{file} cannot be read as JSON ({error}); download it again"
    return found if isinstance(found, dict) else f"{file} is not a JSON object; download it again"


def _config_problems(folder: Path, settings: Mapping[str, Any], expected: _Expected) -> Iterator[str]:
    found, classes = settings.get("model_type"), settings.get("architectures") or []
    if expected.model_types and found not in expected.model_types:
        wanted = " or ".join(map(repr, expected.model_types))
        yield f"{folder} is a model of type {found!r}, expected {wanted}; name another model"
        return
    if found == "whisper" and not any((folder / name).is_file() for name in EXTRACTORS):
        yield f"{folder} has no {EXTRACTORS[0]}; copy it from the model it was made of"
    if expected.generates and classes and not any(word in str(name) for name in classes for word in GENERATES):
        yield f"{folder} is a {', '.join(map(str, classes))}, which is not a causal language model; name another model"
    if expected.offset and not isinstance(settings.get("offset"), int):
        yield f"{folder / 'config.json'} has no offset, so this is not a TWIST model; for another one use kind: hf"
        return
    size, needed = settings.get("vocab_size"), expected.min_tokens + (settings["offset"] if expected.offset else 0)
    if isinstance(size, int) and size < needed:
        yield f"{folder} has vocab_size {size}, but offset and units of the config need {needed} tokens"
    layers = settings.get("encoder_layers", settings.get("num_hidden_layers"))
    if isinstance(layers, int) and layers < expected.min_layers:
        yield f"{folder} has {layers} layers, but layer is {expected.min_layers} in the config"
    if "quantization_config" in settings:
        yield f"{folder} is quantized, which is not supported; use the model in float32, float16 or bfloat16"


def _tokenizer_problems(folder: Path, settings: Mapping[str, Any]) -> Iterator[str]:
    if not any((folder / name).is_file() for name in TOKENIZERS):
        yield f"{folder} has no tokenizer (none of {', '.join(TOKENIZERS)}); copy it from the model it was made of"
    file, size = folder / "tokenizer.json", settings.get("vocab_size")
    content = read_json(file) if file.is_file() else {}
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
    lacking = list(_missing_shards(folder, tuple(pattern.partition(".")[2] for pattern in patterns)))
    yield from lacking
    if not files and not lacking:
        others = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES)
        pickles = f"; reading a pickle ({', '.join(others[:3])}) may run code" if others else ""
        yield f"{folder} has no weights like {' or '.join(patterns)}{pickles}; name a model that has them"
    for file in files:
        if file.suffix == ".bin" and _begins(file).startswith(b"PK") and not is_zipfile(file):
            yield f"{file} is cut off; download it again"
    tensors: dict[str, tuple[str, list[int]]] = {}
    for file in files if files and files[0].suffix == ".safetensors" else ():
        try:
            with safe_open(file, framework="numpy") as opened:  # reads only the header
                parts = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118 - no mapping
                tensors |= {name: (part.get_dtype(), part.get_shape()) for name, part in parts.items()}
        except (SafetensorError, OSError) as error:
            yield f"{file} is damaged ({error}); download it again"
            return
    yield from _tensor_problems(folder, tensors, settings)


def _missing_shards(folder: Path, suffixes: tuple[str, ...]) -> Iterator[str]:
    for index in sorted(folder.glob(f"*{INDEX_SUFFIX}")):
        content = read_json(index) if index.name.removesuffix(INDEX_SUFFIX).endswith(suffixes) else {}
        if isinstance(content, str):
            yield content
            continue
        wanted = content.get("weight_map") or {}
        missing = sorted({str(name) for name in wanted.values() if not (folder / str(name)).is_file()})
        if missing:
            yield f"{index} names {len(missing)} files that are missing ({', '.join(missing[:3])}); download them"


def _tensor_problems(
    folder: Path, tensors: Mapping[str, tuple[str, list[int]]], settings: Mapping[str, Any]
) -> Iterator[str]:
    odd = {dtype for name, (dtype, _) in tensors.items() if name.endswith("weight")} - {*FLOATS}
    if odd and "quantization_config" not in settings:
        yield f"{folder} has weights of dtype {', '.join(sorted(odd))}; float32, float16 or bfloat16 is expected"
    numbers = [int(found[1]) for name in tensors if (found := LAYER.search(name))]
    layers, size = settings.get("num_hidden_layers"), settings.get("vocab_size")
    if numbers and isinstance(layers, int) and max(numbers) + 1 < layers:
        yield f"{folder} has weights of {max(numbers) + 1} of {layers} layers; download it again"
    for name, (_, shape) in tensors.items():
        if name.endswith(EMBEDDINGS) and "position" not in name and isinstance(size, int) and shape[0] < size:
            yield f"{folder}: {name} has {shape[0]} rows, vocab_size is {size}: config.json is of another model"
