"""A Whisper checkpoint in transformers' form: fetched, verified, loaded, and how it is to decode."""

from copy import deepcopy
from pathlib import Path
from typing import Any

from transformers import GenerationConfig, WhisperForConditionalGeneration, WhisperProcessor
from transformers.models.whisper.tokenization_whisper import TO_LANGUAGE_CODE

from alignslm.asr import ASRError
from alignslm.config.model import Config
from alignslm.config.whisper import WhisperASRConfig
from alignslm.fetching import download, download_recorded
from alignslm.integrity import read_json
from alignslm.loading import load_pretrained
from alignslm.storage import write_text

_SETTINGS = ("*.json", "*.txt")
PATTERNS = (*_SETTINGS, "model.safetensors", "model-*-of-*.safetensors")  # not model.fp32-*, the same again
PICKLED = (*_SETTINGS, "pytorch_model*.bin")
MULTILINGUAL_TOKENS = 51865  # the published multilingual checkpoints have at least so many, the English ones fewer
CONFIG_FILE, SOURCE_FILE = "recogniser.json", "source.json"


class Origin(Config):
    """What the checkpoint's files were when it was prepared; see `alignslm.fetching.Fetched.identity`."""

    weights: str


def fetch(config: WhisperASRConfig, folder: Path) -> dict[str, float]:
    """Fetch a checkpoint, verify that it is what the config says, and leave config and identity in `folder`.

    The weights stay in the cache they were fetched to. ASRError if they do not fit.
    """
    weights = download(config.weights, patterns=PATTERNS, pickled=PICKLED)
    model, processor = load_model(weights.path, config), load_processor(weights.path, config)
    decoder_prompt(config, processor, model)
    write_text(folder / CONFIG_FILE, config.model_dump_json(indent=2) + "\n")
    write_text(folder / SOURCE_FILE, Origin(weights=weights.identity).model_dump_json(indent=2) + "\n")
    return {"million_parameters": model.num_parameters() / 1e6}


def load_processor(path: Path, config: WhisperASRConfig) -> WhisperProcessor:
    """Load tokenizer and feature extractor. ASRError if files are missing or the sample rate is another."""
    try:
        processor = WhisperProcessor.from_pretrained(path, local_files_only=True)
    except (OSError, ValueError) as error:
        raise ASRError(f"{path} has no Whisper tokenizer and feature extractor: {error}") from error
    rate_hz = processor.feature_extractor.sampling_rate
    if rate_hz != config.sample_rate_hz:
        raise ASRError(f"{path} hears {rate_hz} Hz, but sample_rate_hz is {config.sample_rate_hz}")
    return processor


def load_model(path: Path, config: WhisperASRConfig) -> Any:
    """Load the weights, in evaluation mode, on the CPU. Raises WeightsError if some are missing."""
    return load_pretrained(WhisperForConditionalGeneration, path, dtype=config.dtype)


def decoder_prompt(config: WhisperASRConfig, processor: WhisperProcessor, model: Any) -> list[int]:
    """Return the tokens that every decoding starts with: start, language and task, no time stamps.

    ASRError if the checkpoint does not know them, or they leave too few positions for `max_new_tokens`.
    """
    vocabulary, generation = processor.tokenizer.get_vocab(), model.generation_config
    unknown = model.config.vocab_size >= MULTILINGUAL_TOKENS or config.language is not None
    several = bool(getattr(generation, "is_multilingual", unknown))  # a folder without generation_config.json
    if several and (config.language is None or config.task is None):
        raise ASRError("the checkpoint knows several languages and would guess: set language and task")
    if not several and (config.language is not None or config.task is not None):
        raise ASRError("the checkpoint is English-only and takes neither: set language: null and task: null")
    names = ["<|startoftranscript|>"]
    if config.language is not None:
        names += [f"<|{TO_LANGUAGE_CODE.get(config.language.lower(), config.language.lower())}|>", f"<|{config.task}|>"]
    names.append("<|notimestamps|>")
    if unknown := [name for name in names if name not in vocabulary]:
        language = f"correct language (now {config.language})"
        raise ASRError(f"the checkpoint's tokenizer does not know {unknown[0]}; {language}")
    found = (vocabulary[names[0]], processor.tokenizer.eos_token_id)
    if found != (wanted := (model.config.decoder_start_token_id, model.config.eos_token_id)):
        raise ASRError(
            f"the tokenizer numbers start and end of text {found}, the model {wanted}: they are not of one checkpoint, "
            "or tokenizer.json (or vocab.json and merges.txt) is missing"
        )
    positions = model.config.max_target_positions
    if len(names) + config.max_new_tokens > positions:
        raise ASRError(
            f"max_new_tokens is {config.max_new_tokens}, but the decoder has {positions} positions, "
            f"{len(names)} of them for its prompt: at most {positions - len(names)}"
        )
    return [vocabulary[name] for name in names]


def find(folder: Path) -> tuple[WhisperASRConfig, Path]:
    """Return the config that `fetch` left in `folder` and the very files it was made with, fetched again if need be."""
    config, origin = read_json(folder / CONFIG_FILE, WhisperASRConfig), read_json(folder / SOURCE_FILE, Origin)
    return config, download_recorded(config.weights, origin.weights, patterns=PATTERNS, pickled=PICKLED)


def decoding(config: WhisperASRConfig, published: GenerationConfig, *, prompt_tokens: int) -> GenerationConfig:
    """Return the checkpoint's decoding settings (suppressed tokens, special ids) with this config's in their place."""
    settings = deepcopy(published)
    settings.update(
        max_length=prompt_tokens + config.max_new_tokens,
        max_new_tokens=None,
        num_beams=config.num_beams,
        do_sample=False,
        forced_decoder_ids=None,  # older checkpoints': the prompt is given instead
        return_dict_in_generate=False,
    )
    return settings
