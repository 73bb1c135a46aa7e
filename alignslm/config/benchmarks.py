"""Official benchmarks: where a release is, its layout, and which part of it is scored.

All compare the likelihood of two recordings. None of these fields has a default.
"""

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from alignslm.config.model import Config
from alignslm.config.sources import FolderSource, HubSource, UrlSource

Released = Annotated[FolderSource | UrlSource, Field(discriminator="kind")]
SalmonPart: TypeAlias = Literal[
    "bg_alignment",
    "bg_all_consistency",
    "bg_domain_consistency",
    "gender_consistency",
    "rir_consistency",
    "sentiment_alignment",
    "sentiment_consistency",
    "speaker_consistency",
]


class Swuggy(Config):
    """sWUGGY: spoken words against non-words ("lexical" of ZeroSpeech's sLM21-dataset, with its gold.csv)."""

    kind: Literal["swuggy"]
    data: Released
    split: Literal["dev", "test"]


class Sblimp(Config):
    """sBLIMP: grammatical against ungrammatical sentences ("syntactic" of sLM21-dataset, with its gold.csv)."""

    kind: Literal["sblimp"]
    data: Released
    split: Literal["dev", "test"]


class SpokenStoryCloze(Config):
    """Spoken StoryCloze: true against wrong endings of five-sentence stories, one synthetic voice.

    Files are ID_correct and ID_incorrect, with ID_mutual (the story so far) or without, or they are numbered,
    right and wrong ending in turn. Of numbered files nothing says where an ending begins, so their
    story so far is scored with it.
    """

    kind: Literal["sstorycloze", "tstorycloze"]
    data: Released


class SlamkitBenchmarkConfig(Config):
    """A benchmark as slamkit wants it: wavs numbered before `separator`, right and wrong in turn.

    Neither frequency, type nor voice survives that format; a subfolder becomes a subtype.
    """

    kind: Literal["slamkit"]
    data: Released
    separator: Literal["_", "+"]
    subfolders: bool


class DatasetRepo(HubSource):
    """A dataset of the Hub at a revision."""

    repo_type = "dataset"


class Salmon(Config):
    """SALMon: eight acoustic questions of 200 pairs. Its authors define no mean over the parts.

    A folder is the zip's (PART/sample_NUMBER_0.wav right, _1.wav wrong) or contains PART/*.parquet as on the Hub. The
    two releases are not the same files.
    """

    kind: Literal["salmon"]
    data: Annotated[FolderSource | UrlSource | DatasetRepo, Field(discriminator="kind")]
    parts: Annotated[tuple[SalmonPart, ...], Field(min_length=1)]


OfficialBenchmark: TypeAlias = Swuggy | Sblimp | SpokenStoryCloze | SlamkitBenchmarkConfig | Salmon
