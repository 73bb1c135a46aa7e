"""The published formats of unit language models, each read as a model and the vocabulary of its token ids.

TWIST (arXiv 2305.13009) stores a text architecture over units: token id = unit + `offset` of config.json. slamkit wraps
a text architecture in its own class: config.json has model_type `speech_language_model` and the inner configuration
under `base_config`, and every weight's name starts with `lm.`; here the wrapper is removed, without slamkit. Any other
causal language model is loaded with the token ids that the config gives.
"""

import json
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
)

from alignslm.config.pretrained_lm import HFLMConfig, PublishedLm, SlamLMConfig, TwistInitConfig, TwistLMConfig
from alignslm.lm.checkpoint import CheckpointError
from alignslm.loading import load_pretrained, weights_errors
from alignslm.units import UnitVocabulary

SLAM_PAD_ID, SLAM_SEQUENCE_ID, SLAM_OFFSET = 0, 1, 2
"""<PAD>, <S> (begins and ends a sequence), and the id of unit 0 (slamkit, UnitTokeniser)."""
SLAM_MODEL_TYPE = "speech_language_model"
SLAM_PREFIX = "lm."


def load_published(config: PublishedLm, folder: Path) -> tuple[PreTrainedModel, UnitVocabulary]:
    """Load a published model and its vocabulary from its fetched folder.

    Raises CheckpointError if the folder is not in the config's format or does not have its units, WeightsError if
    weights are missing or do not fit.
    """
    settings, where = read_settings(folder), folder / "config.json"
    match config:
        case TwistLMConfig():
            vocabulary = _twist_vocabulary(config, settings, where)
        case HFLMConfig():
            vocabulary = _hf_vocabulary(config, settings.get("vocab_size"), where)
        case SlamLMConfig():
            inner, weights = _slam_config(config, settings, where), _slam_weights(folder)
            architecture = MODEL_FOR_CAUSAL_LM_MAPPING[type(inner)]
            model = load_pretrained(architecture, folder, dtype=config.dtype, config=inner, state_dict=weights)
            return model, _slam_vocabulary(config)
    return load_pretrained(AutoModelForCausalLM, folder, dtype=config.dtype), vocabulary


def model_config(config: PublishedLm | TwistInitConfig, folder: Path) -> PreTrainedConfig:
    """Return the config of a published model from its folder, as transformers reads it; no weight is read."""
    if isinstance(config, SlamLMConfig):
        return _slam_config(config, read_settings(folder), folder / "config.json")
    with weights_errors(folder, "a config"):
        found: PreTrainedConfig = AutoConfig.from_pretrained(folder, local_files_only=True)
    return found


def read_settings(folder: Path) -> dict[str, Any]:
    """Return config.json as it is written, without the defaults of a transformers class.

    OPT's class, for one, has token 2 as end of sequence even if the file does not.
    """
    settings = json.loads((folder / "config.json").read_text())
    if not isinstance(settings, dict):
        raise CheckpointError(f"{folder / 'config.json'} is not a mapping")
    return settings


def _twist_vocabulary(config: TwistLMConfig, settings: dict[str, Any], where: Path) -> UnitVocabulary:
    """Return the vocabulary, with `offset` and special tokens as in config.json."""
    offset, size = settings.get("offset"), settings.get("vocab_size")
    if not isinstance(offset, int) or offset < 0:
        raise CheckpointError(
            f"{where} has offset {offset!r}, so token ids cannot be mapped to units. "
            "A TWIST checkpoint has one; for any other model choose kind: hf and set ids.offset."
        )
    if not isinstance(size, int) or offset + config.units.num_units > size:
        raise CheckpointError(
            f"{where}: offset {offset} and vocab_size {size} leave no room for {config.units.num_units} units "
            "(units.num_units); the model was trained on fewer."
        )
    return UnitVocabulary(
        num_units=config.units.num_units,
        offset=offset,
        bos_id=_twist_special(config, settings, "bos", where) if config.bos == "config" else None,
        eos_id=_twist_special(config, settings, "eos", where) if config.eos == "config" else None,
        pad_id=_twist_pad(settings.get("pad_token_id"), size),
    )


def _twist_special(
    config: TwistLMConfig, settings: dict[str, Any], name: Literal["bos", "eos"], where: Path
) -> int | None:
    """Return a special token of config.json, None if it has none. The id of a unit cannot be special as well."""
    token, first = settings.get(f"{name}_token_id"), settings["offset"]
    if token is None:
        return None
    if not isinstance(token, int) or not 0 <= token < settings["vocab_size"]:
        raise CheckpointError(f"{where}: {name}_token_id {token!r} is not a token id; set {name}: none")
    if first <= token < first + config.units.num_units:
        raise CheckpointError(
            f"{where}: {name}_token_id {token} is also the id of unit {token - first} "
            f"(a leftover of the text model); set {name}: none"
        )
    return token


def _twist_pad(token: object, size: int) -> int:
    """Return an id to pad rows with. Padding is masked everywhere, so any token of the vocabulary will do, units too.

    The first LLaMA configs have -1, which is in no embedding.
    """
    return token if isinstance(token, int) and 0 <= token < size else 0


def _hf_vocabulary(config: HFLMConfig, size: object, where: Path) -> UnitVocabulary:
    ids, num_units = config.ids, config.units.num_units
    end = ids.offset + num_units
    if not isinstance(size, int) or end > size:
        raise CheckpointError(
            f"{where}: units would have the ids {ids.offset}..{end - 1} (ids.offset, units.num_units), "
            f"but vocab_size is {size}"
        )
    for name, token in (("bos", ids.bos), ("eos", ids.eos), ("pad", ids.pad)):
        if token is not None and token >= size:
            raise CheckpointError(f"{where}: ids.{name} is {token}, but vocab_size is {size}")
        if name != "pad" and token is not None and ids.offset <= token < end:
            raise CheckpointError(f"{where}: ids.{name} is {token}, which is also unit {token - ids.offset}")
    return UnitVocabulary(num_units=num_units, offset=ids.offset, bos_id=ids.bos, eos_id=ids.eos, pad_id=ids.pad)


def _slam_vocabulary(config: SlamLMConfig) -> UnitVocabulary:
    return UnitVocabulary(
        num_units=config.units.num_units,
        offset=SLAM_OFFSET,
        bos_id=SLAM_SEQUENCE_ID,
        eos_id=SLAM_SEQUENCE_ID,
        pad_id=SLAM_PAD_ID,
    )


def _slam_config(config: SlamLMConfig, settings: dict[str, Any], where: Path) -> PreTrainedConfig:
    """Return the configuration of the wrapped model, with the vocabulary it was resized to."""
    base = settings.get("base_config")
    if settings.get("model_type") != SLAM_MODEL_TYPE or not isinstance(base, dict) or "model_type" not in base:
        raise CheckpointError(
            f"{where} has model_type {settings.get('model_type')!r}, expected {SLAM_MODEL_TYPE!r} with the inner "
            "model's configuration under base_config. For a plain transformers folder choose kind: hf."
        )
    size, needed = settings.get("vocab_size", base.get("vocab_size")), SLAM_OFFSET + config.units.num_units
    if size != needed:
        raise CheckpointError(
            f"{where}: vocab_size is {size}, but <PAD>, <S> and {config.units.num_units} units make {needed}; correct "
            "units.num_units. (Models that interleave text and speech number their units otherwise: not supported.)"
        )
    specials = {"pad_token_id": SLAM_PAD_ID, "bos_token_id": SLAM_SEQUENCE_ID, "eos_token_id": SLAM_SEQUENCE_ID}
    for name, expected in specials.items():
        if base.get(name) not in {None, expected}:
            raise CheckpointError(
                f"{where}: base_config.{name} is {base[name]}, but slamkit's unit tokeniser has {expected}; "
                "the model was trained with another tokeniser, so its ids mean other units"
            )
    dropped = {"model_type", "vocab_size", "torch_dtype", "dtype", *specials}
    kept = {key: value for key, value in base.items() if key not in dropped}
    return AutoConfig.for_model(base["model_type"], **kept, vocab_size=size, **specials)


def _slam_weights(folder: Path) -> dict[str, torch.Tensor]:
    """Return the weights of the wrapped model, under its own names."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise CheckpointError(f"{folder} has no .safetensors file; save the model with slamkit again to get one")
    weights = {name: tensor for file in files for name, tensor in load_file(file).items()}
    foreign = sorted(name for name in weights if not name.startswith(SLAM_PREFIX))
    if foreign:
        raise CheckpointError(
            f"{folder}: {len(foreign)} of {len(weights)} weights do not start with {SLAM_PREFIX!r} ({foreign[0]}, "
            "...), so this is not slamkit's format. For a plain transformers folder choose kind: hf."
        )
    return {name.removeprefix(SLAM_PREFIX): tensor for name, tensor in weights.items()}
