"""`alignslm listen`: human ratings of the samples, from the study to its analysis."""

from pathlib import Path
from typing import Annotated

import typer

from alignslm.cli.registering import commands_of

listen = typer.Typer(
    name="listen",
    help="Let people rate samples: build a blinded study, serve it, export and analyse the ratings.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)
Folder = Annotated[Path, typer.Argument(help="The study's folder.")]
Artifacts = Annotated[Path, typer.Option("--artifacts", "-a", help="The folder of artifacts that dvc repro made.")]
command = commands_of(listen)


@command
def build(
    choice: Annotated[str, typer.Argument(help="A file of experiments/listening/, such as mmos.")],
    folder: Annotated[Path | None, typer.Option("--out", "-o", help="Where to; studies/CHOICE if not given.")] = None,
    artifacts: Artifacts = Path("artifacts"),
    *,
    raters: Annotated[int, typer.Option("--raters", "-r", min=1, help="How many people to invite.")],
) -> None:
    """Build a study from the samples there are, and invite raters.

    Everybody hears every prompt, continued by another system each; invite a multiple of the number of systems and
    anchors, so that every clip is heard equally often.

    [bold]alignslm listen build mmos --raters 12[/]
    """
    from alignslm.cli.listening import print_built

    print_built(choice, folder or Path("studies") / choice, artifacts, raters)


@command
def invite(
    folder: Folder, *, raters: Annotated[int, typer.Option("--raters", "-r", min=1, help="How many more.")]
) -> None:
    """Invite more raters to a study, also while it is served."""
    from alignslm.cli.listening import print_invited

    print_invited(folder, raters)


@command
def links(
    folder: Folder,
    *,
    base: Annotated[str, typer.Option("--base", help="How raters reach the server.")] = "http://127.0.0.1:8000",
) -> None:
    """Print every rater's own link and how far they are."""
    from alignslm.cli.listening import print_links

    print_links(folder, base)


@command
def serve(
    folder: Folder,
    *,
    host: Annotated[
        str, typer.Option("--host", help="Address to listen at; 0.0.0.0 for phones of the network.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", "-p", min=1, max=65535)] = 8000,
) -> None:
    """Serve a study. It can be stopped, or killed, and served again at any time: no rating is lost."""
    from alignslm.cli.listening import print_served

    print_served(folder, host, port)


@command
def export(folder: Folder) -> None:
    """Write the ratings, with the systems' names, to ratings.parquet and ratings.csv of the study's folder."""
    from alignslm.cli.listening import print_exported

    print_exported(folder)


@command
def analyse(folder: Folder, artifacts: Artifacts = Path("artifacts")) -> None:
    """Print MMOS with intervals, raters' agreement and the correlation with automatic scores; write analysis.json.

    Intervals are of 95 %, clustered by rater and prompt.
    """
    from alignslm.cli.listening import print_analysis

    print_analysis(folder, artifacts)
