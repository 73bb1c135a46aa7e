"""`alignslm compare` and `alignslm compare-seeds`: two evaluated systems, over one training run or several."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from alignslm.cli.options import Against, AsJson, Root, System
from alignslm.cli.terminal import grid, wide_console
from alignslm.config.loading import load_experiment

if TYPE_CHECKING:
    from alignslm.report.compare import ComparedRow
    from alignslm.report.seeds import CombinedRow

FEW_RUNS = 5
EXPLAINED = (
    "95 % intervals: bootstrap over prompts or item pairs. above, below, equal: on how many of them the first system "
    "is above, below or equal to the second. p: exact binomial test of above against below (McNemar's test for right "
    "or wrong answers), not corrected for the number of rows."
)


def compare(model: System, against: Against, root: Root = Path(), *, as_json: AsJson = False) -> None:
    """Compare two evaluated systems on every metric that both have, with intervals and exact tests.

    Bootstrap and its seed are those of params.yaml.

    [bold]alignslm compare r1 base[/]

    [bold]alignslm compare r1 sft --json[/]
    """
    from alignslm.report.compare import compare as paired_differences

    params = load_experiment(root).params
    found = paired_differences(
        root / "artifacts", model, against, bootstrap=params.evaluation.bootstrap, seed=params.seeds.evaluation
    )
    if as_json:
        print(found.to_json(), end="")
        return
    headings = ("", model, against, "difference", "95 % interval", "above", "below", "equal", "p", "n", "missing")
    console = wide_console()
    console.print(grid(headings, (_cells(row) for row in found.rows)))
    console.print(Text(EXPLAINED), soft_wrap=True)


def _cells(row: ComparedRow) -> tuple[str, ...]:
    from alignslm.report.formatting import difference_unit, interval, number, style

    how = style(row.benchmark, row.metric)
    return (
        how.label + difference_unit(how),
        number(row.value, how),
        number(row.against_value, how),
        number(row.delta, how, signed=True),
        interval(row.ci95, how, signed=True),
        *map(str, (row.above, row.below, row.equal)),
        probability(row.p),
        str(row.n),
        str(row.n_missing),
    )


def probability(p: float) -> str:
    """Return three decimals, and <0.001 below that: 0.000 is not a probability."""
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def compare_seeds(
    model: System,
    against: Against,
    folders: Annotated[list[Path], typer.Argument(help="The artifacts of each run: folders that contain eval/.")],
    root: Root = Path(),
    *,
    as_json: AsJson = False,
) -> None:
    """Compare two systems over several training runs: how uncertain is the difference over items, runs and both?

    The runs must differ only in their seeds and be evaluated on the same items. Bootstrap and its seed are those of
    params.yaml.

    [bold]alignslm compare-seeds r1 base seed-0/artifacts seed-1/artifacts seed-2/artifacts[/]
    """
    from alignslm.report.seeds import compare_seeds

    params = load_experiment(root).params
    found = compare_seeds(folders, model, against, bootstrap=params.evaluation.bootstrap, seed=params.seeds.evaluation)
    if as_json:
        print(found.to_json(), end="")
        return
    headings = ("", *found.runs, "mean", "other items", "other runs", "both", "n", "missing")
    console = wide_console()
    console.print(Text(f"{model} minus {against}, {len(found.runs)} runs"), soft_wrap=True)
    console.print(grid(headings, (_combined_cells(row) for row in found.rows)))
    console.print(Text(_explained(len(found.runs))), soft_wrap=True)


def _combined_cells(row: CombinedRow) -> list[str]:
    from alignslm.report.formatting import difference_unit, interval, number, style

    how = style(row.benchmark, row.metric)
    ends = (row.items_ci95, row.runs_ci95, row.both_ci95)
    return [
        how.label + difference_unit(how),
        *(number(value, how, signed=True) for value in (*row.by_run, row.delta)),
        *(interval(pair, how, signed=True) for pair in ends),
        str(row.n),
        str(row.n_missing),
    ]


def _explained(num_runs: int) -> str:
    text = (
        "95 % intervals. other items: these runs on new items (bootstrap over prompts or item pairs). other runs: new "
        f"training runs on these items (Student's t, {num_runs - 1} degrees of freedom). both: new runs and new items, "
        "which is what a claim about the method needs."
    )
    few = f"\n{num_runs} runs say little about how runs vary, so the last two intervals are wide."
    return text + few if num_runs < FEW_RUNS else text
