"""The LoRA adapter: configuration, and what is kept of it."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from alignslm.config.models import ALL_LINEAR, Lora
from alignslm.lm.checkpoint import load_lm
from alignslm.lm.sharding import is_sharded
from alignslm.storage import filling, write_text


class AdapterError(ValueError):
    """A low-rank adapter cannot sit on the modules that it is meant for."""


_STATE_SPACE_TYPES = ("falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h")  # PEFT's own list


def lora_config(config: Lora, model: PreTrainedConfig) -> LoraConfig:
    """Return PEFT's form of the adapter of a model with this config. Raises AdapterError if it cannot be adapted.

    Adapter dropout is 0: policy and reference must be comparable.
    """
    settings = deepcopy(model)
    settings.distributed_config = None
    with torch.device("meta"):
        made = AutoModelForCausalLM.from_config(settings)
    if problem := _target_problem(config, made):
        raise AdapterError(f"lora.target_modules: {problem}")
    targets = config.target_modules if isinstance(config.target_modules, str) else list(config.target_modules)
    alpha: Any = int(config.alpha) if config.alpha.is_integer() else config.alpha  # PEFT types it int, and divides by r
    found = LoraConfig(
        r=config.r,
        lora_alpha=alpha,
        lora_dropout=0.0,
        target_modules=targets,
        exclude_modules=sorted(_bypassed(made)) or None if targets == ALL_LINEAR else None,
        task_type="CAUSAL_LM",
    )
    try:
        with torch.device("meta"):
            get_peft_model(made, deepcopy(found))
    except (ValueError, TypeError, AttributeError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise AdapterError(f"lora.target_modules: PEFT cannot adapt a {model.model_type} model: {reason}") from error
    return found


def _target_problem(config: Lora, model: PreTrainedModel) -> str | None:
    parts, output = dict(model.named_modules()), model.get_output_embeddings()
    linear = {
        name.rpartition(".")[-1]
        for name, part in parts.items()
        if isinstance(part, torch.nn.Linear | Conv1D) and part is not output
    }
    kind, choices = model.config.model_type, ", ".join(sorted(linear - _bypassed(model))) or "none"
    if config.target_modules == ALL_LINEAR:
        return None if linear else f"a {kind} model has no linear modules to adapt"
    found = {
        target: [part for name, part in parts.items() if f".{name}".endswith(f".{target}")]
        for target in config.target_modules
    }
    if missing := [target for target in found if not found[target]]:
        return f"a {kind} model has no {', '.join(missing)}; its linear modules are {choices}"
    if unread := sorted(_bypassed(model) & {target.rpartition(".")[-1] for target in found}):
        return f"a {kind} model would not read an adapter of {', '.join(unread)}; choose among {choices}"
    if tied := [target for target in found if any(part in _tied(model) for part in found[target])]:
        return (
            f"{', '.join(tied)} shares its weights with another module of this {kind} model "
            f"(tie_word_embeddings), which merging would change too; choose among {choices}"
        )
    return None


def _bypassed(model: PreTrainedModel) -> set[str]:
    """Return names of modules with weights that state-space code reads by itself: an adapter there would do nothing.

    Its merged weights would then differ from what was trained.
    """
    names = {name.rpartition(".")[-1] for name, _ in model.named_modules()}
    fused = {"conv1d", "out_proj"} if model.config.model_type in _STATE_SPACE_TYPES else set()
    return names & ({"dt_proj"} | fused)


def _tied(model: PreTrainedModel) -> list[torch.nn.Module]:
    table, output = model.get_input_embeddings(), model.get_output_embeddings()
    return [table, output] if output is not None and output.weight is table.weight else []


def unshard_base(model: PeftModel, base: Path) -> PeftModel:
    """Return an adapted model with all its weights: `model` itself if they are not sharded.

    Else its active adapter on the base read again from checkpoint folder `base`, in the CPU's memory: the base was
    frozen, so nothing is gathered and no process waits for another.
    """
    if not is_sharded(model):
        return model
    name, trained, read = str(model.active_adapter), model.get_base_model(), load_lm(base, device="cpu").model
    if not isinstance(trained, PreTrainedModel):
        raise TypeError(f"an adapter sits on a {type(trained).__name__}, expected a transformers model")
    read.config, read.generation_config = deepcopy(trained.config), trained.generation_config  # a trainer changes both
    read.config.distributed_config = None
    read.model_tags = trained.model_tags
    whole = get_peft_model(read, model.peft_config[name], adapter_name=name)
    if not isinstance(whole, PeftModel):
        raise TypeError(f"PEFT made a {type(whole).__name__}, expected an adapted model")
    set_peft_model_state_dict(whole, get_peft_model_state_dict(model, adapter_name=name), adapter_name=name)
    return whole


def save_adapter_and_merge(model: PeftModel, folder: Path) -> PreTrainedModel:
    """Save only the adapter into `folder`, then return the plain model with the adapter merged, in float32.

    Merged in bfloat16, weights would round away most of a small update, and another model than the selected one
    would be evaluated.
    The next round starts from the merged model with a fresh adapter: continuing a PeftModel would silently make
    the reference a copy of the adapter, and a reload by name would make it the old base.
    """
    with filling(folder) as partial:
        model.save_pretrained(str(partial))
        for file in partial.rglob("adapter_config.json"):
            sort_targets(file)
    return model.float().merge_and_unload()


def sort_targets(file: Path) -> None:
    """Sort the modules an adapter sits on: PEFT writes a set, whose order changes from process to process."""
    config = json.loads(file.read_text())
    if isinstance(config["target_modules"], list):
        config["target_modules"].sort()
    write_text(file, json.dumps(config, indent=2, sort_keys=True) + "\n")
