"""The command line. Every command imports what it needs when it runs, so that help and checks stay quick."""

from pathlib import Path
from typing import Annotated

import typer

from alignslm import __version__
from alignslm.cli.listen import listen
from alignslm.cli.playing import playing
from alignslm.cli.registering import commands_of

app = typer.Typer(
    name="alignslm",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(listen)
Root = Annotated[
    Path, typer.Option("--root", "-C", help="The folder that holds params.yaml, dvc.yaml and experiments/.")
]
command = commands_of(app)


@app.callback(invoke_without_command=True)
def main(
    *, version: Annotated[bool, typer.Option("--version", help="Print the version and leave.", is_eager=True)] = False
) -> None:
    """Align-SLM as data: preference-optimise a textless spoken language model with AI feedback.

    The experiment is params.yaml, the method is dvc.yaml, and DVC runs it:

    [bold]alignslm check[/]                    is every parameter right, and what do they say?
    [bold]alignslm plan[/]                     what would a run fetch, ask and hold, and what is missing?
    [bold]alignslm overview[/]                 what does each stage make, and is it there?
    [bold]dvc repro[/]                         make what is missing or out of date
    [bold]alignslm show pairs r1[/]            look into what was made
    [bold]alignslm compare r1 base[/]          what did alignment change?
    [bold]alignslm continue prompt.wav[/]      what does a model say next?
    """
    if version:
        typer.echo(f"alignslm {__version__}")
        raise typer.Exit


@command
def check(
    root: Root = Path(),
    *,
    everything: Annotated[
        bool, typer.Option("--all", help="Also read choices and presets that params.yaml does not name.")
    ] = False,
) -> None:
    """Check params.yaml and every file it chooses, and print what they say.

    All faults of all files are listed at once, each as file:line: key: message, and the status is then 1.
    Takes under a second and loads no model.

    [bold]alignslm check[/]

    [bold]alignslm check --all[/]              presets and choices not in use as well
    """
    from alignslm.cli.checking import print_check

    print_check(root, everything=everything)


@command
def init(
    folder: Annotated[Path, typer.Argument(help="The folder to make; it must not exist yet, or be empty.")],
    *,
    preset: Annotated[str | None, typer.Option("--preset", "-p", help="Begin with this preset's choices.")] = None,
) -> None:
    """Make a git and DVC repository for an experiment of your own.

    [bold]alignslm init my-experiment[/]

    [bold]alignslm init my-experiment --preset slam[/]
    """
    from alignslm.cli.starting import print_init

    print_init(folder, preset=preset)


@command
def preset(
    name: Annotated[str | None, typer.Argument(help="The preset to write into params.yaml; none lists them.")] = None,
    root: Root = Path(),
) -> None:
    """Write a whole experiment's choices into params.yaml, or list the experiments there are.

    Comments and layout stay; what changed is printed. A preset sets the keys it names and leaves the others, so
    presets combine; [bold]tiny[/] sets everything back. A preset that does not fit leaves the file untouched.

    [bold]alignslm preset[/]                   list them

    [bold]alignslm preset paper-dpo[/]         the paper's objective

    [bold]alignslm preset tiny[/]              back to the default
    """
    from alignslm.cli.presets import print_applied, print_presets

    if name is None:
        print_presets(root)
    else:
        print_applied(name, root)


@command
def upgrade(
    root: Root = Path(),
    *,
    keep: Annotated[bool, typer.Option("--keep", help="Results made under the code of before stand.")] = False,
) -> None:
    """Say what newer code will rerun and what that costs, and record the code in code.yaml.

    Needed after an upgrade of alignslm, and after a change of stages/: a stage whose code is not recorded stops.
    Files of [bold]alignslm init[/] that you never edited are replaced by newer ones; for those you did edit, the
    difference is shown. It runs nothing itself; [bold]dvc repro[/] does.

    [bold]alignslm upgrade[/]

    [bold]alignslm upgrade --keep[/]           nothing reruns; code.yaml says that old results stand
    """
    from alignslm.cli.upgrading import print_upgrade

    print_upgrade(root, keep=keep)


@command
def plan(
    root: Root = Path(),
    *,
    preset: Annotated[
        str | None, typer.Option("--preset", "-p", help="Plan this preset; params.yaml is left alone.")
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Do not ask the Hub for sizes and permissions.")] = False,
) -> None:
    """Say what a run would fetch, ask of judges and hold on a GPU, and what is missing, before anything runs.

    Everything that is missing is listed at once (files, variables, disk, rubrics, budgets), and the status is then 1.

    [bold]alignslm plan[/]                     of params.yaml

    [bold]alignslm plan --preset twist-7b[/]   of another experiment
    """
    from alignslm.cli.planning import print_plan

    print_plan(root, preset=preset, offline=offline)


@command
def show(
    table: Annotated[list[str], typer.Argument(help="A path, or words of one below artifacts/, such as `pairs r1`.")],
    root: Root = Path(),
    *,
    rows: Annotated[int, typer.Option("--rows", "-n", min=0, help="Rows to print.")] = 10,
    columns: Annotated[str | None, typer.Option("--columns", "-c", help="Columns to print, comma-separated.")] = None,
    where: Annotated[str | None, typer.Option("--where", "-w", help="Rows to keep, as an SQL condition.")] = None,
) -> None:
    """Print a table: lists abbreviated, audio as its size, its unit contract below the title.

    Columns that do not fit the terminal beside each other are printed below each other.

    [bold]alignslm show pairs r1[/]

    [bold]alignslm show scores r1 -c continuation_id,llm_score -w "llm_score > 4 AND num_words < 8"[/]

    [bold]alignslm show artifacts/units.parquet --rows 3[/]
    """
    from alignslm.cli.tables import print_table

    print_table(table, root, rows=rows, columns=columns.split(",") if columns else None, where=where)


@command
def why(
    identity: Annotated[str, typer.Argument(metavar="ID", help="A pair id or a continuation id.")],
    root: Root = Path(),
    *,
    audio: Annotated[
        Path | None, typer.Option("--audio", "-a", help="Write what was said: .flac, .wav or .ogg.")
    ] = None,
) -> None:
    """Print where a pair or a continuation comes from: every step from the utterance to the rule that chose it.

    Utterance, prompt, model and seed, units, speech, transcript, the judge's own words, scores, the rule. The two sides
    of a pair, and systems that share a sample, are written beside FILE as FILE-chosen and so on.

    [bold]alignslm why 00c1a9d0e2f45b67-3fa2c1-0[/]

    [bold]alignslm why 00c1a9d0e2f45b67-3fa2c1-0-00c1a9d0e2f45b67-3fa2c1-4 --audio pair.flac[/]
    """
    from alignslm.cli.why import print_why

    print_why(identity, root, audio_file=audio)


@command
def overview(root: Root = Path()) -> None:
    """Print the stages of dvc.yaml in the order they run: what each reads, what it makes, and whether that exists.

    Existing is not the same as up to date: [bold]dvc status[/] tells that.
    """
    from alignslm.cli.overview import print_overview

    print_overview(root)


@command
def times(root: Root = Path()) -> None:
    """Print where the time of the last run went: the work of each stage, their start-up, and what lay between them.

    Runs that [bold]make repro[/] starts (python -m alignslm.warm ...) are noted; it prints this at its end.
    """
    from alignslm.cli.times import print_times

    print_times(root)


@command
def export_zrc(
    model: Annotated[str, typer.Argument(help="A round or a control of params.yaml, such as r1.")],
    folder: Annotated[Path, typer.Argument(help="Where the submission is written.")],
    root: Root = Path(),
    *,
    meta: Annotated[Path | None, typer.Option(help="A meta.yaml already filled in; none writes a template.")] = None,
) -> None:
    """Write a model's sWUGGY and sBLIMP scores as a submission to ZeroSpeech's sLM21 benchmark, and check it.

    [bold]alignslm export-zrc r1 submission[/]
    """
    from alignslm.cli.submission import export_submission

    export_submission(model, folder, root, meta=meta)


@command
def compare(
    model: Annotated[str, typer.Argument(help="A round or a control of params.yaml, such as r1.")],
    against: Annotated[str, typer.Argument(help="The system it is compared with, such as base.")],
    root: Root = Path(),
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare two evaluated systems in everything that both were measured by, with intervals and exact tests.

    [bold]alignslm compare r1 base[/]

    [bold]alignslm compare r1 sft --json[/]
    """
    from alignslm.cli.compare import print_compared

    print_compared(model, against, root, as_json=as_json)


@command
def seeds(
    model: Annotated[str, typer.Argument(help="A round or a control, such as r1.")],
    against: Annotated[str, typer.Argument(help="The system it is compared with, such as base.")],
    folders: Annotated[list[Path], typer.Argument(help="The artifacts of each run: folders that hold eval/.")],
    root: Root = Path(),
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare two systems over several training runs: how sure is the difference of items, of runs, of both?

    Runs that differ in their seeds alone, evaluated on the same items. Bootstrap and its seed are those of params.yaml.

    [bold]alignslm seeds r1 base seed-0/artifacts seed-1/artifacts seed-2/artifacts[/]
    """
    from alignslm.cli.seeds import print_combined

    print_combined(model, against, folders, root, as_json=as_json)


@command
def publish_preview(
    name: Annotated[str, typer.Argument(metavar="ROUND", help="A round of params.yaml, such as r1.")],
    folder: Annotated[Path, typer.Argument(help="Where model/ and dataset/ are written.")],
    root: Root = Path(),
    *,
    choice: Annotated[
        str | None, typer.Option("--choice", help="A file of experiments/publish, instead of params.yaml's.")
    ] = None,
) -> None:
    """Write what the stage publish would push, cards included, to look at before anything leaves this machine.

    Needs no network and no token.

    [bold]alignslm publish-preview r1 preview --choice mine[/]
    """
    from alignslm.cli.publishing import print_preview

    print_preview(name, folder, root, choice=choice)


app.add_typer(playing)  # last: help lists its commands last
