"""The HuBERT speech encoder: a transformers checkpoint, one of its layers, and a k-means codebook over it."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from alignslm.config.model import Config, Count, Dtype, Positive, PositiveCount
from alignslm.config.sources import Source


class HubertEncoderConfig(Config):
    """Published HuBERT features and a published codebook; nothing is fitted.

    The checkpoint's own preprocessor settings are not followed but replaced by the fields below: the one of
    facebook/hubert-base-ls960 says `do_normalize: true`, although its codebooks were made without.
    """

    kind: Literal["hubert"]
    weights: Source = Field(description="a transformers HubertModel")
    layer: PositiveCount = Field(description="transformer layer with the output to quantize; the first is 1")
    codebook: Source = Field(description="centroids as .safetensors, .npy, or a joblib .bin with its sha256")
    num_units: Annotated[int, Field(ge=2, le=65535)]
    sample_rate_hz: PositiveCount = Field(description="what speech is resampled to")
    hop_samples: PositiveCount = Field(description="samples between two frames: 640 is 25 Hz at 16 kHz")
    normalise_input: bool = Field(description="every utterance to zero mean and unit variance first")
    pad_samples: Count = Field(description="zeros before and after every utterance: 0 as textless, 40 as slamkit")
    dtype: Dtype
    window_s: Positive = Field(description="longer speech is encoded in windows of this length")
    overlap_s: Positive = Field(description="overlap of two neighboring windows; each provides half of it")

    @property
    def frame_rate_hz(self) -> float:
        """Frames per second, before deduplication."""
        return self.sample_rate_hz / self.hop_samples

    @property
    def fit_utterances(self) -> int:
        """Training utterances needed: none."""
        return 0

    @model_validator(mode="after")
    def _windows(self) -> "HubertEncoderConfig":
        if self.overlap_s > self.window_s / 2:
            raise ValueError(f"overlap_s ({self.overlap_s:g}) must be at most half of window_s ({self.window_s:g})")
        return self
