"""`alignslm check`: the resolved experiment, or its faults."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from alignslm import outside
from alignslm.cli.options import Root
from alignslm.cli.terminal import grid
from alignslm.config.arithmetic import emulated
from alignslm.config.corpora import Recordings
from alignslm.config.document import Plain
from alignslm.config.experiment import CONFIG_GROUPS, Experiment
from alignslm.config.loading import library_faults, load_execution, load_experiment
from alignslm.config.prerequisites import asr_faults, execution_faults, judge_faults, model_faults
from alignslm.config.presets import list_presets
from alignslm.config.problems import ConfigError
from alignslm.config.warnings import warnings
from alignslm.terminal import Console
from alignslm.training.adapter_faults import adapter_faults


def check(
    root: Root = Path(),
    *,
    everything: Annotated[
        bool, typer.Option("--all", help="Also read configs and presets that params.yaml does not name.")
    ] = False,
) -> None:
    """Check params.yaml and every config it names, and print the resolved experiment.

    All problems of all files are listed at once, each as file:line: key: message, and the exit status is then 1.
    Model folders are checked: config, tokenizer, names and dtypes of weights. No weight is loaded. Of a corpus
    of recordings it prints what each stage needs, and exits with status 1 if there is less.

    [bold]alignslm check[/]

    [bold]alignslm check --all[/]              also presets and configs that are not in use
    """
    experiment = checked(root, everything=everything)
    console = Console(highlight=False)
    console.print(summary(experiment))
    slow = [str(fault) for faults in emulated(experiment, load_execution(root), root).values() for fault in faults]
    changed = outside.compare(experiment, root, new=False).changes
    for warning in [*warnings(experiment), *dict.fromkeys(slow), *changed]:
        console.print(Text(f"warning: {warning}", style="yellow"), soft_wrap=True)
    if isinstance(experiment.corpus, Recordings):
        _print_needs(experiment, root, console)
    console.print(Text("params.yaml and its configs are valid", style="green"))


def _print_needs(experiment: Experiment, root: Path, console: Console) -> None:
    from alignslm.plan.speech import speech_needs

    needs = speech_needs(experiment, root)
    rows = [(need.stage, need.needs, need.has, "" if need.enough else "too little") for need in needs]
    if rows:
        console.print(grid(("stage", "needs", "has", ""), rows, numbers=(), styles=("bold", None, None, "red")))
    if any(not need.enough for need in needs):
        raise typer.Exit(1)


def checked(root: Path, *, everything: bool) -> Experiment:
    """Load the experiment and execution settings. ConfigError lists the problems of both."""
    faults = [] if not everything else library_faults(root)
    for load in (load_experiment, load_execution, *([list_presets] if everything else [])):
        try:
            load(root)
        except ConfigError as error:
            faults += error.faults
    if faults:
        raise ConfigError(faults)
    experiment = load_experiment(root)
    lacks = [
        *judge_faults(experiment, root),
        *asr_faults(experiment, root),
        *execution_faults(load_execution(root), root),
    ]
    if lacks := [*lacks, *model_faults(experiment, root)] or adapter_faults(experiment, root):
        raise ConfigError(lacks)
    return experiment


def summary(experiment: Experiment) -> Table:
    """Return one line per config and per group of values."""
    rows: list[tuple[str, str, str]] = []
    params = experiment.params.model_dump()
    for key in CONFIG_GROUPS:
        params.pop(key, None)
    for choice in experiment.choices():
        values = choice.config.model_dump(mode="json")
        rows.append((".".join(choice.path), choice.file.stem, compact(values, outermost=True)))
    for key, value in experiment.params.model_dump(mode="json", include=set(params)).items():
        groups = value.items() if key in {"preferences", "guards", "best_of", "systems"} else [(None, value)]
        for name, group in groups:
            rows.append((key if name is None else f"{key}.{name}", "", compact(group, outermost=True)))
    return grid(("", "", ""), rows, numbers=(), styles=("bold", "cyan"))


def compact(value: Plain, *, outermost: bool = False) -> str:
    """Return `seed=0  stories={train=4000  valid=100}`; `kind` is omitted: the config's name says it."""
    if isinstance(value, dict):
        inside = "  ".join(f"{key}={compact(item)}" for key, item in value.items() if key != "kind")
        return inside if outermost else f"{{{inside}}}"
    if isinstance(value, list):
        return ",".join(compact(item) for item in value)
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)
