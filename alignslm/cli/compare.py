"""`alignslm compare`, `compare-seeds` and `compare-ways`: evaluated systems, over one training run or several."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from alignslm.cli.options import Against, AsJson, Plot, Root, System
from alignslm.cli.terminal import fitted, wide_console

if TYPE_CHECKING:
    from alignslm.report.compare import ComparedRow
    from alignslm.report.evaluated import Key
    from alignslm.report.seeds import CombinedRow
    from alignslm.report.ways import Way, WaysComparison

FEW_RUNS = 5
WAYS_EXPLAINED = (
    "Means of {runs} training runs. Differences are paired; their intervals of 95 % are for new runs and new prompts "
    "or item pairs together (variances clustered both ways, Student's t). n.s.: p is not below 0.05 after Holm's "
    "correction for all differences shown, over all systems. judge calls: scores that a "
    "system's training took, those of the rounds before it included."
)
EXPLAINED = "above, below, equal: on how many prompts or pairs the first system is above, below or equal to the second."


def compare(model: System, against: Against, root: Root = Path(), *, as_json: AsJson = False) -> None:
    """Compare two evaluated systems on every metric that both have, with the intervals and tests of the report.

    [bold]alignslm compare r1 base[/]

    [bold]alignslm compare r1 sft --json[/]
    """
    from alignslm.report.compare import compare as paired_differences
    from alignslm.report.formatting import PROCEDURE

    found = paired_differences(root / "artifacts", model, against)
    if as_json:
        print(found.to_json(), end="")
        return
    counts = ("p", "corrected", "n", "above", "below", "equal", "missing")
    headings = ("", model, against, "difference", "95 % interval", *counts)
    console = wide_console()
    console.print(fitted(headings, map(_cells, found.rows), optional=len(counts), width=console.width))
    console.print(Text(f"{PROCEDURE} {EXPLAINED}"), soft_wrap=not console.is_terminal)
    if found.absent:
        note = f"omitted, because these do not exist (`dvc repro`, `dvc pull`): metrics of {', '.join(found.absent)}"
        console.print(Text(note), soft_wrap=True)


def _cells(row: ComparedRow) -> tuple[str, ...]:
    from alignslm.report.formatting import change_parts, difference_unit, number, probability, style

    how = style(row.benchmark, row.metric)
    return (
        how.label + difference_unit(how),
        number(row.value, how),
        number(row.against_value, how),
        *change_parts(row),
        probability(row.p),
        probability(row.p_corrected),
        *map(str, (row.n, row.above, row.below, row.equal, row.n_missing)),
    )


def compare_seeds(
    model: System,
    against: Against,
    folders: Annotated[list[Path], typer.Argument(help="The artifacts of each run: folders that contain eval/.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Compare two systems over several training runs: how uncertain is the difference over items, runs and both?

    The runs must differ only in their seeds and be evaluated on the same items.

    [bold]alignslm compare-seeds r1 base seed-0/artifacts seed-1/artifacts seed-2/artifacts[/]
    """
    from alignslm.report.seeds import compare_seeds

    found = compare_seeds(folders, model, against)
    if as_json:
        print(found.to_json(), end="")
        return
    headings = ("", *found.runs, "mean", "other items", "other runs", "both", "n", "missing")
    console = wide_console()
    console.print(Text(f"{model} minus {against}, {len(found.runs)} runs"), soft_wrap=True)
    console.print(fitted(headings, map(_combined_cells, found.rows), optional=2, width=console.width))
    console.print(Text(_explained(len(found.runs))), soft_wrap=True)


def _combined_cells(row: CombinedRow) -> list[str]:
    from alignslm.report.formatting import difference_unit, interval, number, style
    from alignslm.statistics import ALL_EQUAL, MIN_CLUSTERS, MIN_RUNS, TOO_FEW

    how = style(row.benchmark, row.metric)
    enough = (row.n >= MIN_CLUSTERS, len(row.by_run) >= MIN_RUNS)
    ends = (row.items_ci95, enough[0]), (row.runs_ci95, enough[1]), (row.both_ci95, all(enough))
    return [
        how.label + difference_unit(how),
        *(number(value, how, signed=True) for value in (*row.by_run, row.delta)),
        *(interval(pair, how, signed=True, absent=ALL_EQUAL if known else TOO_FEW) for pair, known in ends),
        str(row.n),
        str(row.n_missing),
    ]


def _explained(num_runs: int) -> str:
    text = (
        "95 % intervals. other items: these runs on new items (as in `alignslm compare`). other runs: new "
        f"training runs on these items (Student's t, {num_runs - 1} degrees of freedom). both: new runs and new items, "
        "which is what a claim about the method needs."
    )
    few = f"\n{num_runs} runs are few to estimate how much runs vary, so the last two intervals are wide."
    return text + few if num_runs < FEW_RUNS else text


def compare_ways(
    against: Against,
    folders: Annotated[
        list[Path], typer.Argument(help="Experiments that differ in their seeds: folders of params.yaml.")
    ],
    *,
    plot: Plot = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the tables as Markdown.")] = False,
    as_json: AsJson = False,
) -> None:
    """Compare every system with one of them over several training runs, with the judge calls that each took.

    Judges, unique texts, predicted MOS and benchmarks: means over runs, and differences with intervals for new runs
    and new items together, corrected for the number of differences. JSON also has every run and every part of a
    benchmark.

    [bold]alignslm compare-ways sft seed-0 seed-1 seed-2 seed-3 seed-4[/]
    """
    from alignslm.report.ways import compare_ways
    from alignslm.report.ways_plot import draw
    from alignslm.storage import write_text

    found = compare_ways(folders, against)
    if plot is not None:
        write_text(plot, draw(found))
    if as_json:
        print(found.to_json(), end="")
        return
    console = wide_console()
    for headings, rows in (_scores_of_ways(found), _benchmarks_of_ways(found)):
        if markdown:
            print("\n".join(f"| {' | '.join(row)} |" for row in (headings, ["---"] * len(headings), *rows)) + "\n")
        else:
            console.print(fitted(headings, rows, optional=len(headings) - 1, width=console.width))
    console.print(Text(WAYS_EXPLAINED.format(found=found, runs=len(found.runs))), soft_wrap=True)


def _scores_of_ways(found: WaysComparison) -> tuple[list[str], list[list[str]]]:
    from alignslm.report.formatting import number, style
    from alignslm.report.ways import SCORES, TESTED

    shown = [key for key in SCORES if key in found.keys]
    headings = ["system", "judge calls", f"{style(*TESTED).label} vs {found.against}", *map(with_percent, shown)]
    rows = [
        [
            way.system,
            "" if way.judge_calls is None else f"{way.judge_calls:,.0f}",
            _difference_of_way(way, TESTED),
            *(number(way.means.get(key), style(*key)) for key in shown),
        ]
        for way in found.ways
    ]
    return headings, rows


def _benchmarks_of_ways(found: WaysComparison) -> tuple[list[str], list[list[str]]]:
    from alignslm.report.ways import not_of_texts

    shown = not_of_texts(found.keys)
    answered = (way for way in found.ways if way.differences.keys() & {*shown})  # not at another temperature, say
    rows = [[way.system, *(_difference_of_way(way, key) for key in shown)] for way in answered]
    return [f"vs {found.against}", *map(with_percent, shown)], rows


def with_percent(key: Key) -> str:
    """Return a metric's label, with a sign if it is in percent."""
    from alignslm.report.formatting import style

    how = style(*key)
    return f"{how.label} %" if how.unit == "%" else how.label


def _difference_of_way(way: Way, key: Key) -> str:
    from alignslm.report.formatting import interval, number, style
    from alignslm.statistics import TOO_FEW

    if (row := way.differences.get(key)) is None:
        return ""
    how = style(*key)
    sure = "" if row.significant or row.p_corrected is None else " n.s."
    return f"{number(row.delta, how, signed=True)} {interval(row.both_ci95, how, signed=True, absent=TOO_FEW)}{sure}"
