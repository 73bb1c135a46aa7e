"""One run of one stage: its experiment, how it executes, where artifacts are, and its resumable work."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import polars as pl

from alignslm import integrity, tables
from alignslm.artifacts import Artifacts
from alignslm.config.execution import Execution
from alignslm.config.experiment import Experiment, Params
from alignslm.config.loading import load_execution, load_experiment
from alignslm.engine import Pool, pool_of
from alignslm.engine.work import LazyModel, lazy, with_contract
from alignslm.pipeline import Stage, stage_named
from alignslm.progress import StageLog
from alignslm.progress import stage as stage_log
from alignslm.shards import map_shards, map_table, map_tasks, work_folder

Model = TypeVar("Model")
Task = TypeVar("Task")


@dataclass(frozen=True)
class Run:
    """The context of a stage. `name` is its item, such as r1, if it has many."""

    label: str
    name: str
    script: str
    experiment: Experiment
    execution: Execution
    artifacts: Artifacts
    log: StageLog
    entry: Stage
    inputs: Mapping[str, str]

    @property
    def params(self) -> Params:
        """The content of params.yaml."""
        return self.experiment.params

    @contextmanager
    def work(self, **also: str) -> Iterator[Path]:
        """Yield the folder of unfinished work, which only a run with the same inputs, values and code finds again.

        Inputs and values are those of dvc.yaml; `also` identifies inputs outside the repository, such as audio files.
        """
        params = {**self.entry.values(), **also}
        with work_folder(self.label.replace("@", "-"), script=self.script, params=params, inputs=self.inputs) as work:
            yield work

    def sampling_folder(self, work: Path) -> Path:
        """Return the folder of sampled shards: batching changes the last digits of log-probabilities."""
        return work / ("strict" if self.execution.batch_invariant else "batched")

    def model(self, load: Callable[..., Model], *values: object) -> LazyModel[Model]:
        """Return a model that is loaded on the run's device, once in each process."""
        return lazy(load, *values, device=self.execution.device)

    def unit_model(
        self, load: Callable[..., Model], *values: object, units_of: tuple[tables.Table, Path]
    ) -> LazyModel[Model]:
        """Return a model that reads or writes units; at loading they must be those of the table and path named."""
        contract, path = tables.contract_of(*units_of), units_of[1]
        return with_contract(self.model(load, *values), contract, mine=Path(str(values[-1])), theirs=path)  # type: ignore[type-var]

    def map_rows(
        self,
        rows: pl.DataFrame,
        function: Callable[[pl.DataFrame], pl.DataFrame],
        work: Path,
        *,
        step: str = "",
        here: bool = False,
    ) -> Iterator[pl.DataFrame]:
        """Yield function(shard) for every shard of `rows`, only in this process if `here`; see `map_shards`."""
        size, pool = self.execution.shard_size, self._pool(here=here)
        return map_shards(rows, function, folder=work, shard_size=size, label=self._step(step), pool=pool)

    def map_table(
        self,
        table: tables.Table,
        path: Path,
        function: Callable[[pl.DataFrame], pl.DataFrame],
        work: Path,
        *,
        step: str = "",
    ) -> pl.DataFrame:
        """Return function(shard) of every shard of a table on disk; see `shards.map_table`."""
        size, pool = self.execution.shard_size, self._pool()
        shards = map_table(table, path, function, folder=work, shard_size=size, label=self._step(step), pool=pool)
        return pl.concat(shards)

    def map_tasks(
        self,
        tasks: Sequence[Task],
        function: Callable[[Task], pl.DataFrame],
        work: Path,
        *,
        step: str = "",
        here: bool = False,
    ) -> Iterator[pl.DataFrame]:
        """Yield function(task) for every task; see `shards.map_tasks`."""
        return map_tasks(tasks, function, folder=work, label=self._step(step), pool=self._pool(here=here))

    def _step(self, step: str) -> str:
        return f"{self.label} {step}".rstrip()

    def _pool(self, *, here: bool = False) -> Pool | None:
        return None if here else pool_of(self.execution)


@contextmanager
def start(script: str, name: str = "") -> Iterator[Run]:
    """Run the body of a stage; see `progress.stage`. `script` is its file, and its name that of the stage.

    Its inputs are verified and its outputs recorded, both as listed in dvc.yaml.
    """
    stage = Path(script).stem
    label = f"{stage}@{name}" if name else stage
    with stage_log(label) as log:
        experiment, execution = load_experiment(), load_execution()
        entry, outputs = stage_named(label)
        integrity.require_outputs(entry.deps, outputs)
        with integrity.stage(label, entry.deps, entry.outs) as inputs:
            yield Run(label, name, script, experiment, execution, Artifacts(), log, entry, inputs)


def outcomes(frame: pl.DataFrame) -> Mapping[str, int]:
    """Return how many rows have each status."""
    return dict(frame["status"].value_counts().sort("status").iter_rows())
