"""`alignslm sweep`: every combination of some values as an experiment of DVC, and one table of them."""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from alignslm.cli.options import AsJson, Root
from alignslm.cli.terminal import grid, wide_console
from alignslm.terminal import Console

if TYPE_CHECKING:
    from collections.abc import Sequence

    from alignslm.sweep.folder import Finished, RunFolder
    from alignslm.sweep.runs import Run
    from alignslm.sweep.table import Cell, Row, SweepTable

CELL = 19  # characters of a metric: value, difference and n.s., below them its interval
LABEL = 24
EXPLAINED = (
    "Each run's result: its mean, and below it the paired difference from the first run that did not fail, with its "
    "interval of 95 % over prompts or item pairs (as in `alignslm compare`). n.s.: p is not below 0.05 after Holm's "
    "correction for all differences of this table. In percent: {}. Names as in reports/summary.json and `dvc exp show`."
)
Settings = Annotated[
    list[str],
    typer.Argument(metavar="KEY=VALUES", help="A key of params.yaml and its values, as for `dvc exp run -S`."),
]


def sweep(
    settings: Settings,
    root: Root = Path(),
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Run nothing; list the runs and shared stages.")] = False,
    as_json: AsJson = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print the table as CSV, a line per run and metric.")] = False,
) -> None:
    """Run every combination of some values, and compare the runs in a table.

    Values are a list (0,0.5), a range (0:3 is 0, 1, 2), or what
    [bold]dvc exp run -S[/] takes: + before a new key, FILE: before a key of a file.
    All combinations are checked before the first one runs.

    Every run starts from the last commit, in a folder of its own. New files
    of experiments/ and code/ are taken along; changes of others are not.

    The same command continues after Ctrl-C, a kill or a failed run; what is
    finished is not repeated. Each run becomes a DVC experiment:
    [bold]dvc exp show[/], [bold]dvc exp apply NAME[/], [bold]dvc exp push origin NAME[/].

    [bold]alignslm sweep judge=ngram,story-lm weights.ppl=0,0.5[/]    four runs

    [bold]alignslm sweep seeds.base=0:3[/]                            three seeds

    [bold]alignslm sweep experiments/trainer/dpo-nll.yaml:beta=0.1,0.5[/]
    """
    from alignslm.locks import alone

    out = Console(highlight=False, file=sys.stderr if as_json or as_csv else sys.stdout, soft_wrap=True)
    with contextlib.chdir(root), alone("sweep"):
        table = _swept(settings, out, dry_run=dry_run)
    if table is None:
        return
    if as_json or as_csv:
        print(table.to_json() if as_json else table.csv_text(), end="")
    else:
        show(table)
    if any(row.failed for row in table.rows):
        raise typer.Exit(1)


def _swept(settings: list[str], out: Console, *, dry_run: bool) -> SweepTable | None:
    """Make the runs that do not exist and return the table, None for a dry run."""
    from alignslm.cli.checking import checked
    from alignslm.sweep.folder import RunFolder, Workspace
    from alignslm.sweep.measured import measure
    from alignslm.sweep.runs import plan_runs
    from alignslm.sweep.settings import combinations
    from alignslm.sweep.table import table_of

    folder = RunFolder(Workspace(Path.cwd()))
    wanted = combinations(settings)
    runs = plan_runs(folder, wanted, lambda place: checked(place, everything=False))
    finished = folder.workspace.finished()
    done = {run.name: finished[run.tree] for run in runs if run.tree in finished}
    _announce(runs, folder, done, out)
    if dry_run:
        return None
    made = done | _make([run for run in runs if run.name not in done], folder, out)
    known = {run.name: measure(Path(), run.experiment, made[run.name]) for run in runs if run.name in made}
    if len(made) == len(runs):
        folder.remove()
    return table_of(runs, known)


def _announce(runs: Sequence[Run], folder: RunFolder, done: dict[str, Finished], out: Console) -> None:
    from alignslm.cli.overview import grouped
    from alignslm.sweep.runs import shared_stages

    equal, total, different = shared_stages(runs)
    out.print(Text(f"{len(runs)} runs from commit {folder.workspace.commit[:7]}, {len(done)} of them finished:"))
    for run in runs:
        out.print(
            Text(f"  {run.name}{'  finished' if run.name in done else ''}", style="dim" if run.name in done else "")
        )
    out.print(
        Text(f"{total} stages, {different} of them different; each of these runs once, unless DVC's cache has it.")
    )
    if len(runs) > 1:
        out.print(Text(f"Equal in all runs ({len(equal)}): {grouped(equal, list(runs[0].order)) or 'none'}"))
    if taken := folder.workspace.untracked:
        out.print(Text(f"Taken along, not committed yet: {', '.join(taken)}"))
    if changed := folder.workspace.changed:
        left_out = f"Not part of the runs, because not committed: changes of {', '.join(changed)}"
        out.print(Text(f"{left_out} (`git commit` to include, `git restore` to undo them)", style="yellow"))


def _make(runs: Sequence[Run], folder: RunFolder, out: Console) -> dict[str, Finished]:
    from alignslm.cli.times import clock
    from alignslm.sweep.runs import last_lines, perform

    made = {}
    for place, run in enumerate(runs, 1):
        out.print(Text(f"{place}/{len(runs)} {run.name}: running, see {run.log}"))
        began = time.monotonic()
        found = perform(folder, run)
        took = clock(time.monotonic() - began)
        if found is not None:
            made[run.name] = found
            out.print(Text(f"{place}/{len(runs)} {run.name}: finished in {took}", style="green"))
            continue
        out.print(Text(f"{place}/{len(runs)} {run.name}: failed after {took}; the end of {run.log}:", style="red"))
        for line in last_lines(run.log):
            out.print(Text(f"    {line}"))
    if len(made) < len(runs):
        out.print(
            Text(f"{len(runs) - len(made)} of {len(runs)} runs failed; the same command repeats them.", style="red")
        )
    return made


def show(table: SweepTable) -> None:
    """Print the table, with as many metrics side by side as fit the terminal."""
    from alignslm.report.formatting import style

    console = wide_console()
    labels = _labels(table.rows)
    metrics = list(dict.fromkeys(cell.name for row in table.rows for cell in row.cells))
    beside = max(1, (console.width - max(len(line) for label in labels for line in label.split("\n"))) // CELL)
    for start in range(0, max(1, len(metrics)), beside):
        some = metrics[start : start + beside]
        cells = [{cell.name: cell for cell in row.cells} for row in table.rows]
        console.print(
            grid(
                ("", *some),
                ([label, *(_text(of.get(name)) for name in some)] for label, of in zip(labels, cells, strict=True)),
            )
        )
        console.print()
    percents = dict.fromkeys(
        cell.name for row in table.rows for cell in row.cells if style(cell.benchmark, cell.metric).unit == "%"
    )
    console.print(Text(EXPLAINED.format(", ".join(percents))), soft_wrap=True)


def _labels(rows: Sequence[Row]) -> list[str]:
    """Return a run's settings, one per line: those that vary, if any does."""
    constant = set.intersection(*({*row.settings} for row in rows)) if len(rows) > 1 else set()
    labels = []
    for row in rows:
        lines = [text.rpartition(":")[2] for text in row.settings if text not in constant]
        keys = (text.partition("=")[0].rpartition(".")[2] + text[text.find("=") :] for text in lines)
        labels.append("\n".join([text[:LABEL] for text in keys] + (["failed"] if row.failed else [])))
    return labels


def _text(cell: Cell | None) -> str:
    """Return value, difference and interval of a cell on two lines."""
    from alignslm.report.formatting import DASH, change_parts, number, style

    if cell is None:
        return DASH
    value = number(cell.value, style(cell.benchmark, cell.metric), signed=cell.name.endswith("gain"))
    if cell.other_judge:
        return f"{value}\nother judge"
    change, interval = change_parts(cell)
    return value if cell.delta is None else f"{value}  {change}\n{interval}"
