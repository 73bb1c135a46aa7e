"""Preferences that others made: (prompt, chosen, rejected) as speech or as units, trained on without any sampling.

None of these fields has a default: every value that affects a published number is in a YAML file.
"""

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, model_validator

from alignslm.config.corpora import DatasetSource
from alignslm.config.model import Config, PositiveCount
from alignslm.config.pretrained_lm import TrainingUnits
from alignslm.config.sources import FolderSource


class PreferenceFiles(Config):
    """Which files of the source serve each split: patterns of names below it, of .jsonl or .parquet files."""

    train: tuple[str, ...] = Field(min_length=1)
    valid: tuple[str, ...]


class ColumnNames(Config):
    """The columns (parquet) or keys (jsonl) of the three parts of a row."""

    prompt: str
    chosen: str
    rejected: str


class ImportedPreferences(Config):
    """Fields of all imported preferences, of speech and of units."""

    source: Annotated[DatasetSource | FolderSource, Field(discriminator="kind")]
    files: PreferenceFiles
    valid_fraction: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        description="fraction of the prompts, by hash, for validation if there are no `valid` files; else null"
    )
    overlapping_prompts: Literal["error", "exclude"] = Field(
        description="a training row with a prompt that is also in the validation rows: an error, or excluded"
    )
    columns: ColumnNames
    append_eos: bool = Field(
        description="speech ends with chosen and rejected: the end of sequence is learnt. false: they were cut"
    )
    strip_prompt: bool = Field(
        description="chosen and rejected begin with the whole prompt, which is cut off. false: such rows are an error"
    )
    max_units: PositiveCount | None = Field(
        description="rows in which prompt and longer side have more units are excluded and counted; null: none"
    )

    @model_validator(mode="after")
    def _one_way_to_validate(self) -> "ImportedPreferences":
        if bool(self.files.valid) == (self.valid_fraction is not None):
            raise ValueError("validation pairs come from files.valid or from valid_fraction: give one of them")
        return self


class SpokenPreferences(ImportedPreferences):
    """Sound: parquet with audio columns (SpokenSwag), or jsonl that names files. The experiment's encoder reads it."""

    kind: Literal["spoken"]
    sample_rate_hz: PositiveCount = Field(description="audio at any other rate is an error")


class UnitPreferences(ImportedPreferences):
    """Units made elsewhere: lists of numbers, slamkit's {units, duration}, or text: <Un3><Un49>, or 3 49."""

    kind: Literal["units"]
    units: TrainingUnits = Field(description="what they are units of: it must be the experiment's encoder")
    repeats: Literal["error", "dedup", "keep"] = Field(
        description="a unit twice in a row: an error, collapsed, or kept as a model drew it (at the prompt's end too)"
    )


PreferencesConfig: TypeAlias = Annotated[SpokenPreferences | UnitPreferences, Field(discriminator="kind")]
AnyPreferences: TypeAlias = SpokenPreferences | UnitPreferences
