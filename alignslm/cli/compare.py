"""`alignslm compare`: two evaluated systems side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from alignslm.cli.options import Against, AsJson, Root, System
from alignslm.cli.terminal import grid, wide_console
from alignslm.config.loading import load_experiment

if TYPE_CHECKING:
    from alignslm.report.compare import ComparedRow

EXPLAINED = (
    "95 % intervals: bootstrap over prompts or item pairs. above, below, equal: on how many of them the first system "
    "lies above, below or at the second. p: exact binomial test of above against below (McNemar's for right or wrong "
    "answers), not corrected for the number of rows."
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
    from alignslm.report.wording import difference_unit, interval, number, style

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
    """Return three decimals, and <0.001 below that: 0.000 is no probability."""
    return "<0.001" if p < 0.001 else f"{p:.3f}"
