"""`alignslm plan`: what a run will make, download, request, cost and need, and what is missing."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from alignslm import outside
from alignslm.cli.options import Root
from alignslm.cli.overview import grouped
from alignslm.cli.terminal import format_bytes, format_count, grid, wide_console
from alignslm.cli.times import clock
from alignslm.config.execution import Execution
from alignslm.config.experiment import Experiment
from alignslm.config.loading import load_execution, load_experiment
from alignslm.config.presets import preview
from alignslm.machine import DeviceMemory, device_memory, gpus
from alignslm.pipeline import Stage
from alignslm.plan import Plan, plan_of
from alignslm.plan.disk import Disk
from alignslm.plan.downloads import Download, server_of
from alignslm.plan.hours import StageTime, gpu_times, shared
from alignslm.plan.stages import planned_stages
from alignslm.plan.workload import JudgeRequests, Workload
from alignslm.terminal import Console

if TYPE_CHECKING:
    from alignslm.plan.probe import Estimate

SHOWN_STAGES = 400  # characters of the stages that will run


def plan(
    root: Root = Path(),
    *,
    preset: Annotated[
        str | None, typer.Option("--preset", "-p", help="Plan this preset without changing params.yaml.")
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Do not look up sizes and access online.")] = False,
    probe: Annotated[
        bool,
        typer.Option("--probe", help="Estimate the stages' hours by timing a few steps here, on one GPU if any."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
) -> None:
    """Print which stages a run will make, what it will download, request, pay and hold, and what is missing.

    Everything that is missing is listed at once with the command that provides it (files, packages, keys, disk space,
    rubrics, request budgets), and the exit status is then 1. Nothing is downloaded and no published model is loaded.
    On a machine with GPUs it also prints the hours on all of them, by the rates of docs/scaling.md, or timed.

    [bold]alignslm plan[/]                     of params.yaml

    [bold]alignslm plan --preset twist-7b[/]   of another experiment

    [bold]alignslm plan --probe[/]             also hours on this machine, by a few timed steps
    """
    edited = None if preset is None else preview(preset, root)
    experiment = load_experiment(root) if edited is None else edited.experiment
    execution = load_execution(root)
    planned = plan_of(experiment, root, execution=execution, ask=not offline)
    looked = outside.compare(experiment, root, new=False)
    stages = planned_stages(root, params=None if edited is None else edited.text, stale=looked.stale)
    hours = _probed(experiment, execution, planned, stages[1]) if probe else None
    found = [] if execution.device == "cpu" else gpus()
    times = _times(experiment, execution, planned, stages[1], timed=hours, gpus=len(found))
    if as_json:
        extra = {"changed": looked.changes, "estimate": hours._asdict() if hours else None}
        if found:
            extra["gpus"] = {
                "names": [gpu.name for gpu in found],
                "stages": {name: one._asdict() for name, one in times.items()},
            }
        print(json.dumps(as_data(planned, *stages) | extra, indent=1))
    else:
        for change in looked.changes:
            Console(highlight=False).print(Text(change, style="yellow"), soft_wrap=True)
        _show(planned, stages, batch_size=execution.batch_size, asked=not offline)
        _show_hours(times, hours, found, stages[1])
        _show_missing(planned.missing, stages[1])
    raise typer.Exit(1 if planned.missing else 0)


def _probed(experiment: Experiment, execution: Execution, planned: Plan, again: list[Stage]) -> "Estimate":
    from alignslm.plan.probe import estimate  # imports torch

    return estimate(experiment, execution, planned.volume, again)


def _times(
    experiment: Experiment,
    execution: Execution,
    planned: Plan,
    again: list[Stage],
    *,
    timed: "Estimate | None",
    gpus: int,
) -> dict[str, StageTime]:
    """Return the times of stages on all GPUs: as timed here, else by known rates of GPUs, if there are any."""
    if timed is None:
        return gpu_times(experiment, execution, planned.volume, again, gpus) if gpus else {}
    known = {name: seconds for name, seconds in timed.seconds.items() if seconds is not None}
    return {name: shared(name, seconds, execution, gpus, measured=True) for name, seconds in known.items()}


def _show_hours(
    times: dict[str, StageTime], timed: "Estimate | None", found: list[DeviceMemory], again: list[Stage]
) -> None:
    console = wide_console()
    if timed is None and not times:
        if again:
            console.print("`alignslm plan --probe` estimates the hours on this machine from a few timed steps")
        return
    by_kind: dict[str, list[StageTime]] = {}
    for name, one in times.items():
        by_kind.setdefault(name.partition("@")[0], []).append(one)
    rows = [(name, _sum(some), str(some[0].gpus)) for name, some in by_kind.items()]
    rows.append(("together", _sum(list(times.values())), ""))
    place = f"{len(found)} x {found[0].name}" if found else timed.device if timed else ""
    headings = (f"{'estimate' if timed else 'hours'} on {place}", "time", "GPUs")
    shown = len(headings) if found else 2
    console.print()
    console.print(grid(headings[:shown], (row[:shown] for row in rows)))
    left = grouped([stage for stage in again if stage.name not in times], again)
    told = "by rates of an H200 (docs/scaling.md), ~ with assumed ones; `alignslm plan --probe` times steps on this GPU"
    if timed:
        told = "estimated from a few steps timed just now, at the current load"
    console.print(f"{told}; not included: {left}")


def _sum(times: list[StageTime]) -> str:
    return ("" if all(one.measured for one in times) else "~") + duration(sum(one.seconds for one in times))


def duration(seconds: float) -> str:
    """Return `12.4 h` from an hour on, else as in `alignslm times`."""
    return f"{seconds / 3600:,.1f} h" if seconds >= 3600 else clock(seconds)


def as_data(planned: Plan, stages: list[Stage], again: list[Stage]) -> dict[str, object]:
    """Return the plan for JSON: bytes, tokens, hours and dollars without rounding."""
    return {
        "stages": [stage.name for stage in stages],
        "will_run": [stage.name for stage in again],
        "sources": [
            {"key": fetch.key, "name": fetch.name, **fetch.source.model_dump(), "command": fetch.command}
            | {"pinned": fetch.pinned, "present": fetch.present, "num_bytes": fetch.num_bytes}
            for fetch in planned.fetches
        ],
        "unreachable": planned.unreachable,
        "work": {**planned.volume._asdict(), "asked": [asked._asdict() for asked in planned.volume.asked]},
        "disk": planned.disk._asdict(),
        "memory": [row._asdict() for row in planned.memory],
        "missing": planned.missing,
    }


def _show(planned: Plan, stages: tuple[list[Stage], list[Stage]], *, batch_size: int, asked: bool) -> None:
    console = wide_console()
    rows = [
        ("stages", stage_line(*stages)),
        *volume_rows(planned.volume),
        ("disk", disk_line(planned.disk)),
        *memory_rows(planned, batch_size),
    ]
    console.print(grid(("", ""), rows, numbers=(), styles=("bold",)))
    _show_sources(console, planned, asked=asked)


def _show_missing(missing: list[str], again: list[Stage]) -> None:
    console = wide_console()
    for line in missing:
        message, _, command = line.partition("\n")
        console.print(
            Text(f"missing: {message}", style="red"), Text(command), sep="\n" if command else "", soft_wrap=True
        )
    if not missing:
        nothing = "nothing is missing" + ("" if again else ", and nothing to run")
        console.print(Text(nothing, style="green"))


def stage_line(stages: list[Stage], again: list[Stage]) -> str:
    """Return how many stages there are and which of them would run."""
    if not again:
        return f"{len(stages)}, none will run: all are up to date"
    names = grouped(again, stages)
    shown = "all of them" if len(again) == len(stages) else names if len(names) <= SHOWN_STAGES else ""
    return f"{len(stages)}, {len(again)} will run" + (f": {shown}" if shown else "")


def volume_rows(volume: Workload) -> list[tuple[str, str]]:
    """Return counts of rows, and the requests to each judge."""
    corpus = "of unknown size, not on this machine" if volume.corpus_h is None else f"about {_hours(volume.corpus_h)}"
    speech = f"at most {_hours(volume.speech_h)} of speech to synthesize and transcribe"
    online = f", {volume.online:,} in online training" if volume.online else ""
    online += f", {volume.guarded:,} by guards" if volume.guarded else ""
    online += f", {volume.chosen_from:,} for best-of-N" if volume.chosen_from else ""
    rounds = f"in {volume.rounds} round{'' if volume.rounds == 1 else 's'}"
    return [
        ("corpus", f"{corpus} of speech" if volume.corpus_h is not None else corpus),
        ("prompts", f"{volume.prompts:,}, {volume.prompts_transcribed:,} of them to be transcribed"),
        ("continuations", f"{volume.continuations:,} {rounds}{online}, {volume.evaluated:,} for evaluation; {speech}"),
        *((asked.key, judge_line(asked, volume)) for asked in volume.asked),
    ]


def _hours(hours: float) -> str:
    return f"{hours:,.0f} h" if hours >= 10 else f"{hours:.1f} h"


def judge_line(asked: JudgeRequests, volume: Workload) -> str:
    """Return the number of requests to a judge, and their cost."""
    line = f"{asked.choice}: {asked.stories:,} stories"
    if asked.requests:
        line += f", {asked.requests:,} requests; about {format_count(asked.read_tokens)} tokens read"
    if asked.written_tokens:
        line += f", at most {format_count(asked.written_tokens)} written"
    if asked.usd:
        total = sum(asked.usd)
        line += f"; about ${asked.usd[0]:,.2f} for reading and at most ${asked.usd[1]:,.2f} for writing"
        others = volume.evaluated + volume.online + volume.guarded + volume.chosen_from
        if (training := asked.stories - others) > 0 and volume.rounds:
            line += f" (at most ${total * training / asked.stories / volume.rounds:,.2f} per round)"
    return line


def disk_line(disk: Disk) -> str:
    """Return the peak disk usage of a run, and the free space."""
    parts = ", ".join(f"{name} {format_bytes(size)}" for name, size in disk.parts.items())
    several = "s" if disk.unknown > 1 else ""
    unknown = f", and {disk.unknown} download{several} of unknown size" if disk.unknown else ""
    here = f", {format_bytes(disk.here)} of it here" if disk.here else ""
    return f"{format_bytes(disk.wanted)} at the peak ({parts}{unknown}){here}; {format_bytes(disk.free)} free"


def memory_rows(plan: Plan, batch_size: int) -> Iterator[tuple[str, str]]:
    """Yield the memory of each language model, without activations, and a warning if the device has less."""
    device = device_memory() if plan.memory else None
    for item in plan.memory:
        if item.weights is None:
            yield f"memory, {item.key}", "unknown, as its architecture is unknown"
            continue
        parts = [f"weights {format_bytes(item.weights)}"]
        parts += [f"LoRA with optimizer {format_bytes(item.adapter)}"] if item.adapter else []
        parts += [f"cache of {batch_size} sequences {format_bytes(item.cache)}"] if item.cache else []
        short = f"; {device.name} has {format_bytes(device.num_bytes)}" if device else ""
        too_little = ", too little" if device and item.peak > device.num_bytes else ""
        yield f"memory, {item.key}", ", ".join(parts) + short + too_little


def _show_sources(console: Console, planned: Plan, *, asked: bool) -> None:
    if not planned.fetches:
        console.print("nothing to download: no config names a source")
        return
    console.print()
    console.print(
        grid(("source", "where", "pinned", "size"), map(source_row, planned.fetches), styles=("",), numbers=(3,))
    )
    for server, reason in planned.unreachable.items():
        asked_of = [one for one in planned.fetches if not one.present and server_of(one.source) == server]
        unknown = ", ".join(one.key for one in asked_of if one.num_bytes is None)
        console.print(Text(f"{server} was not reachable ({reason}): unknown are the sizes of {unknown}", "yellow"))
    if not asked:
        console.print("--offline: sizes and access were not looked up")
    commands = [fetch.command for fetch in planned.fetches if not fetch.present and fetch.command]
    if commands:
        console.print("A run downloads what is missing, except folders; to download it now:")
    for command in commands:
        console.print(Text("    " + command.replace("\n", "\n    ")), soft_wrap=True)


def source_row(fetch: Download) -> tuple[str, str, str, str]:
    """Return a source's key, location without the middle of a URL, whether it is pinned, and its size or `here`."""
    size = "unknown" if fetch.num_bytes is None else format_bytes(fetch.num_bytes)
    where = re.sub(r"^https?://([^/]+)/.*/", r"\1/.../", fetch.name)
    return fetch.key, where, "yes" if fetch.pinned else "no", "here" if fetch.present else size
