"""Jinja environments for templates kept next to a module: a missing value is an error, never an empty string."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def environment(*folders: Path, html: bool) -> Environment:
    """Return an environment for the templates in `folders`; values are escaped if `html` is true."""
    return Environment(
        loader=FileSystemLoader(folders),
        autoescape=html,  # noqa: S701 (Markdown is not escaped)
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
