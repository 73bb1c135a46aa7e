"""What an experiment will download, request and need, computed from its parameters. Imports no torch."""

from pathlib import Path
from typing import NamedTuple

from alignslm.config.execution import Execution
from alignslm.config.experiment import Experiment
from alignslm.plan.downloads import Download, fetches_of
from alignslm.plan.memory import Memory, memory_of
from alignslm.plan.missing import missing_from
from alignslm.plan.workload import Workload, volume_of


class Plan(NamedTuple):
    """A run's downloads, amounts of work and memory; `missing` lists all that keeps it from running."""

    fetches: list[Download]
    volume: Workload
    memory: list[Memory]
    missing: list[str]


def plan_of(experiment: Experiment, root: Path, *, execution: Execution, ask_hub: bool) -> Plan:
    """Plan an experiment of `root`. With `ask_hub`, the Hub is asked for sizes and access."""
    fetches = fetches_of(experiment, ask_hub=ask_hub)
    volume = volume_of(experiment, root)
    memory = memory_of(experiment, batch_size=execution.batch_size)
    return Plan(fetches, volume, memory, missing_from(experiment, execution, fetches, volume, root))
