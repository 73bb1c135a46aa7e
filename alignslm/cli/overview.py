"""`alignslm stages`: the method as a list of stages."""

from pathlib import Path

from rich.table import Table
from rich.text import Text

from alignslm.cli.options import Root
from alignslm.pipeline import Stage, read_stages, sources
from alignslm.terminal import Console


def stages(root: Root = Path()) -> None:
    """Print the stages of dvc.yaml in running order: what each reads and makes, and whether that exists.

    Existing does not mean up to date: [bold]dvc status[/] shows that.
    """
    found = read_stages(root)
    outputs = [root / out for stage in found for out in stage.outs]
    console = Console(highlight=False)
    console.print(flow_table(found, root))
    console.print(f"{len(found)} stages, {sum(path.exists() for path in outputs)} of {len(outputs)} outputs exist")


def flow_table(stages: list[Stage], root: Path) -> Table:
    """Return one row per stage, in running order; a description is given once, at the first of its stages."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("stage", style="bold cyan", no_wrap=True)
    table.add_column("reads from", overflow="fold", ratio=1)
    table.add_column("makes", overflow="fold", ratio=2)
    described: set[str] = set()
    for stage in stages:
        description = "" if stage.description in described else stage.description
        described.add(stage.description)
        table.add_row(stage.name, grouped(sources(stage, stages), stages), _makes(stage, description, root))
    return table


def grouped(few: list[Stage], stages: list[Stage]) -> str:
    """Return stage names, the items of one `foreach` together: `pairs@r1,r2`, or `pairs@*` for all of several."""
    several = _items(stages)
    return ", ".join(
        name if items == [""] else f"{name}@{'*' if len(items) > 1 and items == several[name] else ','.join(items)}"
        for name, items in _items(few).items()
    )


def _items(stages: list[Stage]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for stage in stages:
        name, _, item = stage.name.partition("@")
        groups.setdefault(name, []).append(item)
    return groups


def _makes(stage: Stage, description: str, root: Path) -> Text:
    lines = [Text(description, style="italic")] if description else []
    for out in stage.outs:
        exists = (root / out).exists()
        lines.append(Text(f"{'✓' if exists else '·'} {out}", style="green" if exists else "dim"))
    return Text("\n").join(lines)
