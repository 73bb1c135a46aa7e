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

    [bold]alignslm continue prompt.wav --compare base,r1,r2 --draws 3[/]

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
