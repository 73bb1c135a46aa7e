"""A unit HiFi-GAN as vocoder: a published checkpoint, or one trained on the corpus."""

import math
from collections.abc import Iterator, Sequence
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from alignslm.config.model import Config, Count, Few, Fraction, Positive, PositiveCount, Seed, Size
from alignslm.config.sources import Sha256, Source


class UnitHiFiGANConfig(Config):
    """A textless CodeHiFiGAN checkpoint: torch file, JSON settings and, for many voices, lists of their names."""

    fit_utterances: ClassVar[int] = 0  # published weights are fetched, not fitted

    kind: Literal["unit-hifigan"]
    weights: Source = Field(description="torch file with the key `generator`, or a folder or repository with one *.pt")
    settings: Source = Field(description="its JSON settings, or a folder or repository with one *.json")
    speakers: Source | None = Field(description="one speaker name per line; null if the checkpoint has one voice")
    styles: Source | None = Field(description="one style name per line; null if the checkpoint has one style")
    speaker: str | int | None = Field(description="name or number; with several speakers there is no default")
    style: str | int | None
    layer: Count | None = Field(description="encoder layer of the units that it was trained on; null: not compared")
    codebook_file_sha256: Sha256 | None = Field(
        description="published codebook of the units it was trained on, as the encoder names it; null: not compared"
    )
    sample_rate_hz: PositiveCount
    dtype: Literal["float32", "float16"] = Field(
        default="float32", description="dtype of the convolutions; predicted durations do not depend on it"
    )


def generator_problems(
    rates: Sequence[int], kernels: Sequence[int], block_kernels: Sequence[int], dilations: Sequence[Sequence[int]]
) -> Iterator[str]:
    """Yield why no generator can be built of these sizes, in the names of the published settings files."""
    if len(kernels) != len(rates):
        yield f"{len(rates)} upsample_rates but {len(kernels)} upsample_kernel_sizes"
    if len(block_kernels) != len(dilations):
        yield "resblock_kernel_sizes and resblock_dilation_sizes differ in length"
    if any(kernel % 2 == 0 for kernel in block_kernels):
        yield f"resblock_kernel_sizes {list(block_kernels)} must be odd to keep the length"


class ScratchUnitHiFiGANConfig(Config):
    """A unit HiFi-GAN trained on the corpus's own units and speech.

    The field names of the generator are those of the published settings files. The recipe is that of Kong et al.
    (2020, "HiFi-GAN", section 3), with the unit embedding and duration predictor of Lee et al. (2022).
    """

    dtype: ClassVar[str] = "float32"  # another one would train it again

    kind: Literal["unit-hifigan-scratch"]
    seed: Seed
    fit_utterances: PositiveCount = Field(description="training utterances; a speech hour takes 230 MB of memory")
    sample_rate_hz: PositiveCount
    speaker: str | None = Field(description="the voice to synthesize; null: the one with the most training speech")
    embedding_dim: Size
    duration_dim: Size = Field(description="hidden size of the duration predictor")
    upsample_initial_channel: Size
    upsample_rates: Annotated[tuple[Few, ...], Field(min_length=1, max_length=12)]
    upsample_kernel_sizes: tuple[Few, ...]
    resblock_kernel_sizes: Annotated[tuple[Few, ...], Field(min_length=1, max_length=12)]
    resblock_dilation_sizes: tuple[tuple[Few, ...], ...]
    discriminator_channels: Annotated[int, Field(ge=32, le=2**14, multiple_of=32)]
    periods: Annotated[tuple[Few, ...], Field(min_length=1, max_length=12)]
    scales: Annotated[int, Field(ge=1, le=6, description="discriminators of the waveform, each at half the rate")]
    num_mels: Size
    hop_samples: Size
    window_samples: Size
    segment_frames: Size = Field(description="units per training segment; shorter utterances are not used")
    batch_size: PositiveCount
    steps: PositiveCount
    learning_rate: Positive
    learning_rate_decay: Fraction = Field(description="the learning rate's factor after every pass over the data")
    save_steps: PositiveCount = Field(description="a killed run resumes from the last of these steps")

    @property
    def samples_per_frame(self) -> int:
        """Number of samples that one unit frame becomes."""
        return math.prod(self.upsample_rates)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for problem in generator_problems(
            self.upsample_rates, self.upsample_kernel_sizes, self.resblock_kernel_sizes, self.resblock_dilation_sizes
        ):
            raise ValueError(problem)
        if any((kernel - rate) % 2 or kernel < rate for kernel, rate in self._levels):
            raise ValueError("each of upsample_kernel_sizes must exceed its rate by an even number, or equal it")
        if self.upsample_initial_channel % 2 ** len(self.upsample_rates):
            raise ValueError(
                f"upsample_initial_channel must be a multiple of {2 ** len(self.upsample_rates)}: each level halves it"
            )
        if self.segment_frames * self.samples_per_frame < self.window_samples:
            raise ValueError("segment_frames must cover window_samples")
        return self

    @property
    def _levels(self) -> list[tuple[int, int]]:
        return list(zip(self.upsample_kernel_sizes, self.upsample_rates, strict=True))
