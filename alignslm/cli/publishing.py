"""`alignslm samples-page` and `alignslm publish-preview`: a finished experiment, for others to see."""

from pathlib import Path
from typing import Annotated

import typer

from alignslm.cli.options import Root
from alignslm.cli.terminal import format_bytes
from alignslm.config.loading import load_experiment
from alignslm.config.presets import preview_values
from alignslm.storage import temporary_folder
from alignslm.terminal import Console


def samples_page(
    folder: Annotated[Path, typer.Argument(help="Where to write index.html and the audio.")] = Path("reports/samples"),
    root: Root = Path(),
    *,
    systems: Annotated[
        str, typer.Option("--systems", help="Systems to show, comma-separated.")
    ] = "base,sft,r1,ground-truth",
    num_prompts: Annotated[int, typer.Option("--prompts", "-n", min=1, max=99)] = 12,
) -> None:
    """Write samples of a finished experiment for publication: small audio files, transcripts and scores, on two pages.

    They are the first prompts of the evaluation split by id, with every system's first continuation. FOLDER/index.html
    has players and no script; FOLDER.md, next to the folder, is the same page in Markdown. No model is loaded.

    [bold]alignslm samples-page[/]                  reports/samples/index.html and reports/samples.md

    [bold]alignslm samples-page docs/samples --systems base,r1 --prompts 20[/]
    """
    from alignslm.report.samples import write_samples

    page = write_samples(
        load_experiment(root), root / "artifacts", folder, systems=systems.split(","), num_prompts=num_prompts
    )
    typer.echo(f"wrote {folder / 'index.html'} and {page}")


def publish_preview(
    name: Annotated[str, typer.Argument(metavar="ROUND", help="A round of params.yaml, such as r1.")],
    folder: Annotated[Path, typer.Argument(help="Where to write model/ and dataset/.")],
    root: Root = Path(),
    *,
    config: Annotated[
        str | None, typer.Option("--config", help="A config of experiments/publish/, instead of params.yaml's.")
    ] = None,
) -> None:
    """Write what the stage publish would push, cards included, without pushing it.

    Needs no network and no token.

    [bold]alignslm publish-preview r1 preview --config mine[/]
    """
    from alignslm.publishing.pushing import CARD, packages_of, write_preview

    experiment = load_experiment(root)
    if config is not None:
        experiment = preview_values({"publish": config}, root, named="--config").experiment
    with temporary_folder() as work:
        packages = packages_of(experiment, name, root, Path(work) / "work")
        write_preview(packages, folder)
    console = Console(highlight=False, soft_wrap=True)
    for kind, package in packages.items():
        target, place = package.target, folder / kind
        size = sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
        visibility = "private" if target.private else "public"
        contents = f"{len(package.bundle)} files, {format_bytes(size)}"
        console.print(f"[bold]{place}[/]: {contents}; would go to {target.repo} ({visibility} if it is new)")
        console.print(f"  card {place / CARD}, tag {target.tag}, commit message {target.message!r}")
