"""Where shards are computed: in this process, in several on this machine, or by actors on a Ray cluster.

A pool never decides what is computed, only where. Shards come back as they are finished, whole frames, to the one
process that makes them durable (`alignslm.shards`).
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

import polars as pl

from alignslm.config.execution import Execution

Task = TypeVar("Task")
MAX_ATTEMPTS = 3  # how often a shard is begun before it is blamed for the loss of its workers
QUEUED = 2  # shards given to one worker at once: it finds the next one waiting, and no more than that is in memory


class EngineError(ValueError):
    """The engine that execution.yaml asks for is not there, or has not the room."""


class WorkerLostError(ValueError):
    """A shard has lost its worker again and again."""


class Pool(Protocol):
    """Computes shards elsewhere."""

    def run(
        self, function: Callable[[Task], pl.DataFrame], tasks: Iterable[tuple[int, Task]], *, label: str
    ) -> Iterator[tuple[int, pl.DataFrame]]:
        """Yield (number, function(task)) in order of completion.

        Tasks are taken as workers become free. A lost worker's tasks are redone. An error of `function` ends the run.
        """
        ...


def pool_of(execution: Execution) -> Pool | None:
    """Return the pool that computes shards under these settings; None if this process does it."""
    if execution.batch_invariant:
        import torch

        torch.set_num_threads(1)
    if execution.engine == "ray":
        from alignslm.engine.ray_cluster import RayPool

        return RayPool(execution)
    from alignslm.engine.local import ProcessPool, gpus_of

    gpus = gpus_of(execution.device) if execution.device != "cpu" else []
    replicas = max(1, len(gpus)) if execution.replicas == "auto" else execution.replicas
    return ProcessPool(replicas, gpus=gpus, batch_invariant=execution.batch_invariant) if replicas > 1 else None


def worker_lost_error(numbers: Iterable[int], *, label: str) -> WorkerLostError:
    """Return the error for shards (counted from 0) that lost their workers too often."""
    named = [str(number + 1) for number in sorted(numbers)]
    which = f"shard {named[0]}" if len(named) == 1 else f"one of the shards {', '.join(named)}"
    return WorkerLostError(
        f"{label}: {which} lost the process that worked on it {MAX_ATTEMPTS} times. Was it killed, or is memory too "
        "small? Lower replicas, batch_size or shard_size in experiments/execution.yaml and run the same command again: "
        "finished shards are kept."
    )
