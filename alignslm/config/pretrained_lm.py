"""Choices of a base unit language model that starts from published weights."""

from typing import Literal, TypeAlias

from pydantic import Field

from alignslm.config.model import Autocast, Config, Count, Dtype, NotNegative, Positive, PositiveCount
from alignslm.config.sources import Sha256, Source


class TrainingUnits(Config):
    """The units a published model was trained on.

    They must be the units of the chosen encoder: the same number under another codebook is another sound, and the
    model would go on speaking without a word of complaint. A null is not known, and is not compared.
    """

    num_units: PositiveCount
    sample_rate_hz: PositiveCount
    frame_rate_hz: Positive
    layer: int | None
    deduplicated: bool
    revision: str | None = Field(description="revision of the encoder, as its unit contract has it")
    codebook_sha256: Sha256 | None = Field(description="of the centroids, as the unit contract has it")
    codebook_file_sha256: Sha256 | None = Field(description="of the published codebook file, as the encoder names it")

    def differing(self, contract: Config, *, mine: str) -> list[str]:
        """Return every field in which a unit contract is known to differ, as text about `mine`."""
        return [
            f"{field}: {wanted!r} {mine}, {getattr(contract, field)!r} from the encoder"
            for field, wanted in self
            if field in type(contract).model_fields and wanted not in {None, getattr(contract, field)}
        ]


class TwistLMConfig(Config):
    """A TWIST checkpoint: a transformers folder whose config.json has `offset`, token id = unit + offset."""

    kind: Literal["twist"]
    weights: Source
    units: TrainingUnits
    bos: Literal["none", "config"] = Field(description="prompts begin with it: config.json's bos_token_id, or none")
    eos: Literal["none", "config"] = Field(description="ends a draw: config.json's eos_token_id, or none")
    dtype: Dtype


class SlamLMConfig(Config):
    """A slamkit checkpoint (model_type `speech_language_model`): <PAD> 0, <S> 1 at both ends, unit i is i + 2."""

    kind: Literal["slam"]
    weights: Source
    units: TrainingUnits
    dtype: Dtype


class TokenIds(Config):
    """How other models number units: token id = unit + offset. Null: the model has no such token."""

    offset: Count
    bos: Count | None
    eos: Count | None
    pad: Count = Field(description="fills short rows and is masked everywhere")


class HFLMConfig(Config):
    """Any causal language model over units that transformers loads, with its token ids spelt out."""

    kind: Literal["hf"]
    weights: Source
    units: TrainingUnits
    ids: TokenIds
    dtype: Dtype


class TwistInitConfig(Config):
    """TWIST's initialization (arXiv 2305.13009): a text model with its token embedding replaced by one of units.

    All of it is then trained by next-unit prediction on the corpus, in fp32 weights.
    """

    kind: Literal["twist-init"]
    weights: Source
    max_steps: PositiveCount
    batch_size: PositiveCount
    learning_rate: Positive
    warmup_steps: Count
    weight_decay: NotNegative
    autocast: Autocast
    dtype: Dtype


PublishedLm: TypeAlias = TwistLMConfig | SlamLMConfig | HFLMConfig
