"""`alignslm preset`: list presets, or write one into params.yaml."""

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from alignslm.cli.options import Root
from alignslm.cli.terminal import grid
from alignslm.config.presets import Change, apply_preset, list_presets
from alignslm.config.yaml_edit import flow
from alignslm.terminal import Console


def preset(
    name: Annotated[str | None, typer.Argument(help="The preset to write; without one, presets are listed.")] = None,
    root: Root = Path(),
) -> None:
    """Write a preset into params.yaml, or list the presets.

    A preset sets the keys it names and leaves the others, so presets combine; [bold]tiny[/] sets everything back.
    Comments and layout stay, and every change is printed. A preset that does not fit leaves the file untouched.

    [bold]alignslm preset[/]                   list presets

    [bold]alignslm preset paper-dpo[/]         the paper's objective

    [bold]alignslm preset tiny[/]              back to the default
    """
    if name is None:
        rows = [(each, described.description) for each, described in list_presets(root).items()]
        Console(highlight=False).print(grid(("", ""), rows, numbers=(), styles=("bold cyan",)))
        return
    console = Console(highlight=False, soft_wrap=True)
    listed = apply_preset(name, root)
    for change in listed:
        console.print(Text(f"{'.'.join(change.key)}: {format_change(change)}"))
    console.print(Text(f"{name}: {len(listed)} keys changed" if listed else f"{name}: already so, nothing changed"))


def format_change(change: Change) -> str:
    """Return `old -> new` as YAML."""
    if change.added:
        return f"added {flow(change.new)}"
    return f"removed {flow(change.old)}" if change.removed else f"{flow(change.old)} -> {flow(change.new)}"
