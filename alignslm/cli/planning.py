"""`alignslm plan`: what the experiment would fetch, ask and hold, and what is missing."""

from pathlib import Path

import typer
from rich.console import Console
from rich.text import Text

from alignslm.config.loading import load_execution, load_experiment
from alignslm.config.presets import preview
from alignslm.config.readiness import execution_faults
from alignslm.pipeline import read_stages
from alignslm.plan import Plan, plan_of
from alignslm.plan.fetches import Fetch
from alignslm.plan.volume import Volume


def print_plan(root: Path, *, preset: str | None, offline: bool) -> None:
    """Print the plan of params.yaml, or of what a preset would make of it. Exits with 1 where something is missing."""
    edited = None if preset is None else preview(preset, root)
    experiment = load_experiment(root) if edited is None else edited.experiment
    execution = load_execution(root)
    plan = plan_of(experiment, root, batch_rows=execution.batch_rows, ask_hub=not offline)
    console = Console(highlight=False)
    stages = stage_line(root, None if edited is None else edited.text)
    told = [*fetch_lines(plan.fetches), *volume_lines(plan.volume), *memory_lines(plan, execution.batch_rows), stages]
    for line in told:
        console.print(Text(line), soft_wrap=True)
    missing = [*plan.missing, *map(str, execution_faults(execution, root))]
    for line in missing:
        console.print(Text(f"missing: {line}", style="red"), soft_wrap=True)
    if missing:
        raise typer.Exit(1)
    console.print(Text("nothing is missing", style="green"))


def fetch_lines(fetches: list[Fetch]) -> list[str]:
    """Say every source: the key that names it, where it is, whether it is pinned, how large, here or not."""
    lines = []
    for fetch in fetches:
        size = "size unknown" if fetch.num_bytes is None else told_bytes(fetch.num_bytes)
        pinned, here = "pinned" if fetch.pinned else "not pinned", "here" if fetch.present else "not here"
        lines.append(f"{fetch.key}: {fetch.name} ({pinned}, {size}, {here})")
    return lines or ["nothing to fetch: no choice names a source"]


def volume_lines(volume: Volume) -> list[str]:
    """Say counts of rows and requests, one line a kind."""
    speech = f"at most {volume.speech_h:.0f} h of speech to make and transcribe"
    lines = [
        f"prompts: {volume.prompts}, {volume.prompts_transcribed} of them to be transcribed",
        f"continuations: {volume.continuations} in all rounds, {volume.evaluated} for evaluation; {speech}",
    ]
    for asked in volume.asked:
        requests = f", {asked.requests} requests of about {told_count(asked.read_tokens)} tokens in all"
        written = f", at most {told_count(asked.written_tokens)} written" if asked.written_tokens else ""
        lines.append(
            f"{asked.key} {asked.choice}: {asked.stories} stories{requests if asked.requests else ''}{written}"
        )
    return lines


def memory_lines(plan: Plan, batch_rows: int) -> list[str]:
    """Say what language models hold on a GPU; activations are not counted."""
    lines = []
    for item in plan.memory:
        if item.weights is None:
            lines.append(f"GPU, {item.key}: unknown, its config.json is not on this machine")
            continue
        parts = [f"weights {told_bytes(item.weights)}"]
        parts += [f"LoRA with optimiser {told_bytes(item.adapter)}"] if item.adapter else []
        parts += [f"cache of {batch_rows} draws {told_bytes(item.cache)}"] if item.cache else []
        lines.append(f"GPU, {item.key}: {', '.join(parts)}")
    return lines


def stage_line(root: Path, params: str | None) -> str:
    """Say how many stages there are and how many have made all their outputs."""
    stages = read_stages(root, params=params)
    done = sum(bool(stage.outs) and all((root / out).exists() for out in stage.outs) for stage in stages)
    return f"stages: {len(stages)}, {done} of them have made their outputs before, for these values or others"


def told_bytes(count: int) -> str:
    """Return a size in powers of 1000."""
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count} B"


def told_count(count: int) -> str:
    """Return a rounded number: 3.1 million, 240 thousand."""
    for word, scale in (("billion", 1e9), ("million", 1e6), ("thousand", 1e3)):
        if count >= scale:
            return f"{count / scale:.1f} {word}"
    return str(count)
