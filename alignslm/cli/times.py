"""`alignslm times`: how the last run spent its time."""

from datetime import datetime
from pathlib import Path

from rich.table import Table

from alignslm.cli.options import Root
from alignslm.cli.terminal import grid
from alignslm.terminal import Console
from alignslm.times import RunTime, last_run

SHOWN = 8  # the longest stages; the others are one line


def times(root: Root = Path()) -> None:
    """Print how long the last run took: each stage, its start-up, and the time between stages.

    [bold]make repro[/] records times (it runs python -m alignslm.speed dvc repro) and prints this at its end.
    """
    console = Console(highlight=False)
    run = last_run(root)
    if run is None:
        console.print("No times: `make repro` (python -m alignslm.speed dvc repro) has not run a stage in this folder.")
        return
    began = datetime.fromtimestamp(run.began).astimezone().strftime("%Y-%m-%d %H:%M")
    console.print(f"Run of {began}: {clock(run.total)}, {len(run.stages)} stages")
    console.print(summary(run, rows=SHOWN))


def summary(run: RunTime, *, rows: int) -> Table:
    """Return the longest stages, the others, start-up and the time between stages, each with its fraction."""
    longest = sorted(run.stages, key=lambda stage: stage.began - stage.ended)
    lines = [(stage.name, stage.ended - stage.began) for stage in longest[:rows]]
    if rest := longest[rows:]:
        lines.append((f"{len(rest)} other stages", sum(stage.ended - stage.began for stage in rest)))
    lines += [("start-up of stages", run.starting), ("between stages (DVC)", run.between)]
    return grid(
        ("", "time", "share"),
        [(name, clock(seconds), f"{100 * seconds / run.total:.0f} %") for name, seconds in lines],
    )


def clock(seconds: float) -> str:
    """Return `4 min 07 s`, or `3.2 s` below a minute."""
    return f"{seconds:.1f} s" if seconds < 60 else f"{int(seconds) // 60} min {int(seconds) % 60:02d} s"
