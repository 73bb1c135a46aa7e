"""Actors on a running Ray cluster, each with its own model: Ray places and restarts them."""

import logging
import os
import socket
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import polars as pl

from alignslm.config.execution import Execution
from alignslm.engine import MAX_ATTEMPTS, QUEUED, EngineError, worker_lost_error
from alignslm.engine.local import set_num_threads
from alignslm.extras import needed

Task = TypeVar("Task")
SENT = ("ALIGNSLM_", "HF_", "TOKENIZERS_", "TRANSFORMERS_")  # variables with the folders of models and caches
CPUS_CLAIMED = 0.5  # enough to be counted; two actors of a whole CPU each find no place on two cores
WAIT_S = 30.0
KNOCK_S = 10.0
PAUSE_S = 0.2  # until a lost actor is asked again if it was placed


@dataclass(frozen=True)
class _Place:
    """What an actor inherits from the process that created it."""

    folder: str
    variables: dict[str, str]
    threads: int

    def enter(self, payload: bytes) -> Callable[..., pl.DataFrame]:
        """Go there and unpack the work: relative paths then mean the same files."""
        from ray import cloudpickle

        os.environ.update(self.variables)
        try:
            os.chdir(self.folder)
        except OSError as error:
            raise EngineError(
                f"machine {socket.gethostname()} of the Ray cluster cannot enter {self.folder} ({error.strerror}). All "
                "its machines must see the experiment's folder under one path: put it on a shared file system."
            ) from error
        if self.folder not in sys.path:
            sys.path.insert(0, self.folder)
        function = cloudpickle.loads(payload)
        set_num_threads(self.threads)
        return function


class _Replica:
    """The actor. It prepares itself at its first task, so that a restarted one does too."""

    def __init__(self, place: _Place, payload: bytes) -> None:
        self.place, self.payload = place, payload
        self.function: Callable[..., pl.DataFrame] | None = None

    def ready(self) -> int:
        """Answer once there is a place for it."""
        return os.getpid()

    def apply(self, number: int, task: object) -> tuple[int, pl.DataFrame | None]:
        """Return the number and the finished frame."""
        self.function = self.function or self.place.enter(self.payload)
        return number, self.function(task)


class RayPool:
    """Actors, their number and claims from the settings and the cluster; see `alignslm.engine.Pool`."""

    def __init__(self, execution: Execution) -> None:
        self.execution = execution
        connect(execution.ray_address)
        self.gpus, self.cpus, machines = _size(execution)
        self.replicas = (self.gpus or machines) if execution.replicas == "auto" else execution.replicas
        room = self.gpus or int(self.cpus / CPUS_CLAIMED)
        if self.replicas > room:
            raise EngineError(
                f"replicas is {self.replicas}, but the Ray cluster has room for {room} ({self.gpus} GPUs, "
                f"{self.cpus:g} CPUs). Lower replicas in experiments/execution.yaml, or add machines to the cluster."
            )

    def run(
        self, function: Callable[[Task], pl.DataFrame], tasks: Iterable[tuple[int, Task]], *, label: str
    ) -> Iterator[tuple[int, pl.DataFrame]]:
        """See `alignslm.engine.Pool`. The actors go when the last shard is done, or the run ends otherwise."""
        import ray

        actors = self._place(function, label)
        try:
            yield from _Run(actors, iter(tasks), label).results()
        finally:
            for actor in actors:
                ray.kill(actor)

    def _place(self, function: Callable[[Task], pl.DataFrame], label: str) -> list[Any]:
        """Start the actors and wait until the cluster has found a place for each."""
        import ray

        actor = ray.remote(_Replica).options(
            num_cpus=CPUS_CLAIMED,
            num_gpus=1 if self.gpus else 0,
            max_restarts=-1,  # tasks are retried by `_Run`
            scheduling_strategy="SPREAD",
        )
        variables = {name: value for name, value in os.environ.items() if name.startswith(SENT)}
        threads = 1 if self.execution.batch_invariant else max(1, int(self.cpus / self.replicas))
        place, payload = _Place(str(Path.cwd()), variables, threads), ray.cloudpickle.dumps(function)
        actors: list[Any] = [actor.remote(place, payload) for _ in range(self.replicas)]
        waiting = [one.ready.remote() for one in actors]
        while waiting:
            _, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=WAIT_S)
            if waiting:
                print(f"{label}: {len(waiting)} of {len(actors)} replicas wait for a place on the cluster", flush=True)
        return actors


def connect(address: str) -> None:
    """Join the running cluster at `address`, once per process. Raises EngineError if there is none."""
    with needed("ray", by="engine: ray"):
        import ray
    if ray.is_initialized():
        return
    named = os.environ.get("RAY_ADDRESS") if address == "auto" else address
    try:
        if named:
            _check_reachable(named)
        ray.init(address=address, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError) as error:
        raise EngineError(
            f"engine is ray, but no Ray cluster answers at {named or 'this machine'}. Start one with "
            "`ray start --head` here, add machines with `ray start --address=HOST:6379`, and give ray_address (or "
            "RAY_ADDRESS) its HOST:PORT; or set engine: local in experiments/execution.yaml. Ray's message: "
            f"{str(error).partition(chr(10))[0]}"
        ) from error


def _check_reachable(address: str) -> None:
    """Raise an OSError or ValueError if nothing listens at HOST:PORT: Ray itself tries for more than ten minutes."""
    host, _, port = address.rpartition("/")[2].rpartition(":")
    socket.create_connection((host, int(port)), timeout=KNOCK_S).close()


def _size(execution: Execution) -> tuple[int, float, int]:
    """Return GPUs (0 if they are not to be used), CPUs and machines of the cluster. Raises EngineError."""
    import ray

    resources = ray.cluster_resources()
    gpus = 0 if execution.device == "cpu" else int(resources.get("GPU", 0))
    if execution.device == "cuda" and not gpus:
        raise EngineError("device is cuda, but the Ray cluster has no GPU; set device: auto in execution.yaml.")
    return gpus, resources.get("CPU", 1.0), sum(node["Alive"] for node in ray.nodes())


class _Run(Generic[Task]):
    """Tasks on their way through the actors.

    Ray's own retries are not used. While a machine that is gone has not been declared dead, which takes many seconds,
    its actors fail at once and again: that would use up every retry of shards that are to blame for nothing. So a
    lost actor gets no shard until it answers from its new place, and its shards go to the others.
    """

    def __init__(self, actors: list[Any], tasks: Iterator[tuple[int, Task]], label: str) -> None:
        self.free, self.tasks, self.label = deque(actors * QUEUED), tasks, label
        self.again: deque[tuple[int, Task]] = deque()
        self.flight: dict[Any, tuple[Any, tuple[int, Task]]] = {}
        self.away: dict[Any, Any] = {}  # what lost actors were asked
        self.losses: Counter[int] = Counter()
        self.last_warning = time.monotonic()

    def results(self) -> Iterator[tuple[int, pl.DataFrame]]:
        """Yield every number and frame as they come."""
        import ray

        while True:
            self._dispatch()
            if not self.flight and not self.again:
                return
            for answer in ray.wait([*self.flight, *self.away], num_returns=1, timeout=WAIT_S)[0]:
                if answer in self.away:
                    self._readmit_actor(answer)
                elif finished := self._take(answer):
                    yield finished

    def _dispatch(self) -> None:
        """Give tasks to actors with capacity, first those to repeat."""
        while self.free and (item := self.again.popleft() if self.again else next(self.tasks, None)):
            actor = self.free.popleft()
            self.flight[actor.apply.remote(*item)] = actor, item

    def _take(self, answer: Any) -> tuple[int, pl.DataFrame] | None:
        """Return a finished shard, None if it was lost; an error of the task itself is raised as it is."""
        import ray
        from ray.exceptions import RayTaskError

        actor, item = self.flight.pop(answer)
        try:
            number, frame = ray.get(answer)
        except RayTaskError as error:
            raise error.cause from error
        except _losses() as error:
            self._handle_lost_actor(actor, item, error)
            return None
        del self.losses[number]
        self.free.append(actor)
        return number, frame

    def _handle_lost_actor(self, actor: Any, item: tuple[int, Task], error: Exception) -> None:
        number, _ = item
        self.losses[number] += 1
        if self.losses[number] >= MAX_ATTEMPTS:
            suspects = [one for one, times in self.losses.items() if times >= MAX_ATTEMPTS - 1]  # lost together
            raise worker_lost_error(suspects, label=self.label) from error
        print(f"{self.label}: a worker was lost; shard {number + 1} is begun again", flush=True)
        self.again.append(item)
        self.away[actor.ready.remote()] = actor

    def _readmit_actor(self, answer: Any) -> None:
        """Let an actor that answers work again; ask another one again."""
        import ray

        actor = self.away.pop(answer)
        try:
            ray.get(answer)
        except _losses():
            time.sleep(PAUSE_S)
            self._log_waiting()
            self.away[actor.ready.remote()] = actor
        else:
            self.free.append(actor)

    def _log_waiting(self) -> None:
        if not self.flight and time.monotonic() - self.last_warning > WAIT_S:
            self.last_warning = time.monotonic()
            print(f"{self.label}: all replicas are lost and wait for a place on the cluster", flush=True)


def _losses() -> tuple[type[Exception], ...]:
    """Return Ray's errors for a lost actor, machine or result."""
    from ray import exceptions

    return exceptions.RayActorError, exceptions.OutOfMemoryError, exceptions.NodeDiedError, exceptions.ObjectLostError
