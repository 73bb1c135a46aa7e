"""Units from the states of any speech encoder's layer, k-means fitted on the corpus."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from alignslm.config.model import Config, Dtype, Few, Positive, PositiveCount, Seed
from alignslm.config.sources import Source

FRAME_SAMPLES, RATE_HZ = 320, 16000
"""All these encoders have a state for every 20 ms of speech at 16 kHz."""


class SpeechKMeansConfig(Config):
    """A Whisper, HuBERT, wav2vec 2.0 or WavLM checkpoint, one of its encoder's layers, and k-means over it."""

    kind: Literal["speech-kmeans"]
    weights: Source = Field(description="a model in transformers' form; Whisper also in CTranslate2's")
    layer: PositiveCount = Field(description="encoder layer with the output to quantize; the first is 1")
    normalise_input: bool = Field(description="every window to zero mean and unit variance first; not with Whisper")
    frames_per_unit: Few = Field(description="states of 20 ms that are averaged for one unit: 2 is 25 Hz")
    num_units: Annotated[int, Field(ge=2, le=65535)]
    fit_utterances: PositiveCount
    fit_frames: PositiveCount = Field(description="frames, drawn from all of them, that k-means is fitted on")
    seed: Seed
    dtype: Dtype
    window_s: Annotated[float, Field(ge=1, le=30)] = Field(description="longer speech is encoded in such windows")
    overlap_s: Positive = Field(description="overlap of two neighboring windows; each provides half of it")

    @property
    def sample_rate_hz(self) -> int:
        """What speech is resampled to."""
        return RATE_HZ

    @property
    def hop_samples(self) -> int:
        """Samples between two units, before deduplication."""
        return FRAME_SAMPLES * self.frames_per_unit

    @property
    def frame_rate_hz(self) -> float:
        """Units per second, before deduplication."""
        return RATE_HZ / self.hop_samples

    @model_validator(mode="after")
    def _windows(self) -> "SpeechKMeansConfig":
        if self.overlap_s > self.window_s / 2:
            raise ValueError(f"overlap_s ({self.overlap_s:g}) must be at most half of window_s ({self.window_s:g})")
        return self
