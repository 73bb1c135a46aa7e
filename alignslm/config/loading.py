"""Read params.yaml and the files it chooses, and report every fault of all of them at once."""

import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

from pydantic import TypeAdapter

from alignslm.config.crosschecks import Conflict, conflicts
from alignslm.config.document import Document, KeyPath, read_document
from alignslm.config.evaluation import BenchmarkConfig
from alignslm.config.execution import Execution
from alignslm.config.experiment import CONFIG_GROUPS, Experiment, Params, chosen
from alignslm.config.feedback import JudgeConfig, SelectorConfig
from alignslm.config.listening import ListeningTestConfig
from alignslm.config.model import Config
from alignslm.config.models import LmConfig, TrainerConfig
from alignslm.config.mos import MosConfig
from alignslm.config.preferences import PreferencesConfig
from alignslm.config.problems import ConfigError, ConfigProblem, suggestion
from alignslm.config.publishing import PublishConfig
from alignslm.config.speech import AsrConfig, CorpusConfig, EncoderConfig, VocoderConfig
from alignslm.config.validation import kinds, validate

CONFIG_TYPES: Mapping[str, object] = {
    "corpus": CorpusConfig,
    "encoder": EncoderConfig,
    "lm": LmConfig,
    "vocoder": VocoderConfig,
    "asr": AsrConfig,
    "mos": MosConfig,
    "judge": JudgeConfig,
    "heldout_judge": JudgeConfig,
    "selector": SelectorConfig,
    "checkpoints": TrainerConfig,
    "reward_models": TrainerConfig,
    "benchmarks": BenchmarkConfig,
    "imported_preferences": PreferencesConfig,
    "publish": PublishConfig,
}
EXECUTION_VARIABLE = "ALIGNSLM_EXECUTION"
Reads: TypeAlias = dict[KeyPath, Document]


def load_experiment(root: Path = Path()) -> Experiment:
    """Return the experiment that root/params.yaml describes.

    Raises ConfigError listing the faults of params.yaml and of every file it chooses. Disagreements between
    files are looked for once each file is valid by itself.
    """
    document = read_document(root / "params.yaml")
    if isinstance(document, list):
        raise ConfigError(document)
    return resolve(document, root)


def resolve(document: Document, root: Path) -> Experiment:
    """Return the experiment of a parsed params.yaml, with its configs from root/experiments."""
    params = validate(document, _adapter(Params), Params)
    faults = params if isinstance(params, list) else []
    reads: Reads = {(): document}
    values: dict[KeyPath, Config] = {}
    faulty = {fault.key for fault in faults}
    for key, choice in ((key, choice) for key, choice in chosen(document.data) if ".".join(key) not in faulty):
        result = _read_choice(document, key, choice, root)
        if isinstance(result, list):
            faults = [*faults, *result]
        else:
            reads[key], values[key] = result
    if faults or isinstance(params, list):
        raise ConfigError(faults)
    experiment = _assemble(params, values)
    if found := conflicts(experiment):
        raise ConfigError(_locate(conflict, reads) for conflict in found)
    return experiment


def execution_file(root: Path = Path()) -> Path:
    """Return root/experiments/execution.yaml, or the file that the variable ALIGNSLM_EXECUTION names."""
    named = os.environ.get(EXECUTION_VARIABLE)
    return Path(named) if named else root / "experiments" / "execution.yaml"


def load_execution(root: Path = Path()) -> Execution:
    """Return the settings of `execution_file`. Raises ConfigError listing its faults."""
    document = read_document(execution_file(root))
    result = document if isinstance(document, list) else validate(document, _adapter(Execution), Execution)
    if isinstance(result, list):
        raise ConfigError(result)
    return result


def load_config(group: str, name: str, kind: Any, root: Path = Path()) -> Any:
    """Return experiments/GROUP/NAME.yaml as a config of `kind`. ConfigError lists its problems, or existing names."""
    path = root / "experiments" / group / f"{name}.yaml"
    if not path.is_file():
        known = sorted(file.stem for file in path.parent.glob("*.yaml"))
        message = f"no file {path.as_posix()}" + suggestion(name, known, label="configs")
        raise ConfigError([ConfigProblem(path.as_posix(), None, "", message)])
    document = read_document(path)
    found = document if isinstance(document, list) else validate(document, _adapter(kind), kind)
    if isinstance(found, list):
        raise ConfigError(found)
    return found


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _read_choice(
    params: Document, key: KeyPath, choice: str, root: Path
) -> tuple[Document, Config] | list[ConfigProblem]:
    folder = root / "experiments" / CONFIG_GROUPS[key[0]]
    path = folder / f"{choice}.yaml"
    if not path.is_file():
        known = sorted(file.stem for file in folder.glob("*.yaml"))
        message = f"no file {path.as_posix()}" + suggestion(choice, known, label="configs")
        return [ConfigProblem(params.name, params.line(key), ".".join(key), message)]
    document = read_document(path)
    if isinstance(document, list):
        return document
    kind = CONFIG_TYPES[key[0]]
    named, known = document.data.get("kind"), kinds(kind)
    if isinstance(named, str) and named not in known:
        message = f"{named!r} is not a kind of {key[0]} ({params.name}:{params.line(key)})" + suggestion(named, known)
        return [ConfigProblem(document.name, document.line(("kind",)), "kind", message)]
    value = validate(document, _adapter(kind), kind)
    return value if isinstance(value, list) else (document, value)


def load_choice(path: Path, kind: object) -> Config:
    """Return one config file read as `kind`, a class or a union of classes. Raises ConfigError."""
    document = read_document(path)
    value = document if isinstance(document, list) else validate(document, _adapter(kind), kind)
    if isinstance(value, list):
        raise ConfigError(value)
    return value


def parse_choice(settings: Mapping[str, object], kind: object) -> Config:
    """Return a config from the settings that were written with an artifact."""
    return _adapter(kind).validate_python(settings)


def _assemble(params: Params, values: Mapping[KeyPath, Config]) -> Experiment:
    single = {key[0]: value for key, value in values.items() if len(key) == 1}
    many = ("checkpoints", "reward_models", "benchmarks", "imported_preferences")
    named = {kind: {key[1]: value for key, value in values.items() if key[0] == kind} for kind in many}
    return Experiment.model_validate({"params": params, **single, **named})


def _locate(conflict: Conflict, reads: Reads) -> ConfigProblem:
    document = reads[conflict.choice]
    return ConfigProblem(document.name, document.line(conflict.key), ".".join(conflict.key), conflict.message)


def library_faults(root: Path = Path()) -> list[ConfigProblem]:
    """Return the problems of every config in root/experiments, in use or not, each read by itself."""
    kinds: dict[str, Any] = {folder: CONFIG_TYPES[key] for key, folder in CONFIG_GROUPS.items()}
    kinds["listening"] = ListeningTestConfig
    faults: list[ConfigProblem] = []
    for folder, kind in kinds.items():
        for path in sorted((root / "experiments" / folder).glob("*.yaml")):
            document = read_document(path)
            result = document if isinstance(document, list) else validate(document, _adapter(kind), kind)
            faults += result if isinstance(result, list) else []
    return faults
