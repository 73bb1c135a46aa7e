"""`alignslm check`: the resolved experiment, or its faults."""

from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from alignslm.config.arithmetic import emulated
from alignslm.config.crosschecks import warnings
from alignslm.config.document import Plain
from alignslm.config.experiment import CHOICE_FOLDERS, Experiment
from alignslm.config.faults import ConfigError
from alignslm.config.loading import library_faults, load_execution, load_experiment
from alignslm.config.presets import list_presets
from alignslm.config.readiness import execution_faults, judge_faults


def print_check(root: Path, *, everything: bool) -> None:
    """Print the experiment and its warnings. Raises ConfigError with every fault found."""
    experiment = checked(root, everything=everything)
    console = Console(highlight=False)
    console.print(summary(experiment))
    slow = [str(fault) for faults in emulated(experiment, load_execution(root), root).values() for fault in faults]
    for warning in [*warnings(experiment), *dict.fromkeys(slow)]:
        console.print(Text(f"warning: {warning}", style="yellow"), soft_wrap=True)
    console.print(Text("params.yaml and its choices are valid", style="green"))


def checked(root: Path, *, everything: bool) -> Experiment:
    """Load experiment and execution settings, their faults joined into one ConfigError."""
    faults = [] if not everything else library_faults(root)
    for load in (load_experiment, load_execution, *([list_presets] if everything else [])):
        try:
            load(root)
        except ConfigError as error:
            faults += error.faults
    if faults:
        raise ConfigError(faults)
    experiment = load_experiment(root)
    if lacks := [*judge_faults(experiment, root), *execution_faults(load_execution(root), root)]:
        raise ConfigError(lacks)
    return experiment


def summary(experiment: Experiment) -> Table:
    """Return one line for each choice and each group of values."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(overflow="fold")
    params = experiment.params.model_dump()
    for key in CHOICE_FOLDERS:
        params.pop(key, None)
    for choice in experiment.choices():
        values = choice.config.model_dump(mode="json")
        table.add_row(".".join(choice.path), choice.file.stem, compact(values, outermost=True))
    for key, value in experiment.params.model_dump(mode="json", include=set(params)).items():
        groups = value.items() if key in {"preferences", "systems"} else [(None, value)]
        for name, group in groups:
            table.add_row(key if name is None else f"{key}.{name}", "", compact(group, outermost=True))
    return table


def compact(value: Plain, *, outermost: bool = False) -> str:
    """Return `seed=0  stories={train=4000  valid=100}`; `kind` is left out, the choice's name says it."""
    if isinstance(value, dict):
        inside = "  ".join(f"{key}={compact(item)}" for key, item in value.items() if key != "kind")
        return inside if outermost else f"{{{inside}}}"
    if isinstance(value, list):
        return ",".join(compact(item) for item in value)
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)
