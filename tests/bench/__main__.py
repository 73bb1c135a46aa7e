"""`python -m tests.bench`: our implementations against plain ones, as a table and as JSON.

python -m tests.bench sampling
python -m tests.bench vocoder --scale 1,2,4,8 --figure scaling.svg
python -m tests.bench pairs --continuations 1.4e6
"""

import json
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
from tests.bench import BenchError, pairs
from tests.bench.harness import Result, Spread
from tests.bench.machine import Machine, describe
from tests.bench.models import SHAPES, Size
from tests.bench.scaling import plot_scaling
from tests.bench.stages import STAGES, run

FIGURES = (".svg", ".png")
DRAWS = 5  # per prompt, as in the paper
ROOT = Path(__file__).parents[2]
WIDTH = 110  # of a table with seconds and ratios of three figures each


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
    all_metrics: Annotated[bool, typer.Option(help="Of `pairs`: give every metric a weight.")] = False,
) -> None:
    """Time our implementations and plain ones in turns, on equal work with equal results.

    Benchmarks: sampling, storycloze, sblimp, vocoder, judge, perplexity, hubert, preference. Models have random
    weights and nothing is downloaded. `pairs` measures pair selection on simulated tables, and runs only by itself.
    """
    try:
        if stages == ["pairs"]:
            measured = pairs.run(round(continuations), draws=DRAWS, seed=0, ranked=all_metrics, root=ROOT)
            print("\n".join(pairs.format_result(measured)))
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
        content = {"machine": asdict(machine), "results": [asdict(result) for result in results]}
        write_text(json_file, json.dumps(content, indent=1) + "\n")
    if figure:
        plot_scaling(results, figure)


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
    """Say what was measured on, with its two roofs."""
    return (
        f"{machine.name}, {machine.cores} cores, {machine.threads} threads, {format_bytes(machine.memory_bytes)}, "
        f"torch {machine.torch}, {machine.device}, {machine.dtype}: products {machine.flop_per_s / 1e9:.0f} GFLOP/s, "
        f"copies {machine.bytes_per_s / 1e9:.0f} GB/s"
    )


def print_result(result: Result, machine: Machine, console: Console) -> None:
    """Print a row a path; the ratio says how many times longer it takes than ours."""
    scale = f", scale {result.scale}" if result.scale > 1 else ""
    table = Table(title=f"{result.stage}: {result.shape}{scale}", title_justify="left", title_style="bold")
    for column in ("path", "seconds", "times ours", f"{result.counted}/s", "peak memory", "difference"):
        table.add_column(column, justify="left" if column == "path" else "right")
    for path in result.paths:
        peak = "not measured" if path.peak_bytes is None else format_bytes(path.peak_bytes)
        ratio = _spread(path.ratio) if path.path != "ours" else ""
        table.add_row(
            path.path,
            _spread(path.seconds),
            ratio,
            f"{path.per_s:.1f}",
            peak,
            f"{path.difference:.2g}" if ratio else "",
        )
    console.print(table)
    share = f"{result.flop_share:.0%} of the matrix rate of this {'GPU' if machine.device != 'cpu' else 'processor'}"
    bandwidth = "" if result.bytes_share is None else f", {result.bytes_share:.0%} of its memory bandwidth"
    console.print(f"ours: {share}{bandwidth}; {result.parameters / 1e6:.1f} million weights, {result.repeats} turns\n")


def _spread(spread: Spread) -> str:
    return f"{spread.median:.2f} [{spread.least:.2f}, {spread.most:.2f}]"


if __name__ == "__main__":
    app()
