"""Config of a Whisper checkpoint as ASR model, for transformers or CTranslate2."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from alignslm.config.model import Config, Few, Fraction, Positive, PositiveCount
from alignslm.config.sources import Source


class _WhisperDecoding(Config):
    """A Whisper checkpoint, decoded without sampling.

    OpenAI's rule for silence is optional: text is discarded if the no-speech probability is above
    `no_speech_threshold` and the mean log-probability of its tokens is below `logprob_threshold`. So are its
    two signs of a failed decoding, for which it would sample again: texts that repeat themselves or are unsure.
    """

    fit_utterances: ClassVar[int] = 0  # published weights are fetched, not fitted
    resynthesized_fraction: ClassVar[float] = 0.0

    weights: Source = Field(description="repository or folder with model and tokenizer")
    language: str | None = Field(description="code such as en, or a name; null for an English-only checkpoint")
    task: Literal["transcribe", "translate"] | None = Field(description="null for an English-only checkpoint")
    num_beams: Few = Field(description="1 is greedy decoding")
    max_new_tokens: PositiveCount = Field(description="longest text of 30 s, in tokens; longer ones are cut off")
    text: Literal["raw", "normalized"] = Field(
        description="what judges and metrics read: text as Whisper writes it, or lower-case words without punctuation"
    )
    sample_rate_hz: PositiveCount
    silence_rms: Positive = Field(description="audio with a root mean square below this has status `empty`")
    no_speech_threshold: Fraction | None
    logprob_threshold: Annotated[float, Field(ge=-1000, lt=0)] | None
    compression_ratio_threshold: Annotated[float, Field(gt=1, le=1000)] | None = Field(
        description="a text that compresses better, as repeated words do, is status `failed`; OpenAI's limit is 2.4"
    )
    confidence_threshold: Fraction | None = Field(
        description="a text of less confidence is status `failed`; null: no limit"
    )

    @model_validator(mode="after")
    def _both_or_none(self) -> Self:
        if (self.no_speech_threshold is None) != (self.logprob_threshold is None):
            raise ValueError("no_speech_threshold and logprob_threshold make one rule: give both, or null for both")
        return self


class WhisperASRConfig(_WhisperDecoding):
    """A Whisper checkpoint in transformers' form, or in CTranslate2's, which is converted when it is loaded."""

    kind: Literal["whisper"]
    dtype: Literal["float32", "bfloat16", "float16"]


class FasterWhisperASRConfig(_WhisperDecoding):
    """A Whisper checkpoint in CTranslate2's form, as of faster-whisper, run by CTranslate2."""

    kind: Literal["faster-whisper"]
    compute_type: Literal["float32", "float16", "bfloat16", "int8", "int8_float32", "int8_float16", "int8_bfloat16"]


AnyWhisperConfig = WhisperASRConfig | FasterWhisperASRConfig
