"""A listening study: the clips, the design and the question."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from alignslm.config.model import Config, Name, PositiveCount, Seed

ORIGINAL = "original"


class ListeningTestConfig(Config):
    """Raters judge continuations of the same prompts by several systems, one clip at a time, unaware of the system.

    Every clip is the recorded prompt followed by one system's first continuation of it (paper: MMOS, human ratings of
    meaningfulness, 1 to 5).
    """

    kind: Literal["mmos"]
    title: Annotated[str, Field(min_length=1)]
    question: Annotated[str, Field(min_length=1)]
    labels: Annotated[tuple[str, ...], Field(description="what 1, 2, ... mean: as many as the scale has points, five")]
    systems: Annotated[
        tuple[Name, ...], Field(min_length=1, description="controls and rounds, as in artifacts/samples")
    ]
    resynthesized: Name | None = Field(
        description="anchor: the system of resynthesized ground-truth continuations; null: none"
    )
    original: bool = Field(description="anchor: the true continuations as they were recorded")
    prompts: PositiveCount
    trials_per_prompt: PositiveCount = Field(
        description="times a rater hears each prompt, each time by another system; 1 is the quickest design"
    )
    loudness_lufs: Annotated[float, Field(ge=-40, le=-10, description="ITU-R BS.1770 loudness of every clip's parts")]
    pause_s: Annotated[float, Field(ge=0, le=2, description="silence between prompt and continuation")]
    sample_rate_hz: PositiveCount
    seed: Seed

    @property
    def names(self) -> tuple[str, ...]:
        """Everything that is rated: systems, then anchors."""
        anchors = (self.resynthesized,) if self.resynthesized else ()
        return (*self.systems, *anchors, *((ORIGINAL,) if self.original else ()))

    @model_validator(mode="after")
    def _consistent(self) -> "ListeningTestConfig":
        if len(self.labels) != 5:
            raise ValueError(f"labels must be five, worst first, found {len(self.labels)}")
        if len(set(self.names)) < len(self.names):
            raise ValueError(f"systems and anchors must differ, found {', '.join(self.names)}")
        if self.trials_per_prompt > len(self.names):
            raise ValueError(
                f"trials_per_prompt ({self.trials_per_prompt}) cannot exceed the {len(self.names)} systems and anchors"
            )
        return self
