"""`alignslm generate`: continuations of a spoken prompt, as audio and transcripts."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from alignslm.cli.options import Root, separated
from alignslm.cli.terminal import grid
from alignslm.terminal import Console

if TYPE_CHECKING:
    from alignslm.generation.prompt import Prompt
    from alignslm.generation.take import Continuation


def generate(
    prompt: Annotated[str, typer.Argument(help="An audio file (wav, flac, ogg, mp3), or a prompt id.")],
    root: Root = Path(),
    *,
    model: Annotated[
        str, typer.Option("--model", "-m", help="A checkpoint's name, a folder, or a Hub id (owner/name@revision).")
    ] = "r1",
    compare: Annotated[
        str | None, typer.Option("--compare", "-c", help="Several models instead, comma-separated.")
    ] = None,
    num_continuations: Annotated[
        int | None, typer.Option("--num-continuations", "-n", min=1, help="Per model; default: params.yaml's.")
    ] = None,
    temperature: Annotated[
        float | None, typer.Option("--temperature", "-t", help="Default: sampling.temperature of params.yaml.")
    ] = None,
    top_p: Annotated[
        float | None, typer.Option("--top-p", help="Probability mass to sample from; default: sampling.top_p.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", "-s", min=0, help="Default: seeds.evaluation of params.yaml.")
    ] = None,
    prompt_seconds: Annotated[
        float | None, typer.Option("--prompt-seconds", help="Use only this much of the file's beginning.")
    ] = None,
    judge: Annotated[
        bool, typer.Option("--judge/--no-judge", help="Score the transcripts with the judge, unless it is a server.")
    ] = True,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Output folder; default: continuations/PROMPT.")
    ] = None,
) -> None:
    """Continue a spoken prompt: listen to and read what a model says next.

    The prompt is encoded to units, the model samples continuations, the vocoder synthesizes them, the ASR model
    transcribes them and the judge scores the transcripts. All but the model are the experiment's; a model of other
    units is rejected. The output folder has each continuation with and without its prompt, transcript.jsonl, and
    index.html with players.

    Samples depend only on prompt, model, seed and sampling: the same command writes the same bytes, compared models
    share their random numbers, and a prompt id gives the samples that the pipeline evaluates.

    [bold]alignslm generate prompt.wav[/]

    [bold]alignslm generate prompt.wav --compare base,sft,r1 --num-continuations 3[/]

    [bold]alignslm generate prompt.ogg -m owner/model --prompt-seconds 3 --temperature 0.7[/]
    """
    from alignslm.generation.folder import write_folder
    from alignslm.generation.prompt import PlayError
    from alignslm.generation.resolve import checkpoint_folder
    from alignslm.generation.studio import SpeechPipeline, judged

    models = separated(compare) or [model]
    if repeated := sorted({model for model in models if models.count(model) > 1}):
        raise PlayError(f"{repeated[0]} is compared with itself; name each model once")
    for name in models:
        checkpoint_folder(name, root)  # a misspelled name is reported before anything is sampled
    began = time.monotonic()
    _say("loading encoder, vocoder and ASR model")
    studio = SpeechPipeline.open(root)
    scorer = studio.load_judge() if judge else None
    encoded = studio.prompt(prompt, seconds=prompt_seconds)
    _say(f"prompt: {encoded.seconds:.1f} s, {len(encoded.units)} units ({time.monotonic() - began:.1f} s)")
    takes: dict[str, list[Continuation]] = {}
    for name in models:
        began = time.monotonic()
        takes[name] = studio.load_model(name).generate(
            encoded, num_continuations=num_continuations, temperature=temperature, top_p=top_p, seed=seed
        )
        takes[name] = judged(takes[name], scorer) if scorer else takes[name]
        length_s = sum(take.seconds for take in takes[name])
        _say(f"{name}: {len(takes[name])} continuations, {length_s:.1f} s ({time.monotonic() - began:.1f} s)")
    folder = out or Path("continuations") / Path(prompt).stem
    write_folder(encoded, takes, folder, judge=studio.params.judge if scorer else None)
    _print_takes(encoded, takes, folder)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _print_takes(prompt: Prompt, takes: dict[str, list[Continuation]], folder: Path) -> None:
    from alignslm.generation.folder import PAGE, TRANSCRIPT

    console = Console(highlight=False)
    rows = [("prompt", "", f"{prompt.seconds:.1f}", "", prompt.text or "(no words)")]
    rows += [
        (
            model,
            str(take.sample_index + 1),
            f"{take.seconds:.1f}",
            "" if take.judge_score is None else f"{take.judge_score:.2f}",
            take.text or f"({take.status})",
        )
        for model, takes_of_model in takes.items()
        for take in takes_of_model
    ]
    console.print(grid(("model", "", "seconds", "judge", "transcript"), rows, numbers=[2, 3]))
    console.print(Text(f"audio and {TRANSCRIPT} in {folder}; listen to all in {folder / PAGE}"), soft_wrap=True)
