"""What keeps an experiment from running, as far as that can be known without running it: all of it at once."""

import configparser
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

from alignslm.config.corpora import SPLITS, LibriSpeechPart, MlsPart, Recordings
from alignslm.config.execution import Execution
from alignslm.config.experiment import Experiment
from alignslm.config.llm_judges import OpenAIJudgeConfig
from alignslm.config.prerequisites import asr_faults, execution_faults, folder_faults, judge_faults
from alignslm.integrity import LockError, lock_entries
from alignslm.plan.disk import dvc_settings
from alignslm.plan.downloads import Download
from alignslm.plan.workload import Workload
from alignslm.storage import write_error


def missing_from(
    experiment: Experiment, execution: Execution, fetches: list[Download], volume: Workload, root: Path
) -> list[str]:
    """Return one sentence for each thing that is missing, with what would provide it."""
    lacking = [
        *folder_faults(experiment, root),
        *judge_faults(experiment, root),
        *asr_faults(experiment, root),
        *execution_faults(execution, root),
    ]
    return [
        *workspace_faults(root),
        *map(str, lacking),
        *(f"{fetch.key}: {fetch.fault}" for fetch in fetches if fetch.fault),
        *_subsets(experiment),
        *_budgets(experiment, volume),
    ]


def _subsets(experiment: Experiment) -> Iterator[str]:
    """A folder that exists may lack subsets that the corpus names."""
    if not isinstance(experiment.corpus, Recordings):
        return
    for name, part in experiment.corpus.parts.items():
        if not isinstance(part, LibriSpeechPart | MlsPart):
            continue
        folder, _ = part.source.expanded()
        absent = [subset for split in SPLITS for subset in part.subsets.of(split) if not (folder / subset).is_dir()]
        if absent and folder.is_dir():
            yield f"corpus.parts.{name}: {folder} has no {', '.join(absent)}; unpack them there"


def _budgets(experiment: Experiment, volume: Workload) -> Iterator[str]:
    for requested in volume.asked:
        config = getattr(experiment, requested.key)
        if isinstance(config, OpenAIJudgeConfig) and requested.requests > config.budget.requests:
            yield (
                f"{requested.key}: {requested.choice} needs {requested.requests} requests, but its budget allows "
                f"{config.budget.requests}; raise budget.requests in experiments/judge/{requested.choice}.yaml, "
                "or lower the number of prompts or continuations"
            )


def workspace_faults(root: Path) -> Iterator[str]:
    """Yield what would stop DVC in this folder: no repository or git, an unwritable cache, another run."""
    top = next((folder for folder in (root.resolve(), *root.resolve().parents) if (folder / ".dvc").is_dir()), None)
    if top is None:
        yield f"DVC: {root.resolve()} is not in a DVC repository; run `git init && dvc init` there"
        return
    settings = dvc_settings(top / ".dvc")
    no_scm = settings.get("core", "no_scm", fallback="false").lower() == "true"
    if not no_scm and not any((folder / ".git").exists() for folder in (top, *top.parents)):
        yield (
            f"git: {top} is not a git repository, but DVC was set up with one; run `git init`, or let DVC do without: "
            "`dvc config core.no_scm true`"
        )
    yield from _cache_faults(top / ".dvc", settings)
    if (root / "dvc.lock").exists():
        try:
            lock_entries(root / "dvc.lock")
        except LockError as error:
            yield str(error)
    yield from _lock_faults(top / ".dvc" / "tmp" / "lock")


def _cache_faults(folder: Path, settings: configparser.ConfigParser) -> Iterator[str]:
    cache = folder / Path(settings.get("cache", "dir", fallback="cache")).expanduser()
    if why := write_error(cache):
        yield (
            f"DVC: its cache {cache} cannot be written ({why}); make it writable, make room, or name another: "
            "`dvc cache dir --local FOLDER`"
        )


def _lock_faults(lock: Path) -> Iterator[str]:
    """DVC locks a file while it runs, and writes its process id into it."""
    if not lock.exists() or sys.platform == "win32":  # which lets no second process open it
        return
    import fcntl

    with lock.open() as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = stream.read(20).strip() or "unknown"
            here = f" (`{command}`)" if (command := _command_of(holder)) else ""
            yield f"DVC: process {holder}{here} is running in this repository; wait for it, or end it"


def _command_of(process: str) -> str:
    """Return a process's command line, or nothing if the system does not tell it."""
    import psutil

    try:
        return shlex.join(psutil.Process(int(process)).cmdline()) if process.isdecimal() else ""
    except psutil.Error:
        return ""
