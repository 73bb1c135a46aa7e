"""Corpora of recorded speech: where it is, and which subsets form which split.

None of these fields has a default: every value that affects a published number is in a YAML file.
"""

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, model_validator

from alignslm.config.model import Config, Name, Positive, PositiveCount
from alignslm.config.sources import FolderSource, HubSource, Sha256

SplitName: TypeAlias = Literal["train", "valid", "dev", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "valid", "dev", "test")


class Subsets(Config):
    """Which of the corpus's own subsets serve each split; a subset serves one split at most."""

    train: tuple[str, ...]
    valid: tuple[str, ...]
    dev: tuple[str, ...]
    test: tuple[str, ...]

    @model_validator(mode="after")
    def _once(self) -> "Subsets":
        served: dict[str, str] = {}
        for split in SPLITS:
            for subset in self.of(split):
                if subset in served:
                    raise ValueError(f"{split} names {subset!r}, which serves {served[subset]} already; remove one")
                served[subset] = split
        return self

    def of(self, split: SplitName) -> tuple[str, ...]:
        """Return the subsets of a split."""
        found: tuple[str, ...] = getattr(self, split)
        return found


class Limits(Config):
    """How many utterances of a part a split may use; null: all. A larger number includes those of a smaller one."""

    train: PositiveCount | None
    valid: PositiveCount | None
    dev: PositiveCount | None
    test: PositiveCount | None

    def of(self, split: SplitName) -> int | None:
        """Return the limit of a split."""
        found: int | None = getattr(self, split)
        return found


class Part(Config):
    """Fields of every part of a corpus, in any layout."""

    subsets: Subsets
    max_utterances: Limits
    alignments: FolderSource | None = Field(description="word times: TextGrid or .alignment.txt files, by utterance id")


class LibriSpeechPart(Part):
    """LibriSpeech as published (openslr.org/12): SUBSET/SPEAKER/CHAPTER/*.flac with a *.trans.txt."""

    kind: Literal["librispeech"]
    source: FolderSource


class MlsPart(Part):
    """A language of MLS as published (openslr.org/94): SUBSET/audio/SPEAKER/BOOK/*.flac or *.opus, transcripts.txt."""

    kind: Literal["mls"]
    source: FolderSource


class ListedPart(Part):
    """Any folder of audio files with a metadata.csv: file_name, subset, speaker_id, text (may be empty)."""

    kind: Literal["audiofolder"]
    source: FolderSource


class Columns(Config):
    """The names of the columns that are read from parquet files; a null text column: no transcripts."""

    utterance_id: str
    speaker_id: str
    text: str | None
    audio: str = Field(description="a struct {bytes, path}, the datasets library's audio feature")


class DatasetSource(HubSource):
    """A dataset of the Hub at a revision; `refs/convert/parquet` is where the Hub keeps parquet of any dataset."""

    repo_type = "dataset"


class ParquetPart(Part):
    """Parquet files of a Hub dataset or a local folder; a subset is a pattern of names, `all/dev.clean/*.parquet`."""

    kind: Literal["parquet"]
    source: Annotated[DatasetSource | FolderSource, Field(discriminator="kind")]
    columns: Columns


PartConfig = Annotated[LibriSpeechPart | MlsPart | ListedPart | ParquetPart, Field(discriminator="kind")]


class Recordings(Config):
    """Recorded speech in one part or several. Utterance ids and speaker ids are shared by all parts.

    They are shared on purpose: LibriSpeech and MLS name readers by the same LibriVox numbers, so a reader of one's
    training speech is found in the other's test speech.
    """

    kind: Literal["recordings"]
    sample_rate_hz: PositiveCount = Field(description="audio at any other rate is an error")
    max_duration_s: Positive = Field(description="longer audio is an error: it was not cut into utterances")
    overlapping_speakers: Literal["error", "exclude", "allow"] = Field(
        description="training speech of a speaker who also speaks in another split: an error, excluded and counted, "
        "or allowed: for one or a few voices, to which all results then apply"
    )
    exclude_ids: tuple[str, ...] = Field(description="utterances to exclude, by id or by place as errors print it")
    num_texts: PositiveCount = Field(description="training transcripts, at most, that judges may be fitted on")
    num_prompt_words: PositiveCount = Field(description="their first words play the prompt, the rest its continuation")
    content_sha256: Sha256 | None = Field(
        description="hash of the audio from artifacts/corpus/summary.json; null: not checked"
    )
    parts: dict[Name, PartConfig] = Field(min_length=1)

    @model_validator(mode="after")
    def _every_split(self) -> "Recordings":
        for split in ("train", "valid", "test"):
            if not any(part.subsets.of(split) for part in self.parts.values()):
                raise ValueError(f"parts give no subset to {split}; prompts are needed of train, valid and test")
        return self
