"""Packages that only some configs and commands need, each in an extra of this package."""

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager

EXTRAS = {
    "ctranslate2": "faster-whisper",
    "fastapi": "server",
    "gguf": "gguf",
    "gradio": "demo",
    "nltk": "nltk",
    "ray": "ray",
    "uvicorn": "server",
}


class MissingPackageError(ImportError):
    """A config or a command needs a package that is not installed; the message says how to install it."""


@contextmanager
def needed(package: str, *, by: str) -> Iterator[None]:
    """Import one of EXTRAS inside; MissingPackageError if it is not installed. `by` is what needs it."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        raise MissingPackageError(_how_to_install(package, by)) from None


def lacking(package: str, *, by: str) -> str | None:
    """Return the message of `needed`, or None if the package is installed. Imports nothing."""
    return None if importlib.util.find_spec(package) else _how_to_install(package, by)


def _how_to_install(package: str, by: str) -> str:
    extra = EXTRAS[package]
    return (
        f"{by} needs the package {package}: pip install 'alignslm[{extra}]' "
        f"(in a clone: .venv/bin/pip install -e '.[{extra}]')"
    )
