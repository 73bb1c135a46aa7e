"""Choice of a published unit HiFi-GAN as vocoder."""

from typing import ClassVar, Literal

from pydantic import Field

from alignslm.config.model import Config, Count, PositiveCount
from alignslm.config.sources import Sha256, Source


class UnitHiFiGANConfig(Config):
    """A textless CodeHiFiGAN checkpoint: torch file, JSON settings and, for many voices, lists of their names."""

    fit_utterances: ClassVar[int] = 0  # published weights are fetched, not fitted

    kind: Literal["unit-hifigan"]
    weights: Source = Field(description="torch file with the key `generator`, or a place that holds one *.pt")
    settings: Source = Field(description="its JSON settings, or a place that holds one *.json")
    speakers: Source | None = Field(description="one speaker name a line; null where the checkpoint has one voice")
    styles: Source | None = Field(description="one style name a line; null where the checkpoint has one style")
    speaker: str | int | None = Field(description="name or number; a checkpoint of several speakers has no default one")
    style: str | int | None
    layer: Count | None = Field(description="encoder layer whose units it was trained on; null: not compared")
    codebook_file_sha256: Sha256 | None = Field(
        description="published codebook of the units it was trained on, as the encoder names it; null: not compared"
    )
    sample_rate_hz: PositiveCount
