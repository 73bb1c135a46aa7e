"""Arguments and options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

Root = Annotated[
    Path, typer.Option("--root", "-C", help="The experiment: the folder with params.yaml, dvc.yaml and artifacts/.")
]
System = Annotated[str, typer.Argument(help="An evaluated system of params.yaml, such as r1.")]
Against = Annotated[str, typer.Argument(help="The system to compare with, such as base.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def separated(text: str | None) -> list[str] | None:
    """Return the parts of a comma-separated option, or None if it was not given."""
    return text.split(",") if text else None
