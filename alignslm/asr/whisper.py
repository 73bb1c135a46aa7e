"""The paper's ASR model: a Whisper checkpoint, decoded in batches (paper, section 3, step 4).

Whisper reads 30 s: every recording is padded to that length separately, so other lengths in the batch change
nothing. Longer recordings are cut into consecutive pieces of 30 s, each transcribed separately and the
texts joined; a word on a cut may be lost. In bfloat16 two nearly equal tokens may still be decided differently in
another batch.
"""

import re
import unicodedata
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor, nn
from transformers import GenerationMixin, StoppingCriteriaList, WhisperProcessor
from transformers.modeling_outputs import BaseModelOutput

from alignslm.asr import Transcript
from alignslm.asr.whisper_checkpoint import decoder_prompt, decoding, find, load_processor
from alignslm.audio import rms
from alignslm.config.whisper import AnyWhisperConfig, WhisperASRConfig
from alignslm.device import exact_float32, planless_attention, resolve_device
from alignslm.loading.whisper import read_model
from alignslm.progress import track

BATCH_ROWS = 32  # large-v2 in bfloat16 keeps about 250 MB of keys and values per row
NO_SPEECH_TOKENS = ("<|nospeech|>", "<|nocaptions|>")  # since large-v3, and before
CHECKED_EVERY = 32  # tokens, for whether the text repeats itself
DECIMALS = 4  # beyond what another batch changes


class DecodedSegment(NamedTuple):
    """One piece of at most 30 s: text, summed log-probability and number of its tokens, end of text included."""

    text: str
    logprob: float
    num_tokens: int
    no_speech_prob: float | None


def normalize_text(text: str) -> str:
    """Return lower-case words parted by one space, without punctuation; apostrophes inside words stay."""
    folded = unicodedata.normalize("NFKC", text).lower().replace("\u2019", "'")
    return " ".join(re.findall(r"[^\W_]+(?:'[^\W_]+)*", folded))


def compression_ratio(text: str) -> float:
    """Return the bytes of a text over its bytes after zlib, as OpenAI's decoding measures repetition."""
    plain = text.encode()
    return len(plain) / len(zlib.compress(plain))


def above(value: float | None, limit: float | None) -> bool:
    """Return whether a value exceeds a limit; an unknown value or limit does not."""
    return value is not None and limit is not None and value > limit


class WhisperASR:
    """A Whisper checkpoint. Confidence is the geometric mean of the probabilities of the text's tokens, end included.

    Of several pieces, the lowest no-speech probability and the highest compression ratio are reported.
    """

    def __init__(self, config: WhisperASRConfig, processor: WhisperProcessor, model: Any, *, device: str) -> None:
        self.sample_rate_hz = config.sample_rate_hz
        self._config: AnyWhisperConfig = config
        self._processor = processor
        self._prompt = decoder_prompt(config, processor, model.config, model.generation_config)
        self._device = torch.device(resolve_device(device))
        self._model = model.eval().to(self._device)
        self._generation = decoding(config, model.generation_config, prompt_tokens=len(self._prompt))
        vocabulary = processor.tokenizer.get_vocab()
        self._no_speech = next((vocabulary[name] for name in NO_SPEECH_TOKENS if name in vocabulary), None)

    @classmethod
    def load(cls, folder: Path, *, device: str) -> Self:
        """Load the very checkpoint that `fetch` recorded in `folder`; ASRError if nothing is there."""
        config, path = find(folder, WhisperASRConfig)
        return cls(config, load_processor(path, config), read_model(path, config.dtype), device=device)

    def transcribe(self, waveforms: Sequence[np.ndarray]) -> list[Transcript]:
        """Return one transcript per waveform (samples,).

        `failed` if a sample is NaN or infinite. `empty`, without asking the model, if there is no sample or the root
        mean square is below the config's `silence_rms`: Whisper hallucinates on near silence. `empty` too if
        no word was found, or if the config's rule for silence applies; `failed` if the text repeats itself or is unsure
        beyond the config's limits. What Whisper wrote is then kept in `raw_text`.
        """
        sound = [bool(np.isfinite(waveform).all()) for waveform in waveforms]
        pieces = [
            (row, piece)
            for row, waveform in enumerate(waveforms)
            if sound[row] and rms(waveform) >= self._config.silence_rms
            for piece in self._segments(waveform)
        ]
        heard: list[list[DecodedSegment]] = [[] for _ in waveforms]
        for (row, _), result in zip(pieces, self._decode_segments([piece for _, piece in pieces]), strict=True):
            heard[row].append(result)
        return [
            self._transcript(results) if finite else Transcript(None, "failed", None)
            for finite, results in zip(sound, heard, strict=True)
        ]

    def _segments(self, waveform: np.ndarray) -> Iterator[np.ndarray]:
        """Yield consecutive pieces of 30 s without the silent ones."""
        size = self._processor.feature_extractor.n_samples
        for start in range(0, len(waveform), size):
            piece = waveform[start : start + size]
            if rms(piece) >= self._config.silence_rms:
                yield piece

    def _decode_segments(self, pieces: Sequence[np.ndarray]) -> list[DecodedSegment]:
        """Decode pieces of about one length together, since a batch lasts as long as its longest text."""
        heard: dict[int, DecodedSegment] = {}
        order = sorted(range(len(pieces)), key=lambda number: len(pieces[number]))
        with torch.inference_mode(), exact_float32(), planless_attention():
            starts = range(0, len(order), BATCH_ROWS)
            shown = track(starts, total=len(starts), label=f"transcribed, {BATCH_ROWS} at a time")
            for start in shown if len(starts) > 1 else starts:
                numbers = order[start : start + BATCH_ROWS]
                heard |= zip(numbers, self._decode_batch([pieces[number] for number in numbers]), strict=True)
        return [heard[number] for number in range(len(pieces))]

    def _decode_batch(self, pieces: Sequence[np.ndarray]) -> list[DecodedSegment]:
        features = self._processor.feature_extractor(
            list(pieces), sampling_rate=self.sample_rate_hz, return_tensors="pt", device=str(self._device)
        )["input_features"]
        encoded = self._model.get_encoder()(features.to(self._device, self._model.dtype)).last_hidden_state
        texts = self._decode(encoded)
        return [
            DecodedSegment(self._processor.tokenizer.decode(tokens, skip_special_tokens=True).strip(), *scored)
            for tokens, scored in zip(texts, self._scores(encoded, texts), strict=True)
        ]

    def _decode(self, encoded: Tensor) -> list[list[int]]:
        """Return each row's tokens after the prompt, its end of text included if it reached one.

        Whisper's own `generate` would fall back to sampling, guess languages and loop over long recordings; the
        general one only decodes, and applies the same list of suppressed tokens.
        """
        prompt = torch.tensor([self._prompt] * len(encoded), device=self._device)
        decoded = GenerationMixin.generate(
            self._model,
            encoder_outputs=BaseModelOutput(last_hidden_state=encoded),
            attention_mask=torch.ones(encoded.shape[:2], device=self._device),  # says only that nothing is missing
            decoder_input_ids=prompt,
            generation_config=self._generation,
            stopping_criteria=StoppingCriteriaList([self._stop_repeating] if self._config.num_beams == 1 else []),
        )
        end = self._processor.tokenizer.eos_token_id
        rows = decoded[:, prompt.shape[1] :].tolist()
        return [self._until_repeating(row[: row.index(end) + 1] if end in row else row) for row in rows]

    def _stop_repeating(self, ids: Tensor, _: object, **__: object) -> Tensor:
        """Return which rows to stop: a text that repeats itself is discarded anyway, and would delay its batch."""
        rows = ids[:, len(self._prompt) :].tolist()
        due = len(rows[0]) % CHECKED_EVERY == 0
        return torch.tensor([due and self._repeats(row) for row in rows], device=ids.device)

    def _repeats(self, tokens: list[int]) -> bool:
        text = self._processor.tokenizer.decode(tokens, skip_special_tokens=True).strip()
        return bool(text) and above(compression_ratio(text), self._config.compression_ratio_threshold)

    def _until_repeating(self, tokens: list[int]) -> list[int]:
        """Cut a row where `_stop_repeating` ends it, even if its batch continued and padded it."""
        ends = range(CHECKED_EVERY, len(tokens), CHECKED_EVERY) if self._config.num_beams == 1 else ()
        return tokens[: next((end for end in ends if self._repeats(tokens[:end])), len(tokens))]

    def _scores(self, encoded: Tensor, texts: Sequence[list[int]]) -> Iterator[tuple[float, int, float | None]]:
        """Yield each row's log-probability in nats, number of tokens and no-speech probability, in one further pass.

        The probabilities are the model's own, before any token is suppressed, taken in float32.
        """
        inputs = [torch.tensor([*self._prompt, *tokens[:-1]]) for tokens in texts]
        padded = nn.utils.rnn.pad_sequence(inputs, batch_first=True).to(self._device)  # the decoder is causal
        hidden = self._model.get_decoder()(input_ids=padded, encoder_hidden_states=encoded).last_hidden_state
        first = len(self._prompt) - 1
        for row, tokens in zip(hidden, texts, strict=True):
            after = torch.log_softmax(self._model.proj_out(row[first : first + len(tokens)]).float(), dim=1)
            chosen = after.gather(1, torch.tensor(tokens, device=self._device)[:, None])
            start = torch.softmax(self._model.proj_out(row[0]).float(), dim=0)
            yield float(chosen.sum()), len(tokens), None if self._no_speech is None else float(start[self._no_speech])

    def _transcript(self, heard: Sequence[DecodedSegment]) -> Transcript:
        if not heard:
            return Transcript(None, "empty", None)
        raw = " ".join(item.text for item in heard if item.text)
        logprob = sum(item.logprob for item in heard) / sum(item.num_tokens for item in heard)
        silences = [item.no_speech_prob for item in heard if item.no_speech_prob is not None]
        no_speech = min(silences) if silences else None
        words, confidence = normalize_text(raw), round(float(np.exp(logprob)), DECIMALS)
        ratio = max((round(compression_ratio(item.text), DECIMALS) for item in heard if item.text), default=None)
        silent = not words or self._is_silence(no_speech, logprob)
        least = self._config.confidence_threshold
        failed = above(ratio, self._config.compression_ratio_threshold) or above(least, confidence)
        text = raw if self._config.text == "raw" else words
        return Transcript(
            None if silent or failed else text,
            "empty" if silent else "failed" if failed else "ok",
            confidence,
            raw_text=raw,
            no_speech_prob=None if no_speech is None else round(no_speech, DECIMALS),
            compression_ratio=ratio,
        )

    def _is_silence(self, no_speech: float | None, logprob: float) -> bool:
        limit, least = self._config.no_speech_threshold, self._config.logprob_threshold
        if limit is None or least is None or no_speech is None:
            return False
        return no_speech > limit and logprob < least
