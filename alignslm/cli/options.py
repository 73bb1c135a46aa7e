"""Arguments and options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer


class NoExperimentError(ValueError):
    """A folder is not an experiment."""


class PlotError(ValueError):
    """A plot was to be written into a file of another kind."""


def require_experiment(root: Path) -> Path:
    """Return a folder that is an experiment. Raises NoExperimentError if it has no params.yaml."""
    if not (root / "params.yaml").is_file():
        raise NoExperimentError(
            f"{root.resolve()} is not an experiment: it has no params.yaml. Create one with `alignslm init FOLDER`, or "
            "name its folder with --root."
        )
    return root


def require_svg(plot: Path | None) -> Path | None:
    """Return the file of a plot. Raises PlotError unless it is an .svg."""
    if plot is not None and plot.suffix != ".svg":
        raise PlotError(f"{plot}: the plot is an SVG file, so its name must end in .svg")
    return plot


_HELP = "The experiment: the folder with params.yaml, dvc.yaml and artifacts/."
Root = Annotated[Path, typer.Option("--root", "-C", help=_HELP, callback=require_experiment)]
AnyRoot = Annotated[Path, typer.Option("--root", "-C", help=_HELP)]
System = Annotated[str, typer.Argument(help="An evaluated system of params.yaml, such as r1.")]
Against = Annotated[str, typer.Argument(help="The system to compare with, such as base.")]
Plot = Annotated[Path | None, typer.Option("--plot", help="Draw it into this .svg file.", callback=require_svg)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def separated(text: str | None) -> list[str] | None:
    """Return the parts of a comma-separated option, or None if it was not given."""
    return text.split(",") if text else None
