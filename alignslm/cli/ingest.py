"""`alignslm ingest`: from a folder of recordings to a corpus and a preset that fits it."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from alignslm.cli.options import Root
from alignslm.cli.terminal import grid
from alignslm.terminal import Console
from alignslm.user_errors import Problem, format_problems

if TYPE_CHECKING:
    from alignslm.ingest.corpus import Ingested

APART = {
    "speakers": "no speaker is in two splits",
    "recordings": "one or a few voices: whole recordings are kept for test; their voices are also in train",
    "pieces": "one or two long recordings: their last pieces are kept for test, same voice and occasion",
}


def ingest(
    folder: Annotated[Path, typer.Argument(help="Recordings, in subfolders or not.")],
    root: Root = Path(),
    *,
    name: Annotated[str | None, typer.Option("--name", help="Name of the preset; default: the folder's.")] = None,
    sample_rate_hz: Annotated[int, typer.Option("--sample-rate", help="Hz of the corpus.", min=8000)] = 16000,
    one_speaker: Annotated[
        bool, typer.Option("--one-speaker", help="All recordings are of one voice; subfolders are not speakers.")
    ] = False,
    asr: Annotated[
        str | None, typer.Option("--asr", help="ASR model of experiments/asr, to transcribe recordings without a text.")
    ] = None,
    judge: Annotated[
        str | None, typer.Option("--judge", help="Judge of experiments/judge, instead of one fitted on the texts.")
    ] = None,
) -> None:
    """Make a corpus from a folder of recordings, and a preset with numbers that fit the amount of speech.

    Texts are read from a table (csv, tsv, jsonl; LJSpeech's too) or from a .txt next to each recording. Recordings
    become mono FLAC of one rate and loudness, cut at pauses if they are too long. The folder is not changed; what
    could not be used is listed in ingested/NAME/set-aside.csv.

    [bold]alignslm ingest ~/speech --name mine[/]

    [bold]alignslm preset mine && dvc repro[/]
    """
    from alignslm.ingest.corpus import Asked, ingest

    folder = folder.expanduser()
    name = name or re.sub(r"[^a-z0-9]+", "-", folder.resolve().name.lower()).strip("-") or "speech"
    done = ingest(Asked(folder, name, sample_rate_hz, one_speaker, asr, judge), root)
    console = Console(highlight=False, soft_wrap=True)
    if done is None:
        console.print(Text(f"nothing has changed in {folder} since ingested/{name} was written"))
    else:
        _print(done, name, asr, console)
    console.print(Text(f"next: alignslm preset {name} && dvc repro"))


def _print(done: "Ingested", name: str, asr: str | None, console: Console) -> None:
    import polars as pl

    if done.changes is not None:
        console.print(Text(f"files since the last time: {', '.join(done.changes) or 'the same'}"))
    minutes = done.rows["seconds"].sum() / 60
    recordings = done.rows["recording"].n_unique()
    console.print(
        Text(f"{recordings} of {len(done.found.recordings)} recordings used, {minutes:.1f} minutes of speech")
    )
    texts = f"from {done.found.table or '.txt files'}" + (f", or transcribed by {asr}" if asr else "")
    with_text = len(done.rows) - done.rows["text"].null_count()
    console.print(Text(f"{with_text} of {len(done.rows)} utterances have a text ({texts})"))
    counted = done.rows.group_by("split").agg(pl.len(), pl.col("seconds").sum() / 60, pl.col("speaker_id").n_unique())
    found = {split: (str(count), f"{minutes:.1f}", str(who)) for split, count, minutes, who in counted.iter_rows()}
    rows = [(split, *found[split]) for split in ("train", "valid", "test")]
    console.print(grid(("split", "utterances", "minutes", "speakers"), rows, numbers=(1, 2, 3), styles=("bold",)))
    console.print(Text(APART[done.by]))
    if done.aside:
        console.print(
            Text(f"{len(done.aside)} recordings or texts excluded (ingested/{name}/set-aside.csv):", style="yellow")
        )
        places = [Problem(reason, file if row is None else f"{file}:{row}") for file, row, reason in done.aside]
        for line in format_problems(places):
            console.print(Text(line))
    console.print(Text(f"wrote ingested/{name}, {done.written[0]} and {len(done.written) - 1} files that it names"))
