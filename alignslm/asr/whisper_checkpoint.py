"""A Whisper checkpoint: fetched, verified, loaded, and how it is to decode."""

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import TypeVar

from transformers import GenerationConfig, WhisperConfig, WhisperProcessor
from transformers.models.whisper.tokenization_whisper import TO_LANGUAGE_CODE

from alignslm.asr import ASRError
from alignslm.config.model import Config
from alignslm.config.whisper import AnyWhisperConfig, WhisperASRConfig
from alignslm.fetching import download, download_recorded
from alignslm.integrity import read_json
from alignslm.loading.whisper import PATTERNS, PICKLED, read_model, read_processor
from alignslm.storage import write_text

MULTILINGUAL_TOKENS = 51865  # the published multilingual checkpoints have at least so many, the English ones fewer
CONFIG_FILE, SOURCE_FILE = "recogniser.json", "source.json"


AnyConfig = TypeVar("AnyConfig", bound=AnyWhisperConfig)


class Origin(Config):
    """Identity of the checkpoint's files when it was prepared; see `alignslm.fetching.Fetched.identity`."""

    weights: str


def fetch(config: WhisperASRConfig, folder: Path) -> dict[str, float]:
    """Fetch a checkpoint, verify that it matches the config, and write config and identity to `folder`.

    The weights stay in the cache they were fetched to. ASRError if they do not fit.
    """
    weights = download(config.weights, patterns=PATTERNS, pickled=PICKLED)
    model, processor = read_model(weights.path, config.dtype), load_processor(weights.path, config)
    decoder_prompt(config, processor, model.config, model.generation_config)
    record(folder, config, weights.identity)
    return {"million_parameters": model.num_parameters() / 1e6}


def record(folder: Path, config: AnyWhisperConfig, identity: str) -> None:
    """Leave in `folder` what `find` reads."""
    write_text(folder / CONFIG_FILE, config.model_dump_json(indent=2) + "\n")
    write_text(folder / SOURCE_FILE, Origin(weights=identity).model_dump_json(indent=2) + "\n")


def load_processor(path: Path, config: AnyWhisperConfig) -> WhisperProcessor:
    """Load tokenizer and feature extractor. ASRError if files are missing or the sample rate is another."""
    try:
        processor = read_processor(path)
    except (OSError, ValueError) as error:
        raise ASRError(f"{path} has no Whisper tokenizer and feature extractor: {error}") from error
    rate_hz = processor.feature_extractor.sampling_rate
    if rate_hz != config.sample_rate_hz:
        raise ASRError(f"{path} expects audio at {rate_hz} Hz, but sample_rate_hz is {config.sample_rate_hz}")
    return processor


def decoder_prompt(
    config: AnyWhisperConfig, processor: WhisperProcessor, model: WhisperConfig, generation: GenerationConfig
) -> list[int]:
    """Return the tokens that every decoding starts with: start, language and task, no time stamps.

    ASRError if the checkpoint does not know them, or they leave too few positions for `max_new_tokens`.
    """
    vocabulary = processor.tokenizer.get_vocab()
    by_size = model.vocab_size >= MULTILINGUAL_TOKENS or config.language is not None
    several = bool(getattr(generation, "is_multilingual", by_size))  # a folder without generation_config.json
    if several and (config.language is None or config.task is None):
        raise ASRError("the checkpoint knows several languages and would guess: set language and task")
    if not several and (config.language is not None or config.task is not None):
        raise ASRError("the checkpoint is English-only: set language: null and task: null")
    names = ["<|startoftranscript|>"]
    if config.language is not None:
        names += [f"<|{TO_LANGUAGE_CODE.get(config.language.lower(), config.language.lower())}|>", f"<|{config.task}|>"]
    names.append("<|notimestamps|>")
    if unknown := [name for name in names if name not in vocabulary]:
        language = f"correct language (now {config.language})"
        raise ASRError(f"the checkpoint's tokenizer does not know {unknown[0]}; {language}")
    found = (vocabulary[names[0]], processor.tokenizer.eos_token_id)
    if found != (wanted := (model.decoder_start_token_id, model.eos_token_id)):
        raise ASRError(
            f"the tokenizer numbers start and end of text {found}, the model {wanted}: they are not of one checkpoint, "
            "or tokenizer.json (or vocab.json and merges.txt) is missing"
        )
    positions = model.max_target_positions
    if len(names) + config.max_new_tokens > positions:
        raise ASRError(
            f"max_new_tokens is {config.max_new_tokens}, but the decoder has {positions} positions, "
            f"{len(names)} of them for its prompt: at most {positions - len(names)}"
        )
    return [vocabulary[name] for name in names]


def find(
    folder: Path, kind: type[AnyConfig], *, patterns: Sequence[str] = PATTERNS, pickled: Sequence[str] = PICKLED
) -> tuple[AnyConfig, Path]:
    """Return the config that `record` left in `folder` and the very files it was made with."""
    config, origin = read_json(folder / CONFIG_FILE, kind), read_json(folder / SOURCE_FILE, Origin)
    return config, download_recorded(config.weights, origin.weights, patterns=patterns, pickled=pickled)


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
