"""The command line. Each command is a function of the module named here; it is imported when the command runs."""

from typing import Annotated, ClassVar

import typer

from alignslm import __version__
from alignslm.cli.lazy import LazyGroup


class Commands(LazyGroup):
    """The commands of alignslm."""

    panels: ClassVar = {
        "Before a run": {
            "init": "alignslm.cli.starting:init",
            "ingest": "alignslm.cli.ingest:ingest",
            "preset": "alignslm.cli.presets:preset",
            "check": "alignslm.cli.checking:check",
            "plan": "alignslm.cli.planning:plan",
            "stages": "alignslm.cli.overview:stages",
            "upgrade": "alignslm.cli.upgrading:upgrade",
            "sweep": "alignslm.cli.sweep:sweep",
            "import-preferences": "alignslm.cli.preferences:import_preferences",
        },
        "After a run": {
            "times": "alignslm.cli.times:times",
            "show": "alignslm.cli.tables:show",
            "trace": "alignslm.cli.trace:trace",
            "yield": "alignslm.cli.pair_yield:pair_yield",
            "compare": "alignslm.cli.compare:compare",
            "compare-seeds": "alignslm.cli.compare:compare_seeds",
            "compare-ways": "alignslm.cli.compare:compare_ways",
        },
        "Listen": {
            "generate": "alignslm.cli.generate:generate",
            "demo": "alignslm.cli.demo:demo",
            "listen": "alignslm.cli.listen:listen",
        },
        "Publish": {
            "samples-page": "alignslm.cli.publishing:samples_page",
            "publish-preview": "alignslm.cli.publishing:publish_preview",
            "export-zrc": "alignslm.cli.submission:export_zrc",
        },
    }


app = typer.Typer(
    name="alignslm",
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def main(
    *, version: Annotated[bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)] = False
) -> None:
    """Align-SLM: align a textless spoken language model with AI feedback, as a DVC pipeline.

    params.yaml is the experiment, dvc.yaml the method, and DVC runs it:

    [bold]alignslm check[/]                    is every parameter valid, and what will run?
    [bold]alignslm plan[/]                     what will a run download, request and need, and what is missing?
    [bold]alignslm stages[/]                   what does each stage make, and does it exist?
    [bold]dvc repro[/]                         run what is missing or out of date
    [bold]alignslm show pairs r1[/]            look into a table
    [bold]alignslm compare r1 base[/]          what did alignment change?
    [bold]alignslm generate prompt.wav[/]      what does a model say next?
    """
    if version:
        typer.echo(f"alignslm {__version__}")
        raise typer.Exit
