"""The runs of a sweep: all valid before the first one starts, each made once, recognized by its inputs."""

import contextlib
import hashlib
import multiprocessing
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from alignslm import lifeline
from alignslm.config.experiment import Experiment
from alignslm.config.problems import ConfigError
from alignslm.pipeline import UNVARYING, Stage, read_stages, sources
from alignslm.speed.forkserver import can_fork, start_server
from alignslm.sweep import SweepError
from alignslm.sweep.folder import INPUTS, Finished, RunFolder, git
from alignslm.sweep.settings import Combination

LOGS = Path(".work", "sweep", "logs")


@dataclass(frozen=True)
class Run:
    """One valid run: its name, values, inputs, and the stages it has, each with a hash of all that decides it."""

    name: str
    combination: Combination
    tree: str
    experiment: Experiment
    stages: Mapping[str, str]
    order: tuple[Stage, ...]

    @property
    def log(self) -> Path:
        """Path of its log, relative to the experiment."""
        return LOGS / f"{self.name}.log"


def plan_runs(folder: RunFolder, combinations: Sequence[Combination], check: Callable[[Path], Experiment]) -> list[Run]:
    """Return the runs if all of them are valid by `check`, which is given an experiment's folder.

    Raises SweepError with the problems of all combinations.
    """
    folder.prepare()
    names = _names(folder)
    runs, faults = [], dict[str, list[str]]()
    for combination in combinations:
        try:
            tree = folder.write(combination)
            with contextlib.chdir(folder.experiment):  # problems name files as in the experiment
                experiment, stages = check(Path()), read_stages()
                hashes = stage_hashes(stages, folder.objects(tree))
            runs.append(Run(names(combination.name, tree), combination, tree, experiment, hashes, tuple(stages)))
        except (ConfigError, SweepError) as error:
            for line in str(error).splitlines():
                faults.setdefault(line, []).append(" ".join(combination.settings))
    folder.reset()
    if faults:
        raise SweepError(
            "\n".join(["nothing was run:", *(_fault(*fault, len(combinations)) for fault in faults.items())])
        )
    return runs


def _fault(message: str, where: Sequence[str], total: int) -> str:
    if len(where) == total:
        return f"  {message}"
    return f"  {where[0]}{f' (and {len(where) - 1} more)' if len(where) > 1 else ''}: {message}"


def _names(folder: RunFolder) -> Callable[[str, str], str]:
    """Return a function that names a run: as wanted, or with a part of its hash if another run has that name."""
    taken = {made.name: tree for tree, made in folder.workspace.finished().items()}

    def name(wanted: str, tree: str) -> str:
        own = wanted if taken.setdefault(wanted, tree) == tree else f"{wanted}-{tree[:6]}"
        return next((known for known, other in taken.items() if other == tree), own)

    return name


def stage_hashes(stages: Iterable[Stage], objects: Mapping[str, str]) -> dict[str, str]:
    """Return a hash per stage, in running order, of its command, values, files and of the stages that it reads from.

    `objects` are the files of the experiment that git has. Equal hashes mean that DVC runs the stage once for both.
    """
    known, found = list(stages), dict[str, str]()
    for stage in known:
        before = [found[other.name] for other in sources(stage, known) if other.name != UNVARYING]
        files = [(path, name) for path, name in objects.items() if any(_is_in(path, dep) for dep in stage.deps)]
        values = {} if stage.name == UNVARYING else stage.values()
        text = repr((stage.name, stage.cmd, stage.deps, stage.outs, sorted(values.items()), sorted(before), files))
        found[stage.name] = hashlib.sha256(text.encode()).hexdigest()
    return found


def _is_in(path: str, place: str) -> bool:
    return path == place or path.startswith(f"{place}/")


def shared_stages(runs: Sequence[Run]) -> tuple[list[Stage], int, int]:
    """Return the stages that are equal in all runs, and how many stages there are, with and without repetitions."""
    counts = Counter(item for run in runs for item in run.stages.items())
    equal = {name for (name, _), count in counts.items() if count == len(runs)}
    return [stage for stage in runs[0].order if stage.name in equal], counts.total(), len(counts)


def perform(folder: RunFolder, run: Run) -> Finished | None:
    """Make one run and add its experiment to the workspace's repository. Return None if it failed: see its log."""
    folder.write(run.combination)
    root, log = folder.workspace.root, folder.workspace.root / run.log
    log.parent.mkdir(parents=True, exist_ok=True)
    message = f"sweep {' '.join(run.combination.settings)}\n\n{INPUTS}{run.tree}"
    arguments = ["exp", "run", "--name", run.name, "--message", message]
    process = multiprocessing.get_context("spawn").Process(
        target=_be_dvc, args=[str(folder.experiment.resolve()), str(log.resolve()), os.getpid(), arguments]
    )
    process.start()
    process.join()
    if process.exitcode != 0:
        return None
    reference = f"{folder.workspace.references}/{run.name}"
    git(root, "fetch", "-q", "--no-tags", str(folder.clone.resolve()), f"{reference}:{reference}")
    return Finished(run.name, git(root, "rev-parse", reference))


def _be_dvc(folder: str, log: str, parent: int, arguments: Sequence[str]) -> None:
    """Run DVC in this process, which ends within a second of the sweep, however that ended; its stages end with it."""
    stream = os.open(log, os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
    for number in (1, 2):
        os.dup2(stream, number)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    os.chdir(folder)
    if can_fork():
        start_server()
    lifeline.follow(parent)
    del os.environ[lifeline.VARIABLE]  # stages follow DVC
    from dvc.cli import main

    sys.exit(main(list(arguments)))


def last_lines(log: Path, count: int = 12) -> list[str]:
    """Return the last lines of a log that are not empty."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
    return [line for line in lines if line.strip()][-count:]
