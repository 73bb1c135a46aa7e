"""Work for the workers of an engine, some of which kills them. Workers import it by name, so it imports little."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import polars as pl

from alignslm.tables import TableError


def squared(number: int) -> pl.DataFrame:
    return pl.DataFrame({"n": [number], "square": [number**2]})


def squared_by_mortals(number: int, *, flag: str, deaths: int) -> pl.DataFrame:
    """Square, but kill the process itself the first `deaths` times that 2 comes."""
    if number == 2:
        with Path(flag).open("a") as stream:
            stream.write("x")
        if Path(flag).stat().st_size <= deaths:
            os.kill(os.getpid(), signal.SIGKILL)
    return squared(number)


def third_dies(function: Callable[..., pl.DataFrame], *task: object, flag: str, **options: object) -> pl.DataFrame:
    """Do what `function` does, but kill the process itself at the third call of all processes."""
    with Path(flag).open("a") as stream:
        stream.write("x")
        stream.flush()
        if stream.tell() == 3:
            os.kill(os.getpid(), signal.SIGKILL)
    return function(*task, **options)


def stuck(function: Callable[..., pl.DataFrame], *task: object, machine: str, flags: str) -> pl.DataFrame:
    """Do what `function` does, but on one machine of a Ray (its node id) only once, and then no more.

    Before the other machines go beyond their first task they wait until that one is stuck.
    """
    import ray

    node = ray.get_runtime_context().get_node_id()
    first, is_stuck = Path(flags, f"{node}-first"), Path(flags, "stuck")
    if first.exists() and node == machine:
        is_stuck.touch()
        time.sleep(600)
    while first.exists() and not is_stuck.exists():
        time.sleep(0.01)
    first.touch()
    return function(*task)


def whose(number: int) -> pl.DataFrame:
    return pl.DataFrame({"n": [number], "process": [os.getpid()], "folder": [str(Path.cwd())]})


def refused(number: int) -> pl.DataFrame:
    raise TableError(f"row {number} is wrong. Run `dvc repro`.")


def loading(log: str) -> Callable[[int], int]:
    """Load a model of which one may count how often it was loaded."""
    with Path(log).open("a") as stream:
        stream.write(f"{os.getpid()}\n")
    return lambda number: number + 1


def counted(number: int, model: Callable[[int], int]) -> pl.DataFrame:
    return pl.DataFrame({"n": [model(number)]})
