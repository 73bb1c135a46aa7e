"""`alignslm overview`: the method as a list of stages."""

from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from alignslm.cli.pipeline import Stage, read_stages, sources


def print_overview(root: Path) -> None:
    """Print every stage, the stages it reads from, and its outputs, each marked as existing or not."""
    stages = read_stages(root)
    outputs = [root / out for stage in stages for out in stage.outs]
    console = Console(highlight=False)
    console.print(flow_table(stages, root))
    console.print(f"{len(stages)} stages, {sum(path.exists() for path in outputs)} of {len(outputs)} outputs exist")


def flow_table(stages: list[Stage], root: Path) -> Table:
    """Return one row a stage, in running order."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("stage", style="bold cyan", no_wrap=True)
    table.add_column("reads from", overflow="fold")
    table.add_column("makes", overflow="fold")
    for stage in stages:
        table.add_row(stage.name, ", ".join(source.name for source in sources(stage, stages)), _outputs(stage, root))
    return table


def _outputs(stage: Stage, root: Path) -> Text:
    lines = []
    for out in stage.outs:
        exists = (root / out).exists()
        lines.append(Text(f"{'✓' if exists else '·'} {out}", style="green" if exists else "dim"))
    return Text("\n").join(lines)
