"""params.yaml as one typed value, and the configs it names."""

from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

from pydantic import Field, model_validator

from alignslm.config.curriculum import CORPUS, BestOf, Checkpoint, JudgedPreferences, RewardModel, System
from alignslm.config.document import KeyPath, Plain
from alignslm.config.evaluation import BenchmarkConfig, Evaluation
from alignslm.config.feedback import AutoBleu, JudgeConfig, Sampling, SelectorConfig, Weights
from alignslm.config.guard import Guard
from alignslm.config.model import Config, Label, Name
from alignslm.config.models import LmConfig, PreferenceTrainerConfig, Prompts, Seeds, TrainerConfig, has_preference_term
from alignslm.config.mos import MosConfig
from alignslm.config.preferences import PreferencesConfig
from alignslm.config.publishing import NoPublishing, PublishConfig
from alignslm.config.speech import AsrConfig, CorpusConfig, EncoderConfig, VocoderConfig

BASE = "base"  # the checkpoint that the stage `base` makes


class Round(NamedTuple):
    """A checkpoint of the curriculum, and the judged preferences it is trained on."""

    init_from: str
    pairs: str
    rule: JudgedPreferences


class Params(Config):
    """The content of params.yaml: names of configs, and the values that belong to one experiment only."""

    corpus: Name
    encoder: Name
    lm: Name
    vocoder: Name
    asr: Name
    mos: Name = Field(description="predicts how good speech sounds; reported, never trained on")
    judge: Name = Field(description="the judge with the scores that become preference pairs")
    heldout_judge: Name = Field(description="a judge that never trains, only reports")
    selector: Name
    benchmarks: dict[Label, Name] = Field(min_length=1, description="report name -> config")
    imported_preferences: dict[Label, Name] = Field(description="name of their pairs -> config")
    seeds: Seeds
    prompts: Prompts
    sampling: Sampling
    auto_bleu: AutoBleu = "gslm"
    weights: Weights
    preferences: dict[Label, JudgedPreferences] = Field(min_length=1)
    checkpoints: dict[Label, Checkpoint] = Field(min_length=1)
    guards: dict[Label, Guard] = Field(description="further checkpoints, each the best saved step of one inside limits")
    reward_models: dict[Label, RewardModel] = Field(description="tell from units what the judge would say")
    best_of: dict[Label, BestOf] = Field(description="best-of-N by the training judge, on held-out prompts")
    systems: dict[Label, System] = Field(min_length=1)
    evaluation: Evaluation
    publish: Name = Field(description="where checkpoints and pairs go when they are done")

    @property
    def aligned(self) -> dict[str, Round]:
        """Every checkpoint that is trained on judged preferences."""
        return {
            name: Round(item.init_from, item.pairs, self.preferences[item.pairs])
            for name, item in self.checkpoints.items()
            if item.pairs is not None and item.pairs in self.preferences
        }

    @property
    def rounds(self) -> dict[str, Round]:
        """The curriculum: of each set of judged preferences the checkpoint of its name, or the first trained on it.

        A round is evaluated, as the system of its name. Other checkpoints trained on the same pairs are compared with
        it, such as the sft baseline.
        """
        found: dict[str, Round] = {}
        for pairs in self.preferences:
            trained = {n: item for n, item in self.aligned.items() if item.pairs == pairs and n in self.systems}
            if trained:
                name = pairs if pairs in trained else next(iter(trained))
                found[name] = trained[name]
        return found

    @property
    def toplines(self) -> list[str]:
        """The systems that are the ground truth, not a model."""
        return [name for name, system in self.systems.items() if system.source == CORPUS]

    def sampled_checkpoint(self, system: str) -> str | None:
        """The checkpoint that a system's continuations are drawn from; None for the ground truth."""
        item = self.systems[system]
        if item.judged_best is not None:
            return self.best_of[item.judged_best].sampled_from
        if item.reward_model is None:
            return item.checkpoint
        return self.preferences[self.reward_models[item.reward_model].preferences].sampled_from

    @property
    def ordered_systems(self) -> list[str]:
        """The systems as reports list them: baselines, rounds, then the ground truth."""
        rounds = self.rounds
        return [*(name for name in self.systems if name not in {*rounds, *self.toplines}), *rounds, *self.toplines]

    @model_validator(mode="after")
    def _one_name_each(self) -> "Params":
        """No two nouns of one kind have the same name."""
        if BASE in self.checkpoints:
            raise ValueError(f"checkpoints.{BASE} is what the key lm makes; choose another name")
        if clash := sorted(set(self.preferences) & set(self.imported_preferences)):
            raise ValueError(f"imported_preferences.{clash[0]} is also a name in preferences; choose another")
        if clash := sorted(set(self.guards) & {BASE, *self.checkpoints}):
            raise ValueError(f"guards.{clash[0]} is also the name of a checkpoint; choose another")
        if clash := sorted(set(self.reward_models) & {BASE, *self.checkpoints, *self.guards}):
            raise ValueError(f"reward_models.{clash[0]} is also the name of a checkpoint; choose another")
        return self

    @model_validator(mode="after")
    def _everything_is_made(self) -> "Params":
        """Whatever a noun names is made by another one, and no checkpoint rests on itself."""
        for key, wanted, known in self._uses():
            if wanted is not None and wanted not in known:
                raise ValueError(f"{key} is {wanted!r}, which nothing makes; known: {', '.join(known)}")
        try:
            TopologicalSorter(self._needs()).prepare()
        except CycleError as error:
            name = next(name for name in error.args[1] if name.startswith("checkpoints."))
            raise ValueError(f"{name}.init_from leads in a circle: {' -> '.join(error.args[1])}") from error
        for name, guard in self.guards.items():
            watched = self.checkpoints[guard.steps_of]
            if not watched.keep_steps:
                raise ValueError(f"guards.{name} needs every step: set checkpoints.{guard.steps_of}.keep_steps to true")
            if watched.init_from != guard.init_from:
                raise ValueError(
                    f"guards.{name}.init_from is {guard.init_from}, but {guard.steps_of} was trained from "
                    f"{watched.init_from}: write that"
                )
        return self

    def _uses(self) -> Iterator[tuple[str, str | None, list[str]]]:
        """Yield (key, the name it holds, the names that it may hold); None where it holds one of another kind."""
        trained, pairs = [*self.checkpoints], [*self.preferences, *self.imported_preferences]
        checkpoints = [BASE, *trained, *self.guards]
        for name, preferences in self.preferences.items():
            yield f"preferences.{name}.sampled_from", preferences.sampled_from, checkpoints
        for name, checkpoint in self.checkpoints.items():
            yield f"checkpoints.{name}.init_from", checkpoint.init_from, checkpoints
            yield f"checkpoints.{name}.train_on", checkpoint.pairs, pairs
            yield f"checkpoints.{name}.train_on", checkpoint.scores, list(self.preferences)
            yield f"checkpoints.{name}.train_on", checkpoint.rewards, list(self.reward_models)
        for name, guard in self.guards.items():
            yield f"guards.{name}.steps_of", guard.steps_of, trained
            yield f"guards.{name}.init_from", guard.init_from, checkpoints
        for name, reward in self.reward_models.items():
            yield f"reward_models.{name}.init_from", reward.init_from, checkpoints
            yield f"reward_models.{name}.preferences", reward.preferences, list(self.preferences)
        for name, best in self.best_of.items():
            yield f"best_of.{name}.sampled_from", best.sampled_from, checkpoints
        for name, system in self.systems.items():
            yield f"systems.{name}.source", system.checkpoint, checkpoints
            yield f"systems.{name}.source", system.reward_model, list(self.reward_models)
            yield f"systems.{name}.source", system.judged_best, list(self.best_of)

    def _needs(self) -> dict[str, list[str]]:
        """Return what each checkpoint and each set of preferences needs first, by dotted keys."""
        needs = {
            f"checkpoints.{name}": [
                f"checkpoints.{item.init_from}",
                f"reward_models.{item.rewards}" if item.rewards else f"preferences.{item.pairs or item.scores}",
            ]
            for name, item in self.checkpoints.items()
        }
        needs |= {
            f"reward_models.{name}": [f"checkpoints.{item.init_from}", f"preferences.{item.preferences}"]
            for name, item in self.reward_models.items()
        }
        needs |= {f"checkpoints.{name}": [f"checkpoints.{item.steps_of}"] for name, item in self.guards.items()}
        sampled = {f"preferences.{name}": [f"checkpoints.{p.sampled_from}"] for name, p in self.preferences.items()}
        return needs | sampled


class Experiment(Config):
    """Params with every named config parsed in its place: all that a stage may read."""

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
    checkpoints: dict[Label, TrainerConfig]
    reward_models: dict[Label, TrainerConfig]
    benchmarks: dict[Label, BenchmarkConfig]
    imported_preferences: dict[Label, PreferencesConfig]
    publish: PublishConfig

    def choices(self) -> "Iterator[Choice]":
        """Yield every config with the file it was read from, in the order of `CONFIG_GROUPS`."""
        for path, name in chosen(self.params.model_dump(mode="json")):
            config = getattr(self, path[0])
            file = Path("experiments", CONFIG_GROUPS[path[0]], f"{name}.yaml")
            yield Choice(path[0], file, config[path[1]] if len(path) > 1 else config, path)


def chosen(params: Mapping[str, Plain]) -> Iterator[tuple[KeyPath, str]]:
    """Yield (key path, name) of every config that the data of a params.yaml names."""
    for key in CONFIG_GROUPS:
        value = params.get(key)
        for path, choice in _below(key, value).items():
            if isinstance(choice, str):
                yield path, choice


def _below(key: str, value: Plain) -> dict[KeyPath, Plain]:
    if not isinstance(value, dict):
        return {(key,): value}
    if key in {"checkpoints", "reward_models"}:
        return {(key, name, "trainer"): item.get("trainer") for name, item in value.items() if isinstance(item, dict)}
    return {(key, name): choice for name, choice in value.items()}


def preference_trainer(experiment: Experiment, name: str) -> PreferenceTrainerConfig:
    """Return how a checkpoint is trained that learns from pairs."""
    trainer = experiment.checkpoints[name]
    assert isinstance(trainer, PreferenceTrainerConfig)  # noqa: S101 - the configuration was checked for it
    return trainer


def published_checkpoints(experiment: Experiment) -> list[str]:
    """Return which checkpoints are pushed: the last round, or all preference training on judged pairs."""
    publish, params = experiment.publish, experiment.params
    if isinstance(publish, NoPublishing):
        return []
    evaluated = [
        name
        for name in params.aligned
        if name in params.systems and (name in params.rounds or has_preference_term(experiment.checkpoints[name]))
    ]
    return evaluated if publish.rounds == "all" else [name for name in evaluated if name in params.rounds][-1:]


class Choice(NamedTuple):
    """A chosen file: the first key of params.yaml's path to it, its own path, its content, and the whole path."""

    key: str
    file: Path
    config: Config
    path: KeyPath


# The folder of experiments/ with the configs that a key of params.yaml can name.
CONFIG_GROUPS = {
    "corpus": "corpus",
    "encoder": "encoder",
    "lm": "lm",
    "vocoder": "vocoder",
    "asr": "asr",
    "mos": "mos",
    "judge": "judge",
    "heldout_judge": "judge",
    "selector": "selector",
    "checkpoints": "trainer",
    "reward_models": "trainer",
    "benchmarks": "benchmark",
    "imported_preferences": "preferences",
    "publish": "publish",
}
