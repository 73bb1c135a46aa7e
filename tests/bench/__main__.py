"""`python -m tests.bench`: our implementations against plain ones, as a table and as JSON.

python -m tests.bench sampling
python -m tests.bench vocoder --scale 1,2,4,8 --figure scaling.svg
python -m tests.bench pairs --continuations 1.4e6
python -m tests.bench --suite --json gpu.json
"""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, cast, get_args

import torch
import typer
from rich.console import Console
from rich.table import Table

from alignslm.cli.terminal import format_bytes
from alignslm.device import resolve_device
from alignslm.storage import write_text
from tests.bench import BenchError, pairs, suite
from tests.bench.harness import Result, Spread
from tests.bench.machine import Machine, describe
from tests.bench.models import SHAPES, Size
from tests.bench.scaling import plot_scaling
from tests.bench.stages import STAGES, run

FIGURES = (".svg", ".png")
DRAWS = 5  # per prompt, as in the paper
ROOT = Path(__file__).parents[2]
WIDTH = 130  # of a table with seconds and ratios of three figures each


app = typer.Typer(pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command()
def main(
    stages: Annotated[list[str] | None, typer.Argument(help="What to measure. By default, everything.")] = None,
    *,
    size: Annotated[
        str | None, typer.Option(help="Models: tiny, 25m, twist-1.3b, twist-7b. Default: 25m, twist-1.3b on a GPU.")
    ] = None,
    repeats: Annotated[int, typer.Option("--repeats", "-n", min=1, help="Timed turns.")] = 5,
    scale: Annotated[str, typer.Option(help="Amounts of work, such as 1,2,4,8.")] = "1",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    json_file: Annotated[Path | None, typer.Option("--json", help="Write machine and measurements as JSON.")] = None,
    figure: Annotated[Path | None, typer.Option(help="Plot time and memory over --scale: .svg or .png.")] = None,
    continuations: Annotated[float, typer.Option(help="Of `pairs`: how many to simulate, such as 1.4e6.")] = 1.4e6,
    whole_suite: Annotated[
        bool, typer.Option("--suite", help="A GPU's: everything at twist-1.3b and twist-7b, within --budget.")
    ] = False,
    budget: Annotated[float, typer.Option(min=0, help="Seconds that --suite may take.")] = 360.0,
    all_metrics: Annotated[bool, typer.Option(help="Of `pairs`: give every metric a weight.")] = False,
) -> None:
    """Time our implementations and plain ones in turns, on equal work with equal results.

    Benchmarks: sampling, storycloze, sblimp, vocoder, judge, perplexity, hubert, preference. Models have random
    weights and nothing is downloaded. `pairs` measures pair selection on simulated tables, and runs only by itself.
    `--suite` measures a fixed list of cases, the most important first, and writes --json after each.
    """
    try:
        if stages == ["pairs"]:
            measured = pairs.run(round(continuations), draws=DRAWS, seed=0, ranked=all_metrics, root=ROOT)
            print("\n".join(pairs.format_result(measured)))
        elif whole_suite:
            print_suite(stages or list(STAGES), size, repeats, device, budget_s=budget, json_file=json_file)
        else:
            print_bench(stages or list(STAGES), size, scale, repeats, device, json_file=json_file, figure=figure)
    except BenchError as error:
        raise typer.BadParameter(str(error)) from error


def print_bench(
    stages: Sequence[str],
    size: str | None,
    scales: str,
    repeats: int,
    device: str,
    *,
    json_file: Path | None,
    figure: Path | None,
) -> None:
    """Measure, print one table per benchmark as it finishes, and write the files."""
    _require_drawable(figure)
    console = Console(highlight=False)
    console.width = max(console.width, WIDTH)
    device = resolve_device(device)
    name = _size(size, device)
    machine = describe(device, SHAPES[name].dtype)
    console.print(machine_line(machine), soft_wrap=True)
    results = run(
        stages,
        size=name,
        scales=_scales(scales),
        repeats=repeats,
        machine=machine,
        told=lambda result: print_result(result, machine, console),
    )
    if json_file:
        _write(json_file, machine, results)
    if figure:
        plot_scaling(results, figure)


def print_suite(
    stages: Sequence[str], size: str | None, repeats: int, device: str, *, budget_s: float, json_file: Path | None
) -> None:
    """Measure the suite, print every case as it is done, and write what is known by then."""
    began = time.perf_counter()
    console = Console(highlight=False)
    console.width = max(console.width, WIDTH)
    device = resolve_device(device)
    if size is None and torch.device(device).type == "cpu":
        raise BenchError("--suite is for a GPU; to try it on a processor, name a size: --suite --size tiny")
    only = None if size is None else _size(size, device)
    machine = describe(device, SHAPES[only or "twist-1.3b"].dtype)
    console.print(machine_line(machine), soft_wrap=True)
    done: list[Result | suite.NotMeasured] = []
    for one in suite.run(suite.cases(stages, only), repeats=repeats, machine=machine, budget_s=budget_s, began=began):
        done.append(one)
        if json_file:
            _write(json_file, machine, done)
        if isinstance(one, Result):
            print_result(one, machine, console)
        else:
            console.print(f"{one.stage}, {one.size}, {one.work}: not measured: {one.not_measured}\n", soft_wrap=True)


def _write(file: Path, machine: Machine, results: Sequence[Result | suite.NotMeasured]) -> None:
    content = {"machine": asdict(machine), "results": [asdict(result) for result in results]}
    write_text(file, json.dumps(content, indent=1) + "\n")


def _require_drawable(figure: Path | None) -> None:
    if figure is not None and figure.suffix not in FIGURES:
        raise BenchError(f"--figure is {figure}; its ending names its format: {' or '.join(FIGURES)}")


def _size(size: str | None, device: str) -> Size:
    size = size or ("25m" if torch.device(device).type == "cpu" else "twist-1.3b")
    if size not in get_args(Size):
        raise BenchError(f"no model of size {size!r}; there are {', '.join(get_args(Size))}")
    return cast("Size", size)


def _scales(text: str) -> list[int]:
    if not all(part.isdigit() and int(part) for part in text.split(",")):
        raise BenchError(f"--scale is {text!r}; expected whole numbers such as 1,2,4,8")
    return [int(part) for part in text.split(",")]


def machine_line(machine: Machine) -> str:
    """Say what was measured on, with its roofs."""
    products = ", ".join(f"{dtype} products {rate / 1e9:.0f} GFLOP/s" for dtype, rate in machine.flop_per_s.items())
    return (
        f"{machine.name}, {machine.cores} cores, {machine.threads} threads, {format_bytes(machine.memory_bytes)}, "
        f"torch {machine.torch}, {machine.device}: {products}, copies {machine.bytes_per_s / 1e9:.0f} GB/s"
    )


def print_result(result: Result, machine: Machine, console: Console) -> None:
    """Print a row a path; the ratio says how many times longer it takes than ours, after each one's first call."""
    scale = f", scale {result.scale}" if result.scale > 1 else ""
    table = Table(title=f"{result.stage}: {result.shape}{scale}", title_justify="left", title_style="bold")
    shown = (
        "path",
        "first call",
        "shapes",
        "seconds",
        "times ours",
        f"{result.counted}/s",
        "peak memory",
        "difference",
    )
    for column in shown:
        table.add_column(column, justify="left" if column == "path" else "right")
    for path in result.paths:
        peak = "not measured" if path.peak_bytes is None else format_bytes(path.peak_bytes)
        ratio = _spread(path.ratio) if path.path != "ours" else ""
        table.add_row(
            path.path,
            f"{path.first_call_s:.2f}",
            str(path.shapes or ""),
            _spread(path.seconds),
            ratio,
            f"{path.per_s:.1f}",
            peak,
            f"{path.difference:.2g}" if ratio else "",
        )
    console.print(table)
    place = "GPU" if machine.device != "cpu" else "processor"
    share = f"{result.flop_share:.0%} of the {result.dtype} matrix rate of this {place}"
    bandwidth = "" if result.bytes_share is None else f", {result.bytes_share:.0%} of its memory bandwidth"
    console.print(f"ours: {share}{bandwidth}; {result.parameters / 1e6:.1f} million weights, {result.repeats} turns")
    console.print(f"difference: {result.unit}; shapes: of attention, in the first call\n")


def _spread(spread: Spread) -> str:
    return f"{spread.median:.2f} [{spread.least:.2f}, {spread.most:.2f}]"


if __name__ == "__main__":
    app()
