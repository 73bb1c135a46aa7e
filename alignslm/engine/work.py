"""Tasks of a worker: how to load a model, and the function to run with it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import polars as pl

from alignslm.provenance import UnitContract

Model = TypeVar("Model")
Task = TypeVar("Task")


class UnitModel(Protocol):
    """A model that reads or writes units."""

    @property
    def contract(self) -> UnitContract:
        """What its units mean."""
        ...


Units = TypeVar("Units", bound=UnitModel)


class LazyModel(Generic[Model]):
    """Loads a model on first use, once in each process that it is sent to.

    `load` travels, so it is a function of a module or a partial of one; the model does not.
    """

    def __init__(self, load: Callable[[], Model]) -> None:
        self.load = load
        self.loaded: list[Model] = []

    def __call__(self) -> Model:
        """Return the model."""
        if not self.loaded:
            self.loaded.append(self.load())
        return self.loaded[0]

    def __reduce__(self) -> tuple[type["LazyModel[Model]"], tuple[Callable[[], Model]]]:
        """Leave the model behind."""
        return type(self), (self.load,)


@dataclass(frozen=True)
class ModelTask(Generic[Task, Model]):
    """A function of a task that needs a model: `apply(task, model())`, in whichever process it is called."""

    model: LazyModel[Model]
    apply: Callable[[Task, Model], pl.DataFrame]

    def __call__(self, task: Task) -> pl.DataFrame:
        """Apply the model to one task."""
        return self.apply(task, self.model())


def lazy(load: Callable[..., Model], *values: object, **options: object) -> LazyModel[Model]:
    """Return `load(*values, **options)`, to be done once a process."""
    return LazyModel(partial(load, *values, **options))


def with_contract(model: LazyModel[Units], contract: UnitContract, *, mine: Path, theirs: Path) -> LazyModel[Units]:
    """Return the same model, refused at loading unless its units mean what `contract` says. Raises ContractError."""
    return lazy(_require, model.load, contract, str(mine), str(theirs))


def _require(load: Callable[[], Units], contract: UnitContract, mine: str, theirs: str) -> Units:
    model = load()
    model.contract.require(contract, mine=mine, theirs=theirs)
    return model
