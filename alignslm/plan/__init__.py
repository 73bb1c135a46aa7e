"""What an experiment will download, request and need, computed from its parameters. Imports no torch."""

from pathlib import Path
from typing import NamedTuple

from alignslm.config.execution import Execution
from alignslm.config.experiment import Experiment
from alignslm.plan.disk import Disk, disk_of
from alignslm.plan.downloads import Download, fetches_of
from alignslm.plan.memory import Memory, memory_of
from alignslm.plan.missing import missing_from
from alignslm.plan.workload import Workload, volume_of


class Plan(NamedTuple):
    """A run's downloads, amounts of work, disk and memory; `missing` lists all that keeps it from running.

    `unreachable` has, by server, the reason why it did not answer.
    """

    fetches: list[Download]
    unreachable: dict[str, str]
    volume: Workload
    disk: Disk
    memory: list[Memory]
    missing: list[str]


def plan_of(experiment: Experiment, root: Path, *, execution: Execution, ask: bool) -> Plan:
    """Plan an experiment of `root`. With `ask`, sizes and access are looked up at the Hub and other servers."""
    fetches, unreachable = fetches_of(experiment, ask=ask)
    volume = volume_of(experiment, root)
    memory = memory_of(experiment, batch_size=execution.batch_size)
    disk = disk_of(experiment, root, fetches, volume)
    missing = [*missing_from(experiment, execution, fetches, volume, root), *disk.faults(root)]
    return Plan(fetches, unreachable, volume, disk, memory, missing)
