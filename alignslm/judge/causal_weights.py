"""A causal language model and its tokenizer, from a folder in transformers' format or a GGUF file."""

from pathlib import Path

from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    GgufConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from alignslm.device import resolve_device
from alignslm.extras import needed
from alignslm.loading import load_pretrained, weights_errors
from alignslm.storage import replacing_folder

PATTERNS = ("*.json", "model*.safetensors", "*.model", "*.jinja", "merges.txt", "vocab.txt")


FOLDER = "model"  # of a judge's artifact: what a GGUF file becomes
SUFFIX = ".gguf"


def dequantize(file: Path, folder: Path, *, dtype: str) -> Path:
    """Write the model of a GGUF file, dequantized, with its tokenizer, in transformers' format; return the folder.

    Raises WeightsError, or MissingPackageError if the package gguf is not installed.
    """
    with needed("gguf", by="a GGUF file"):
        pass  # transformers reads GGUF through it
    with weights_errors(file, "a tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name, local_files_only=True)
    packed = GgufConfig(dequantize=True)
    model = load_pretrained(
        AutoModelForCausalLM, file.parent, dtype=dtype, gguf_file=file.name, quantization_config=packed
    )
    with replacing_folder(folder) as partial:
        tokenizer.save_pretrained(partial)
        model.save_pretrained(partial)
    return folder


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
