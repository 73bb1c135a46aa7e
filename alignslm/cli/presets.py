"""`alignslm preset`: list them, or write one into params.yaml."""

from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from alignslm.config.presets import Change, apply_preset, list_presets
from alignslm.config.splice import flow


def print_presets(root: Path) -> None:
    """Print every preset's name and description."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold cyan", no_wrap=True)
    table.add_column(overflow="fold")
    for name, preset in list_presets(root).items():
        table.add_row(name, Text(preset.description))
    Console(highlight=False).print(table)


def print_applied(name: str, root: Path) -> None:
    """Write a preset into params.yaml and print what changed, old -> new."""
    console = Console(highlight=False, soft_wrap=True)
    listed = apply_preset(name, root)
    for change in listed:
        console.print(Text(f"{'.'.join(change.key)}: {told_change(change)}"))
    console.print(Text(f"{name}: {len(listed)} keys changed" if listed else f"{name}: already so, nothing changed"))


def told_change(change: Change) -> str:
    """Return `old -> new` as YAML."""
    if change.added:
        return f"added {flow(change.new)}"
    return f"removed {flow(change.old)}" if change.removed else f"{flow(change.old)} -> {flow(change.new)}"
