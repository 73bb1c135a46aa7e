"""A tiny Whisper folder in its public form: model, tokenizer, feature extractor and decoding settings."""

from pathlib import Path

import torch
from transformers import (
    GenerationConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperTokenizer,
)
from transformers.convert_slow_tokenizer import bytes_to_unicode

from alignslm.config.whisper import WhisperASRConfig

RATE_HZ = 16000
PIECE_S = 1  # the published models hear 30 s at once; everything else follows from this number
LANGUAGES = ("<|en|>", "<|de|>")
SPECIALS = (
    "<|startoftranscript|>",
    *LANGUAGES,
    "<|translate|>",
    "<|transcribe|>",
    "<|startoflm|>",
    "<|startofprev|>",
    "<|nospeech|>",
    "<|notimestamps|>",
)
UNSPOKEN = [byte for byte in range(256) if chr(byte) not in " abcdefghijklmnopqrstuvwxyzABC.,'"]
MERGES = (("Ġ", "t"), ("h", "e"), ("Ġt", "he"), ("o", "a"), ("b", "oa"), ("Ġ", "boa"))
MAX_TOKENS = 12
END_GAIN = 1.0  # the end of text is likelier than other tokens, so that texts are of several lengths


def tokenizer() -> WhisperTokenizer:
    """Return a byte-level tokenizer with a few merges and Whisper's special tokens after them, as published."""
    vocab = {letter: byte for byte, letter in bytes_to_unicode().items()}
    for first, second in MERGES:
        vocab[first + second] = len(vocab)
    vocab["<|endoftext|>"] = len(vocab)
    made = WhisperTokenizer(vocab=vocab, merges=list(MERGES))
    made.add_special_tokens({"additional_special_tokens": list(SPECIALS)})
    return made


def random_model(words: WhisperTokenizer, *, seed: int) -> WhisperForConditionalGeneration:
    """Return a model of two layers whose texts end at various lengths and depend on what it hears."""
    end, start = words.eos_token_id, words.convert_tokens_to_ids("<|startoftranscript|>")
    torch.manual_seed(seed)
    model = WhisperForConditionalGeneration(
        WhisperConfig(
            vocab_size=len(words),
            num_mel_bins=80,
            d_model=24,
            encoder_layers=2,
            decoder_layers=2,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=48,
            decoder_ffn_dim=48,
            max_source_positions=50 * PIECE_S,
            max_target_positions=24,
            init_std=0.4,
            pad_token_id=end,
            bos_token_id=end,
            eos_token_id=end,
            decoder_start_token_id=start,
        )
    )
    with torch.no_grad():
        model.get_decoder().embed_tokens.weight[end] = END_GAIN * torch.randn(24)
    return model.eval()


def write_whisper(folder: Path, *, seed: int = 2, multilingual: bool = True) -> Path:
    """Write what a repository of a published Whisper holds, as far as transformers reads it."""
    words = tokenizer()
    numbers = {name: words.convert_tokens_to_ids(name) for name in SPECIALS}
    model = random_model(words, seed=seed)
    languages = {
        "is_multilingual": True,
        "lang_to_id": {name: numbers[name] for name in LANGUAGES},
        "task_to_id": {name: numbers[f"<|{name}|>"] for name in ("transcribe", "translate")},
    }
    model.generation_config = GenerationConfig(
        decoder_start_token_id=numbers["<|startoftranscript|>"],
        bos_token_id=words.eos_token_id,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.eos_token_id,
        max_length=24,
        suppress_tokens=[*numbers.values(), *UNSPOKEN],  # published ones suppress what is not speech, such as brackets
        begin_suppress_tokens=[ord(" "), words.eos_token_id],
        no_timestamps_token_id=numbers["<|notimestamps|>"],
        return_timestamps=False,
        **(languages if multilingual else {"is_multilingual": False}),
    )
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=80, chunk_length=PIECE_S).save_pretrained(folder)
    return folder


def config_of(folder: Path, **changes: object) -> WhisperASRConfig:
    """Return the choice of a checkpoint written by `write_whisper`."""
    values = {
        "kind": "whisper",
        "weights": {"kind": "folder", "path": str(folder)},
        "language": "en",
        "task": "transcribe",
        "num_beams": 1,
        "max_new_tokens": MAX_TOKENS,
        "text": "raw",
        "sample_rate_hz": RATE_HZ,
        "silence_rms": 0.001,
        "no_speech_threshold": None,
        "logprob_threshold": None,
        "compression_ratio_threshold": None,
        "confidence_threshold": None,
        "dtype": "float32",
    }
    return WhisperASRConfig.model_validate({**values, **changes})


def write_ctranslate2(folder: Path, source: Path, *, quantization: str = "float32") -> Path:
    """Convert a folder of `write_whisper` as faster-whisper's models were made."""
    from ctranslate2.converters import TransformersConverter

    copied = ["tokenizer.json"]
    TransformersConverter(str(source), copy_files=copied).convert(str(folder), quantization=quantization)
    return folder
