"""A causal language model and its tokenizer, from a folder in transformers' format."""

from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from alignslm.device import resolve_device
from alignslm.loading import load_pretrained, weights_errors

PATTERNS = ("*.json", "model*.safetensors", "*.model", "*.jinja", "merges.txt", "vocab.txt")


def load_causal(folder: Path, *, dtype: str, device: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load model and tokenizer, for evaluation. Raises WeightsError.

    The checkpoint's own sampling defaults (temperature, repetition penalty, ...) are left out: the config says how to
    decode. No code of the checkpoint is run.
    """
    with weights_errors(folder, "a tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = load_pretrained(AutoModelForCausalLM, folder, dtype=dtype, use_safetensors=True)
    ends = model.generation_config.eos_token_id
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id if ends is None else ends)
    return model.to(resolve_device(device)), tokenizer
