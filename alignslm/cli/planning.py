"""`alignslm plan`: what a run will download, request and need, and what is missing."""

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from alignslm import outside
from alignslm.artifacts import Artifacts
from alignslm.cli.options import Root
from alignslm.cli.terminal import format_bytes, format_count
from alignslm.config.loading import load_execution, load_experiment
from alignslm.config.presets import preview
from alignslm.pipeline import read_stages
from alignslm.plan import Plan, plan_of
from alignslm.plan.downloads import Download
from alignslm.plan.workload import Workload
from alignslm.terminal import Console


def plan(
    root: Root = Path(),
    *,
    preset: Annotated[
        str | None, typer.Option("--preset", "-p", help="Plan this preset; params.yaml is left alone.")
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Do not ask the Hub for sizes and access.")] = False,
) -> None:
    """Print what a run will download, request from judges and hold on a GPU, and what is missing.

    Everything that is missing is listed at once (files, variables, disk space, rubrics, request budgets), and the exit
    status is then 1. Nothing is downloaded and no model is loaded.

    [bold]alignslm plan[/]                     of params.yaml

    [bold]alignslm plan --preset twist-7b[/]   of another experiment
    """
    edited = None if preset is None else preview(preset, root)
    experiment = load_experiment(root) if edited is None else edited.experiment
    execution = load_execution(root)
    planned = plan_of(experiment, root, execution=execution, ask_hub=not offline)
    console = Console(highlight=False)
    stages = stage_line(root, None if edited is None else edited.text)
    for line in [
        *fetch_lines(planned.fetches),
        *volume_lines(planned.volume),
        *memory_lines(planned, execution.batch_size),
        stages,
        *outside.compare(experiment, root / Artifacts().outside, root, new=False).changes,
    ]:
        console.print(Text(line), soft_wrap=True)
    for line in planned.missing:
        console.print(Text(f"missing: {line}", style="red"), soft_wrap=True)
    if planned.missing:
        raise typer.Exit(1)
    console.print(Text("nothing is missing", style="green"))


def fetch_lines(fetches: list[Download]) -> list[str]:
    """Return one line per source: its key, location, whether it is pinned, its size, whether it is here."""
    lines = []
    for fetch in fetches:
        size = "size unknown" if fetch.num_bytes is None else format_bytes(fetch.num_bytes)
        pinned, here = "pinned" if fetch.pinned else "not pinned", "here" if fetch.present else "not here"
        lines.append(f"{fetch.key}: {fetch.name} ({pinned}, {size}, {here})")
    return lines or ["nothing to download: no config names a source"]


def volume_lines(volume: Workload) -> list[str]:
    """Return counts of rows and requests, one line per kind."""
    speech = f"at most {volume.speech_h:.0f} h of speech to synthesize and transcribe"
    lines = [
        f"prompts: {volume.prompts}, {volume.prompts_transcribed} of them to be transcribed",
        f"continuations: {volume.continuations} in all rounds, {volume.evaluated} for evaluation; {speech}",
    ]
    for requested in volume.asked:
        line = f"{requested.key} {requested.choice}: {requested.stories} stories"
        if requested.requests:
            line += f", {requested.requests} requests of about {format_count(requested.read_tokens)} tokens in total"
        if requested.written_tokens:
            line += f", at most {format_count(requested.written_tokens)} written"
        lines.append(line)
    return lines


def memory_lines(plan: Plan, batch_size: int) -> list[str]:
    """Return the GPU memory of each language model, without activations."""
    lines = []
    for item in plan.memory:
        if item.weights is None:
            lines.append(f"GPU, {item.key}: unknown, its config.json is not on this machine")
            continue
        parts = [f"weights {format_bytes(item.weights)}"]
        parts += [f"LoRA with optimizer {format_bytes(item.adapter)}"] if item.adapter else []
        parts += [f"cache of {batch_size} sequences {format_bytes(item.cache)}"] if item.cache else []
        lines.append(f"GPU, {item.key}: {', '.join(parts)}")
    return lines


def stage_line(root: Path, params: str | None) -> str:
    """Return how many stages there are, and how many have all their outputs."""
    stages = read_stages(root, params=params)
    done = sum(bool(stage.outs) and all((root / out).exists() for out in stage.outs) for stage in stages)
    return f"stages: {len(stages)}, {done} of them have outputs, of these parameters or earlier ones"
