"""Commands that let a person hear models, and bring preferences that others made."""

from pathlib import Path
from typing import Annotated

import typer

from alignslm.cli.registering import commands_of

playing = typer.Typer(rich_markup_mode="rich")
command = commands_of(playing)
Root = Annotated[
    Path, typer.Option("--root", "-C", help="The folder that holds params.yaml, experiments/ and artifacts/.")
]


@command
def continue_(
    prompt: Annotated[str, typer.Argument(help="A sound file (wav, flac, ogg, mp3), or the id of a prompt.")],
    root: Root = Path(),
    *,
    model: Annotated[
        str, typer.Option("--model", "-m", help="A checkpoint's name, a folder, or a Hub id (owner/name@revision).")
    ] = "r1",
    compare: Annotated[
        str | None, typer.Option("--compare", "-c", help="Several models side by side, comma-separated.")
    ] = None,
    draws: Annotated[
        int | None, typer.Option("--draws", "-n", min=1, help="Continuations a model; else sampling.draws.")
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option("--temperature", "-t", help="Above 1 bolder, below 1 safer; else sampling.temperature."),
    ] = None,
    top_p: Annotated[
        float | None, typer.Option("--top-p", help="Share of probability kept at each unit; else sampling.top_p.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", "-s", min=0, help="Another seed, other draws; else seeds.evaluation.")
    ] = None,
    prompt_seconds: Annotated[
        float | None, typer.Option("--prompt-seconds", help="Use so much of the file's beginning.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder to write; else continuations/PROMPT.")] = None,
) -> None:
    """Continue a spoken prompt: hear and read what a model says next.

    Speech becomes units, the model draws continuations, the vocoder speaks them and the recogniser writes them down,
    all of them those of the experiment in --root; a model of other units is refused. Written are, for every draw, the
    continuation alone and after the prompt, transcript.jsonl, and index.html with players.

    Draws depend on prompt, model, seed and sampling alone: the same command writes the same bytes, models compared
    share their random numbers, and the id of a prompt gives the very draws of the pipeline's samples.

    [bold]alignslm continue prompt.wav[/]

    [bold]alignslm continue prompt.wav --compare base,sft,r1 --draws 3[/]

    [bold]alignslm continue prompt.ogg -m owner/model --prompt-seconds 3 --temperature 0.7[/]
    """
    from alignslm.cli.continuing import print_continued

    print_continued(
        prompt,
        root,
        models=compare.split(",") if compare else [model],
        draws=draws,
        temperature=temperature,
        top_p=top_p,
        seed=seed,
        prompt_seconds=prompt_seconds,
        out=out,
    )


@command
def demo(
    root: Root = Path(),
    *,
    models: Annotated[
        str | None, typer.Option("--models", "-m", help="Models to offer, comma-separated; else every checkpoint.")
    ] = None,
    host: Annotated[
        str, typer.Option("--host", help="Address to listen at; 0.0.0.0 lets the network in.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", "-p", min=1, max=65535)] = 7860,
    browser: Annotated[bool, typer.Option("--browser", help="Open the page in the browser.")] = False,
    export_space: Annotated[
        Path | None, typer.Option("--export-space", help="Write the page as a folder for a Space instead.")
    ] = None,
) -> None:
    """Show a page to talk to the models: record or upload speech, hear their continuations side by side.

    It is served on this machine only, asks no other host and shares nothing. Needs the extra [bold]demo[/].

    [bold]alignslm demo[/]                                    http://127.0.0.1:7860

    [bold]alignslm demo --models base,r1 --export-space space[/]     a folder to upload as a Space
    """
    from alignslm.demo.page import serve
    from alignslm.demo.space import export_space as export

    named = models.split(",") if models else None
    if export_space is None:
        serve(root, named, host=host, port=port, opened=browser)
    else:
        export(root, named, export_space)
        typer.echo(f"wrote {export_space}; try it with `python {export_space / 'app.py'}`")


@command
def samples_page(
    folder: Annotated[Path, typer.Argument(help="Where index.html and the audio are written.")] = Path(
        "reports/samples"
    ),
    root: Root = Path(),
    *,
    systems: Annotated[str, typer.Option("--systems", help="Systems to show, comma-separated.")] = "base,sft,r1,true",
    num_prompts: Annotated[int, typer.Option("--prompts", "-n", min=1, max=99)] = 12,
) -> None:
    """Write samples of a finished experiment to publish: small audio files, transcripts and scores, on two pages.

    The first prompts of the evaluation split by id, with every system's first continuation. FOLDER/index.html has
    players and no script; FOLDER.md, next to the folder, is the same page in Markdown. No model is loaded.

    [bold]alignslm samples-page[/]                  reports/samples/index.html and reports/samples.md

    [bold]alignslm samples-page docs/samples --systems base,r1 --prompts 20[/]
    """
    from alignslm.config.loading import load_experiment
    from alignslm.report.samples import write_samples

    page = write_samples(
        load_experiment(root), root / "artifacts", folder, systems=systems.split(","), num_prompts=num_prompts
    )
    typer.echo(f"wrote {folder / 'index.html'} and {page}")


@command
def import_preferences(
    source: Annotated[str, typer.Argument(help="A .jsonl or .parquet file, a folder of them, or a Hub dataset's id.")],
    root: Root = Path(),
    *,
    name: Annotated[str, typer.Option("--name", help="What the choice and the checkpoint are called.")],
    units_of: Annotated[
        str | None, typer.Option("--units-of", help="The encoder that made them, where the rows hold units.")
    ] = None,
    revision: Annotated[str, typer.Option("--revision", help="Branch, tag or commit of a Hub dataset.")] = "main",
    train: Annotated[
        str | None, typer.Option("--train", help="Pattern of the files to train on; else by their names.")
    ] = None,
    valid: Annotated[
        str | None, typer.Option("--valid", help="Pattern of the files that choose the checkpoint; else by names.")
    ] = None,
    valid_share: Annotated[
        float, typer.Option("--valid-share", help="Share of prompts that choose it where no file does.")
    ] = 0.1,
    columns: Annotated[
        str | None, typer.Option("--columns", help="Where prompt, chosen and rejected are, comma-separated.")
    ] = None,
    cut: Annotated[
        bool, typer.Option("--cut", help="Chosen and rejected were cut off: their ends teach no end of speech.")
    ] = False,
    repeats: Annotated[
        str, typer.Option("--repeats", help="A unit twice in a row: refuse, collapse, or keep (a model drew it).")
    ] = "refuse",
) -> None:
    """Bring preferences that others made: (prompt, chosen, rejected), as speech or as units.

    Every row is read and checked; all that is wrong is listed at once, and nothing is written then. Otherwise the
    choice goes to experiments/preferences/NAME.yaml, with its source pinned, and into params.yaml as a checkpoint
    trained on it from the base model, and as a control that is evaluated. No sampling and no judge is needed.

    [bold]alignslm import-preferences slprl/SpokenSwag --name spoken-swag[/]

    [bold]alignslm import-preferences pairs.jsonl --name mine --units-of mhubert-25hz-km500[/]
    """
    from alignslm.cli.preferences import print_imported
    from alignslm.preferences.describing import Asked

    sides = tuple(columns.split(",")) if columns else None
    if sides is not None and len(sides) != 3:
        raise typer.BadParameter("name three columns: prompt,chosen,rejected", param_hint="--columns")
    asked = Asked(source, revision, train, valid, sides, valid_share, not cut, repeats, None)
    print_imported(asked, name, root, units_of=units_of)
