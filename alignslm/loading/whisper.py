"""Whisper checkpoints of either format, for ASR models and encoders."""

from pathlib import Path
from typing import Any

from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration, WhisperProcessor, WhisperTokenizer

from alignslm.loading import load_pretrained
from alignslm.loading.ctranslate2 import WEIGHTS_FILE, is_ctranslate2, read_config, read_state

SETTINGS = ("*.json", "*.txt")
PATTERNS = (*SETTINGS, "model.safetensors", "model-*-of-*.safetensors")  # not model.fp32-*, the same again
PICKLED = (*SETTINGS, "pytorch_model*.bin", WEIGHTS_FILE)  # CTranslate2's is none


def read_model(path: Path, dtype: str) -> Any:
    """Load the weights, in evaluation mode, on the CPU. Raises WeightsError if some are missing."""
    if not is_ctranslate2(path):
        return load_pretrained(WhisperForConditionalGeneration, path, dtype=dtype)
    config, generation = read_config(path)
    model = load_pretrained(
        WhisperForConditionalGeneration, path, dtype=dtype, config=config, state_dict=read_state(path)
    )
    model.generation_config = generation
    return model


def read_processor(path: Path) -> WhisperProcessor:
    """Load tokenizer and feature extractor. Raises OSError or ValueError if files are missing."""
    if not is_ctranslate2(path):
        return WhisperProcessor.from_pretrained(path, local_files_only=True)
    return WhisperProcessor(read_extractor(path), WhisperTokenizer.from_pretrained(path, local_files_only=True))


def read_extractor(path: Path) -> Any:
    """Load the feature extractor alone. Raises OSError or ValueError if its file is missing."""
    if not is_ctranslate2(path):
        return WhisperFeatureExtractor.from_pretrained(path, local_files_only=True)
    config, _ = read_config(path)
    length_s = config.max_source_positions // 50  # two frames of 10 ms make a position
    return WhisperFeatureExtractor(feature_size=config.num_mel_bins, chunk_length=length_s)
