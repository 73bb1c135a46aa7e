"""The LoRA adapter: configuration, and what is kept of it."""

import json
from copy import deepcopy
from pathlib import Path

from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from transformers import PreTrainedModel

from alignslm.config.models import Lora
from alignslm.lm.checkpoint import load_lm
from alignslm.lm.sharding import is_sharded
from alignslm.storage import filling, write_text


def lora_config(config: Lora) -> LoraConfig:
    """Return PEFT's form of the adapter. Adapter dropout is 0: policy and reference must be comparable."""
    targets = config.target_modules if isinstance(config.target_modules, str) else list(config.target_modules)
    return LoraConfig(
        r=config.r, lora_alpha=int(config.alpha), lora_dropout=0.0, target_modules=targets, task_type="CAUSAL_LM"
    )


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
    """Save only the adapter into `folder`, then return the plain model with the adapter merged into its weights.

    The next round starts from the merged model with a fresh adapter: continuing a PeftModel would silently make
    the reference a copy of the adapter, and a reload by name would make it the old base.
    """
    with filling(folder) as partial:
        model.save_pretrained(str(partial))
        for file in partial.rglob("adapter_config.json"):
            _sort_targets(file)
    return model.merge_and_unload()


def _sort_targets(file: Path) -> None:
    """Sort the modules an adapter sits on: PEFT writes a set, whose order changes from process to process."""
    config = json.loads(file.read_text())
    if isinstance(config["target_modules"], list):
        config["target_modules"].sort()
    write_text(file, json.dumps(config, indent=2, sort_keys=True) + "\n")
