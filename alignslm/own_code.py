"""Objects of an experiment's own code (`kind: python`): built from one source file, checked, kept with their artifact.

A class is built with the options of its config. It has one method that maps a sequence to one result per item, in
order and independent of the batch: shards, resuming and engines rest on that, so three rows are tried when the object
is prepared. Two more methods are optional: `fit(examples, folder)`, called once, may write files into the artifact's
folder and return figures for the log; `load(folder, device)` is called in each process before the first result.
"""

import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import numpy as np

from alignslm.config.own_code import OwnCode
from alignslm.provenance import file_sha256
from alignslm.storage import copy_file

FOLDER = Path("code")  # next to params.yaml
SOURCE_FILE = "own_code.py"
TOLERANCE = 1e-3  # between results of one row in two batches: kernels round by shape

Row = TypeVar("Row")


class OwnCodeError(ValueError):
    """Own code cannot be imported, or its object cannot be built or breaks the protocol of its kind."""


class OwnObject:
    """An object of own code with the `method` of its kind, which maps a sequence to one result per item."""

    def __init__(self, config: OwnCode, source: Path, *, method: str) -> None:
        """Import a source file and build the object. Raises OwnCodeError if that fails or the method is missing."""
        if not source.is_file():
            raise OwnCodeError(f"{source} does not exist, but `object: {config.object}` names it.")
        self.label = f"{config.object} ({source})"
        self._source, self._method = source, method
        kind = getattr(_imported(source), config.name, None)
        if not callable(kind):
            raise OwnCodeError(f"{source} has no class {config.name}, which `object: {config.object}` names.")
        try:
            self._object = kind(**config.options)
        except Exception as error:
            raise self.error(f"cannot be built with options {config.options}: {_described(error)}") from error
        if not callable(getattr(self._object, method, None)):
            raise self.error(f"has no method `{method}`. See docs/extending.md for the methods of each kind.")

    def error(self, problem: str) -> OwnCodeError:
        """Return an error that names the object and its file."""
        return OwnCodeError(f"{self.label}: {problem}")

    def call(self, *arguments: object) -> Any:
        """Return the result of the kind's method. An error in it names the object."""
        return self._call(self._method, *arguments)

    def _call(self, method: str, *arguments: object) -> Any:
        try:
            return getattr(self._object, method)(*arguments)
        except Exception as error:
            raise self.error(f"{method} failed with {_described(error)}") from error

    def results(self, items: Sequence[object]) -> list[Any]:
        """Return one result per item. Raises OwnCodeError if the object returns more or fewer."""
        found = list(self.call(list(items)))
        if len(found) != len(items):
            raise self.error(f"{self._method} returned {len(found)} results for {len(items)} inputs, expected as many.")
        return found

    def prepare(self, examples: Sequence[object], folder: Path, *, device: str) -> dict[str, float]:
        """Fit the object into `folder` if it has `fit`, keep its source there and load it; return its figures."""
        folder.mkdir(parents=True, exist_ok=True)
        figures = self._call("fit", list(examples), folder) if hasattr(self._object, "fit") else None
        copy_file(self._source, folder / SOURCE_FILE)
        self.load(folder, device=device)
        return {str(name): float(value) for name, value in (figures or {}).items()}

    def load(self, folder: Path, *, device: str) -> None:
        """Call `load` if the object has it."""
        if hasattr(self._object, "load"):
            self._call("load", folder, device)


def load_own(config: OwnCode, folder: Path, *, method: str, device: str) -> OwnObject:
    """Load what `OwnObject.prepare` left in `folder`."""
    if not (folder / SOURCE_FILE).exists():
        raise OwnCodeError(f"{folder} was not prepared: {SOURCE_FILE} is missing. Run `dvc repro`.")
    model = OwnObject(config, folder / SOURCE_FILE, method=method)
    model.load(folder, device=device)
    return model


def check_batches(model: OwnObject, results: Callable[[Sequence[Row]], Sequence[object]], rows: Sequence[Row]) -> None:
    """Raise OwnCodeError unless each row gives the same result in a batch, in a reversed batch and alone."""
    together, backwards = results(rows), results(rows[::-1])[::-1]
    for number, row in enumerate(rows):
        alone = results([row])[0]
        if not (_same(together[number], alone) and _same(together[number], backwards[number])):
            raise model.error(
                f"the result of row {number} depends on its batch: {together[number]!r} among {len(rows)} rows, "
                f"{backwards[number]!r} among them in reverse order, {alone!r} alone. Results must be in the order of "
                "the inputs, and independent of each other."
            )


def _imported(source: Path) -> ModuleType:
    """Run a source file as a module. Not by an import, which would leave bytecode in the artifact's folder."""
    module = ModuleType(f"own_code_{file_sha256(source)[:16]}")
    module.__file__ = str(source)
    sys.modules[module.__name__] = module  # dataclasses look their module up
    try:
        exec(compile(source.read_text(encoding="utf-8"), source, "exec"), module.__dict__)  # noqa: S102 - the user's own
    except Exception as error:
        raise OwnCodeError(f"{source} cannot be imported: {_described(error)}") from error
    return module


def _described(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _same(one: object, other: object) -> bool:
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return one.shape == other.shape and np.allclose(one, other, rtol=0, atol=TOLERANCE)
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    return one == other
