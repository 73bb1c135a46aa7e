"""Configs of `kind: python`: an object of the experiment's own code instead of a built-in one."""

from typing import Annotated, Literal

from pydantic import Field, JsonValue

from alignslm.config.llm_judges import AucTexts, MaxUnscored
from alignslm.config.model import Config, Count, Fraction, Positive, PositiveCount

Examples = Annotated[int, Field(ge=3, description="training utterances: the first three try the object, all go to fit")]


class OwnCode(Config):
    """A class of one file in the folder code/, next to params.yaml, and the keyword arguments it is built with.

    The file may import installed packages, not other files of code/: only this file is tracked.
    """

    kind: Literal["python"]
    object: Annotated[str, Field(pattern=r"^[A-Za-z_]\w*:[A-Za-z_]\w*$")] = Field(
        description="module:Name, the class Name of code/module.py"
    )
    options: dict[str, JsonValue]

    @property
    def module(self) -> str:
        """The name of the file in code/, without .py."""
        return self.object.partition(":")[0]

    @property
    def name(self) -> str:
        """The name of the class."""
        return self.object.partition(":")[2]


class PythonJudgeConfig(OwnCode):
    """A judge of one's own: `judge(stories) -> list[JudgeOutput]`."""

    max_unscored: MaxUnscored = 0.1
    auc_texts: AucTexts = 20


class PythonEncoderConfig(OwnCode):
    """An encoder of one's own: `encode(waveforms) -> list[Encoded]`, at `frame_rate_hz` before deduplication."""

    sample_rate_hz: PositiveCount = Field(description="what speech is resampled to")
    frame_rate_hz: Positive
    num_units: Annotated[int, Field(ge=2, le=65535)]
    fit_utterances: Examples


class PythonVocoderConfig(OwnCode):
    """A vocoder of one's own: `synthesize(units) -> list[np.ndarray]`, float32 at `sample_rate_hz`."""

    sample_rate_hz: PositiveCount
    fit_utterances: Examples


class PythonASRConfig(OwnCode):
    """An ASR model of one's own: `transcribe(waveforms) -> list[Transcript]`."""

    sample_rate_hz: PositiveCount = Field(description="what speech is resampled to")
    fit_utterances: Examples
    resynthesized_fraction: Fraction = Field(description="fraction of training utterances that are resynthesized")


class PythonSelectorConfig(OwnCode):
    """A selector of one's own: `select(pool, rules) -> (chosen, rejected)`; its own `utility` column is a reward."""

    min_words: Count = Field(description="fewer words are never chosen")
