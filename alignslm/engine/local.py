"""Several processes on this machine, one per GPU if there are any, scheduled by concurrent.futures."""

import multiprocessing
import os
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.queues import SimpleQueue
from multiprocessing.reduction import ForkingPickler
from typing import TypeVar

import polars as pl

from alignslm.engine import MAX_ATTEMPTS, QUEUED, worker_lost_error
from alignslm.lifeline import become_worker
from alignslm.machine import cores

Task = TypeVar("Task")
_VISIBLE = "CUDA_VISIBLE_DEVICES"
_work: list[Callable[..., pl.DataFrame]] = []  # of a worker: the one function that it is there for


def gpus_of(device: str) -> list[str]:
    """Return how CUDA_VISIBLE_DEVICES names each GPU that `device` (auto or cuda) may use; none without one."""
    import torch

    from alignslm.device import resolve_device

    if not resolve_device(device).startswith("cuda"):
        return []
    named = [name for name in os.environ.get(_VISIBLE, "").split(",") if name]
    return named or [str(number) for number in range(torch.cuda.device_count())]


def set_num_threads(threads: int) -> None:
    """Set torch's number of threads, if it is used."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(threads)


class ProcessPool:
    """`replicas` spawned processes, each with a model of its own; see `alignslm.engine.Pool`."""

    def __init__(self, replicas: int, *, gpus: list[str], batch_invariant: bool) -> None:
        self.replicas, self.gpus = replicas, gpus
        threads = int(os.environ.get("OMP_NUM_THREADS", "").partition(",")[0] or cores())
        self.threads = 1 if batch_invariant else max(1, threads // replicas)

    def run(
        self, function: Callable[[Task], pl.DataFrame], tasks: Iterable[tuple[int, Task]], *, label: str
    ) -> Iterator[tuple[int, pl.DataFrame]]:
        """See `alignslm.engine.Pool`. A pool that loses a process is replaced by a new one."""
        payload = bytes(ForkingPickler.dumps(function))
        again: deque[tuple[int, Task]] = deque()
        flight: dict[int, Task] = {}
        losses: Counter[int] = Counter()
        source = iter(tasks)
        while True:
            with self._processes(payload) as executor:
                try:
                    yield from _submit_and_yield(executor, again, source, flight, room=QUEUED * self.replicas)
                except BrokenProcessPool:
                    losses.update(list(flight))
                else:
                    return
            if blamed := [number for number in flight if losses[number] >= MAX_ATTEMPTS]:
                raise worker_lost_error(blamed, label=label)
            print(f"{label}: a worker was lost; {len(flight)} shards are begun again", flush=True)
            again.extend(sorted(flight.items(), key=lambda item: item[0]))
            flight.clear()

    @contextmanager
    def _processes(self, payload: bytes) -> Iterator[ProcessPoolExecutor]:
        context = multiprocessing.get_context("spawn")  # polars' threads and CUDA do not survive a fork
        gpus: SimpleQueue[str | None] = context.SimpleQueue()
        for number in range(self.replicas):
            gpus.put(self.gpus[number % len(self.gpus)] if self.gpus else None)
        executor = ProcessPoolExecutor(self.replicas, context, _init_worker, (payload, gpus, self.threads))
        try:
            yield executor
        finally:
            executor.shutdown(wait=False, cancel_futures=True)


def _submit_and_yield(
    executor: ProcessPoolExecutor,
    again: deque[tuple[int, Task]],
    source: Iterator[tuple[int, Task]],
    flight: dict[int, Task],
    *,
    room: int,
) -> Iterator[tuple[int, pl.DataFrame]]:
    """Keep `room` tasks in `flight`, first those to be done again; yield results. Raises BrokenProcessPool."""
    futures: dict[Future[pl.DataFrame], int] = {}
    while True:
        while len(flight) < room and (item := again.popleft() if again else next(source, None)):
            number, flight[item[0]] = item  # in flight before it is handed over: that may fail as well
            futures[executor.submit(_apply, item[1])] = number
        if not flight:
            return
        for future in wait(futures, return_when=FIRST_COMPLETED).done:
            number = futures.pop(future)
            frame = future.result()
            del flight[number]
            yield number, frame


def _init_worker(payload: bytes, gpus: "SimpleQueue[str | None]", threads: int) -> None:
    """Become a worker: choose the GPU before anything looks for one, and end when the parent does."""
    become_worker()
    if (gpu := gpus.get()) is not None:
        os.environ[_VISIBLE] = gpu
    _work.append(ForkingPickler.loads(payload))
    set_num_threads(threads)


def _apply(task: Task) -> pl.DataFrame:
    return _work[0](task)
