"""What configs need on this machine before anything runs: API keys, rubrics, packages, local folders."""

from collections.abc import Iterator
from pathlib import Path
from textwrap import indent

from alignslm.config.document import read_document
from alignslm.config.execution import Execution
from alignslm.config.experiment import Experiment
from alignslm.config.llm_judges import CausalLMJudgeConfig, OpenAIJudgeConfig
from alignslm.config.loading import execution_file
from alignslm.config.model_folders import model_folder_problems
from alignslm.config.problems import ConfigError, ConfigProblem
from alignslm.config.rubrics import Rubric, RubricError
from alignslm.config.sources import AnySource, FolderSource, PackageSource, sources_in
from alignslm.extras import lacking


def require_ready(experiment: Experiment, root: Path = Path()) -> None:
    """Raise ConfigError with everything that judges lack and every local folder or package that is not there.

    A folder may be read only by the last stage; a run of days should not end there.
    """
    if faults := [*judge_faults(experiment, root), *asr_faults(experiment, root), *folder_faults(experiment, root)]:
        raise ConfigError(faults)


def require_judges(experiment: Experiment, root: Path = Path()) -> None:
    """Raise ConfigError with everything that either judge lacks."""
    if faults := judge_faults(experiment, root):
        raise ConfigError(faults)


def judge_faults(experiment: Experiment, root: Path = Path()) -> list[ConfigProblem]:
    """Return what the training judge and the held-out judge lack, at the lines of their configs."""
    params = experiment.params
    return [
        *_faults(experiment.judge, root / "experiments" / "judge" / f"{params.judge}.yaml", root),
        *_faults(experiment.heldout_judge, root / "experiments" / "judge" / f"{params.heldout_judge}.yaml", root),
    ]


def folder_faults(experiment: Experiment, root: Path = Path()) -> list[ConfigProblem]:
    """Return the local folders, files and packages that configs name and that are not there."""
    found: dict[tuple[Path, str], ConfigProblem] = {}
    printed: set[str | None] = {None}
    for choice in experiment.choices():
        for key, source in sources_in(choice.config, ""):
            if reason := _absence(source, root):
                file = root / choice.file
                place = "packages" if isinstance(source, PackageSource) else "path"
                how = getattr(source, "fetch", None)
                if (file, key) not in found and how not in printed:
                    printed.add(how)
                    reason += f":\n{indent(how or '', '    ').rstrip()}"
                found.setdefault((file, key), _fault(file, f"{key}.{place}", reason))
    return list(found.values())


def asr_faults(experiment: Experiment, root: Path = Path()) -> list[ConfigProblem]:
    """Return the package that the ASR model needs, if it is not installed, at its line."""
    kind = experiment.asr.kind
    problem = lacking("ctranslate2", by=kind) if kind == "faster-whisper" else None
    return [_fault(root / "experiments" / "asr" / f"{experiment.params.asr}.yaml", "kind", problem)] if problem else []


def model_faults(experiment: Experiment, root: Path = Path()) -> list[ConfigProblem]:
    """Return what is wrong with the folders of models that configs name, of those that exist; no weight is loaded."""
    return [
        _fault(root / choice.file, "weights.path", problem)
        for choice in experiment.choices()
        if isinstance(source := getattr(choice.config, "weights", None), FolderSource) and not _absence(source, root)
        for problem in model_folder_problems(choice.config, root / source.expanded()[0])
    ]


def execution_faults(execution: Execution, root: Path = Path()) -> list[ConfigProblem]:
    """Return the package that the engine needs, if it is not installed, at its line."""
    problem = lacking("ray", by="engine: ray") if execution.engine == "ray" else None
    return [_fault(execution_file(root), "engine", problem)] if problem else []


def _absence(source: AnySource, root: Path) -> str | None:
    if isinstance(source, PackageSource):
        return source.problem()
    if not isinstance(source, FolderSource):
        return None
    path, unset = source.expanded()
    if unset:
        return f"the variable {unset} in {source.path} is not set; export {unset}=..., or write the path out"
    return None if (root / path).exists() else f"{path} does not exist; correct it, or put the files there"


def _faults(judge: object, file: Path, root: Path) -> Iterator[ConfigProblem]:
    if isinstance(judge, CausalLMJudgeConfig | OpenAIJudgeConfig):
        try:
            Rubric.read(judge.rubric, root)
        except RubricError as error:
            yield _fault(file, "rubric", str(error))
    if isinstance(judge, CausalLMJudgeConfig) and getattr(judge.weights, "path", "").endswith(".gguf"):
        problem = lacking("gguf", by="a GGUF file")
        yield from [_fault(file, "weights", problem)] if problem else []
    if isinstance(judge, OpenAIJudgeConfig):
        for key, problem in judge.problems():
            yield _fault(file, key, problem)


def _fault(file: Path, key: str, message: str) -> ConfigProblem:
    document = read_document(file)
    return ConfigProblem(
        file.as_posix(), None if isinstance(document, list) else document.line(tuple(key.split("."))), key, message
    )
