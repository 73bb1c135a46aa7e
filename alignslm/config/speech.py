"""Choices on the speech side: corpus, speech-to-unit encoder, vocoder, ASR model.

None of these fields has a default: every value that affects a published number is in a YAML file.
"""

from typing import Annotated, Literal

from pydantic import Field

from alignslm.config.corpora import Recordings
from alignslm.config.hubert import HubertEncoderConfig
from alignslm.config.model import Config, Count, Few, Fraction, Positive, PositiveCount, Seed, Size
from alignslm.config.own_code import PythonASRConfig, PythonEncoderConfig, PythonVocoderConfig
from alignslm.config.speech_kmeans import SpeechKMeansConfig
from alignslm.config.unit_hifigan import ScratchUnitHiFiGANConfig, UnitHiFiGANConfig
from alignslm.config.whisper import FasterWhisperASRConfig, WhisperASRConfig


class StoryCounts(Config):
    """How many spoken stories each split holds; prompt sentences never cross splits."""

    train: PositiveCount
    valid: PositiveCount
    dev: Count
    test: PositiveCount


class StoryWorldConfig(Config):
    """Three-sentence stories from a small grammar, spoken by espeak-ng (embedded, offline)."""

    kind: Literal["storyworld"]
    seed: Seed
    stories: StoryCounts
    mismatched_fraction: Fraction = Field(description="fraction of training stories with another story's ending")
    mismatched_same_pronoun: Fraction = Field(description="fraction of mismatched stories with a fitting pronoun")
    num_texts: PositiveCount = Field(description="clean stories, as text only, to fit judges on")
    voice: str
    words_per_minute: Annotated[int, Field(ge=80, le=450)]
    sample_rate_hz: PositiveCount


CorpusConfig = Annotated[StoryWorldConfig | Recordings, Field(discriminator="kind")]


class MFCCKMeansConfig(Config):
    """k-means over stacked MFCC frames: a unit encoder that fits in seconds on a CPU."""

    kind: Literal["mfcc-kmeans"]
    seed: Seed
    sample_rate_hz: PositiveCount
    frame_rate_hz: Positive
    num_coefficients: Size
    stacked_frames: Few = Field(description="neighbouring frames joined into one feature, odd")
    num_units: Annotated[int, Field(ge=2, le=65535)]
    fit_utterances: PositiveCount


EncoderConfig = Annotated[
    MFCCKMeansConfig | HubertEncoderConfig | SpeechKMeansConfig | PythonEncoderConfig, Field(discriminator="kind")
]


class FittedConvNetConfig(Config):
    """A convolutional net over log-mel frames, fitted on utterances of the corpus."""

    kind: str
    seed: Seed
    fit_utterances: PositiveCount = Field(description="training utterances it is fitted on")
    sample_rate_hz: PositiveCount
    num_mels: Size
    hop_samples: Size
    window_samples: Size
    channels: Size
    layers: Few
    steps: PositiveCount
    batch_size: PositiveCount
    learning_rate: Positive


class ConvGriffinLimConfig(FittedConvNetConfig):
    """Convolutional net from deduplicated units to durations and log-mel frames, then Griffin-Lim."""

    kind: Literal["conv-griffinlim"]
    griffin_lim_iterations: Count


VocoderConfig = Annotated[
    ConvGriffinLimConfig | UnitHiFiGANConfig | ScratchUnitHiFiGANConfig | PythonVocoderConfig,
    Field(discriminator="kind"),
]


class CharCTCASRConfig(FittedConvNetConfig):
    """Convolutional character ASR model trained with CTC on original and resynthesized speech."""

    kind: Literal["char-ctc"]
    resynthesized_fraction: Fraction = Field(description="fraction of training utterances that are resynthesized")
    silence_rms: Positive = Field(description="audio with a root mean square below this has status `empty`")
    confidence_threshold: Fraction | None = Field(
        default=None, description="a text of less confidence is status `failed`; null: no limit"
    )


AsrConfig = Annotated[
    CharCTCASRConfig | WhisperASRConfig | FasterWhisperASRConfig | PythonASRConfig, Field(discriminator="kind")
]
