"""params.yaml as one typed value, and the choices it names."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import Field, model_validator

from alignslm.config.evaluation import BenchmarkConfig, Control, Evaluation
from alignslm.config.feedback import JudgeConfig, Round, Sampling, SelectorConfig, Weights
from alignslm.config.model import Config, Name
from alignslm.config.models import LmConfig, NextUnitTrainer, PreferenceTrainer, Prompts, Seeds
from alignslm.config.mos import MosConfig
from alignslm.config.preferences import PreferencesConfig
from alignslm.config.publishing import PublishConfig
from alignslm.config.speech import AsrConfig, CorpusConfig, EncoderConfig, VocoderConfig

CHECKPOINTS_BEFORE_ROUNDS = ("base",)
BASELINES = ("ntp", "sft")


class Params(Config):
    """The content of params.yaml: names of choices, and the values that belong to one experiment only."""

    corpus: Name
    encoder: Name
    lm: Name
    vocoder: Name
    asr: Name
    mos: Name = Field(description="predicts how good speech sounds; reported, never trained on")
    judge: Name = Field(description="the judge whose scores become preference pairs")
    heldout_judge: Name = Field(description="a judge that never trains, only reports")
    selector: Name
    trainer: Name = Field(description="trains every curriculum round")
    ntp: Name = Field(description="trainer of the continued next-unit baseline")
    sft: Name = Field(description="trainer of the fine-tuned-on-chosen baseline")
    benchmarks: dict[Name, Name] = Field(min_length=1, description="report name -> choice")
    given: dict[Name, Name] = Field(description="checkpoint name -> preferences that it is trained on, from the base")
    seeds: Seeds
    prompts: Prompts
    sampling: Sampling
    weights: Weights
    rounds: dict[Annotated[str, Field(pattern=r"^r[0-9]+$")], Round] = Field(min_length=1)
    controls: dict[Name, Control]
    evaluation: Evaluation
    publish: Name = Field(description="where checkpoints and pairs go when they are done")

    def checkpoint_of(self, system: str) -> str:
        """Return the checkpoint that a round or a control draws from: a round's own, or the one its control names."""
        return self.controls[system].checkpoint if system in self.controls else system

    def parent_of(self, pairs: str) -> str:
        """Return the checkpoint that training on a round's pairs, or on given ones, starts from."""
        return "base" if pairs in self.given else self.rounds[pairs].prev

    @model_validator(mode="after")
    def _rounds_chain(self) -> "Params":
        """Every round starts from a checkpoint that exists; following `prev` always ends at the base model."""
        for name, item in self.rounds.items():
            seen, at = [name], item.prev
            while at not in {*CHECKPOINTS_BEFORE_ROUNDS, *self.given}:
                if at not in self.rounds:
                    known = ", ".join([*CHECKPOINTS_BEFORE_ROUNDS, *self.given, *self.rounds])
                    raise ValueError(f"rounds.{name}.prev leads to {at!r}, which is no checkpoint; known: {known}")
                if at in seen:
                    raise ValueError(f"rounds.{name}.prev goes in a circle: {' -> '.join([*seen, at])}")
                seen.append(at)
                at = self.rounds[at].prev
        if clash := sorted(set(self.controls) & set(self.rounds)):
            raise ValueError(f"controls and rounds share the name {clash[0]!r}; rename the control")
        return self

    @model_validator(mode="after")
    def _checkpoints_exist(self) -> "Params":
        """Every checkpoint has a name of its own, and a control draws from one that is made."""
        own = (*CHECKPOINTS_BEFORE_ROUNDS, *BASELINES)
        if clash := sorted(set(self.given) & {*own, *self.rounds}):
            raise ValueError(f"given.{clash[0]}: a checkpoint of that name is made already; choose another name")
        known = (*own, *self.given)
        for name, control in self.controls.items():
            if control.checkpoint not in known:
                raise ValueError(
                    f"controls.{name}.checkpoint is {control.checkpoint!r}, which is none of {', '.join(known)}"
                )
        return self


class Experiment(Config):
    """Params with every named choice parsed in its place: all that a stage may read."""

    params: Params
    corpus: CorpusConfig
    encoder: EncoderConfig
    lm: LmConfig
    vocoder: VocoderConfig
    asr: AsrConfig
    mos: MosConfig
    judge: JudgeConfig
    heldout_judge: JudgeConfig
    selector: SelectorConfig
    trainer: PreferenceTrainer
    ntp: NextUnitTrainer
    sft: PreferenceTrainer
    benchmarks: dict[Name, BenchmarkConfig]
    given: dict[Name, PreferencesConfig]
    publish: PublishConfig

    def choices(self) -> "Iterator[Choice]":
        """Yield every choice with the file it was read from, in the order of `CHOICE_FOLDERS`."""
        for key, folder in CHOICE_FOLDERS.items():
            names, configs = getattr(self.params, key), getattr(self, key)
            for name, config in (
                [(names[at], configs[at]) for at in names] if isinstance(names, dict) else [(names, configs)]
            ):
                yield Choice(key, Path("experiments", folder, f"{name}.yaml"), config)


class Choice(NamedTuple):
    """A chosen file: the key of params.yaml that names it, its path below the experiment's folder, its content."""

    key: str
    file: Path
    config: Config


# Which folder of experiments/ holds the files that a key of params.yaml chooses among.
CHOICE_FOLDERS = {
    "corpus": "corpus",
    "encoder": "encoder",
    "lm": "lm",
    "vocoder": "vocoder",
    "asr": "asr",
    "mos": "mos",
    "judge": "judge",
    "heldout_judge": "judge",
    "selector": "selector",
    "trainer": "trainer",
    "ntp": "trainer",
    "sft": "trainer",
    "benchmarks": "benchmark",
    "given": "preferences",
    "publish": "publish",
}
