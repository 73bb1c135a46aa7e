"""The LoRA adapter: configuration, and what is kept of it."""

from pathlib import Path

from peft import LoraConfig, PeftModel
from transformers import PreTrainedModel

from alignslm.config.models import Lora


def lora_config(config: Lora) -> LoraConfig:
    """Return PEFT's form of the adapter. Adapter dropout is 0: policy and reference must be comparable."""
    targets = config.target_modules if isinstance(config.target_modules, str) else list(config.target_modules)
    return LoraConfig(
        r=config.r, lora_alpha=int(config.alpha), lora_dropout=0.0, target_modules=targets, task_type="CAUSAL_LM"
    )


def save_adapter_and_merge(model: PeftModel, folder: Path) -> PreTrainedModel:
    """Save the adapter alone into `folder`, then return the plain model with the adapter merged into its weights.

    The next round starts from the merged model with a fresh adapter: continuing a PeftModel would silently make
    the reference a copy of the adapter, and a reload by name would make it the old base.
    """
    model.save_pretrained(str(folder))
    return model.merge_and_unload()
