"""The arrays of a joblib file, read without executing any of its code.

A pickle names functions and classes that its reader is to call: reading it is running a program. Here every name
becomes an inert object that keeps its state and does nothing, so the file can neither run code nor depend on the
scikit-learn it was written with (classes have moved since the public codebooks were made).
"""

from pathlib import Path
from typing import Any, Self

import numpy as np
from joblib.numpy_pickle import NumpyArrayWrapper, NumpyUnpickler

_PICKLE_START = b"\x80"


class JoblibError(ValueError):
    """A file is not a joblib file of arrays."""


class _Inert:
    """A pickled object reduced to its attributes, without behavior."""

    def __new__(cls, *_arguments: object, **_options: object) -> Self:
        return super().__new__(cls)

    def __setstate__(self, state: object) -> None:
        self.state = state


class _PlainArray(NumpyArrayWrapper):
    """joblib's marker for the raw bytes of an array that follow; arrays of objects would be a pickle inside."""

    def read(self, unpickler: Any, *options: Any) -> np.ndarray:
        if self.dtype.hasobject:
            raise JoblibError("an array in it contains Python objects, not numbers")
        return super().read(unpickler, *options)


_ALLOWED: dict[tuple[str, str], type] = {
    ("joblib.numpy_pickle", "NumpyArrayWrapper"): _PlainArray,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


class _InertUnpickler(NumpyUnpickler):
    def find_class(self, module: str, name: str) -> type:
        return _ALLOWED.get((module, name), _Inert)


def read_attributes(path: Path) -> dict[str, Any]:
    """Return the attributes of the one object in a joblib file; objects among them are inert, arrays are real.

    JoblibError if the file is compressed, older than joblib 0.10, or not a joblib file of one object.
    """
    with path.open("rb") as stream:
        if stream.read(1) != _PICKLE_START:
            raise JoblibError("it does not begin as an uncompressed joblib file does")
        stream.seek(0)
        try:
            found = _InertUnpickler(str(path), stream, ensure_native_byte_order=True).load()
        except JoblibError:
            raise
        except Exception as error:  # a damaged pickle may fail in any way
            raise JoblibError(f"it cannot be read to its end: {type(error).__name__}: {error}") from error
    attributes = getattr(found, "state", None)
    if not isinstance(found, _Inert) or not isinstance(attributes, dict):
        raise JoblibError(f"it contains a {type(found).__name__}, not an object with attributes")
    return attributes
