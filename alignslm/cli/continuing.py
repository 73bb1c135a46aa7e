"""`alignslm continue`: what models say after a prompt, as sound and words."""

import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from alignslm.play.finding import checkpoint_folder
from alignslm.play.folder import PAGE, TRANSCRIPT, write_folder
from alignslm.play.prompt import PlayError, Prompt
from alignslm.play.studio import Studio
from alignslm.play.take import Take


def print_continued(
    given: str,
    root: Path,
    *,
    models: list[str],
    draws: int | None,
    temperature: float | None,
    top_p: float | None,
    seed: int | None,
    prompt_seconds: float | None,
    out: Path | None,
) -> None:
    """Continue a prompt with every model, write the folder, print what was heard."""
    if repeated := sorted({model for model in models if models.count(model) > 1}):
        raise PlayError(f"{repeated[0]} is to be compared with itself; name every model once")
    for model in models:
        checkpoint_folder(model, root)  # a misspelt name is told before anything is drawn
    began = time.monotonic()
    _say("loading encoder, vocoder and recogniser")
    studio = Studio.open(root)
    prompt = studio.prompt(given, seconds=prompt_seconds)
    _say(f"prompt: {prompt.seconds:.1f} s, {len(prompt.units)} units ({time.monotonic() - began:.1f} s)")
    takes: dict[str, list[Take]] = {}
    for model in models:
        began = time.monotonic()
        takes[model] = studio.speaker(model).continuations(
            prompt, draws=draws, temperature=temperature, top_p=top_p, seed=seed
        )
        spoken = sum(take.seconds for take in takes[model])
        _say(f"{model}: {len(takes[model])} drawn, {spoken:.1f} s spoken ({time.monotonic() - began:.1f} s)")
    folder = out or Path("continuations") / Path(given).stem
    write_folder(prompt, takes, folder)
    _print_takes(prompt, takes, folder)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _print_takes(prompt: Prompt, takes: dict[str, list[Take]], folder: Path) -> None:
    console = Console(highlight=False)
    grid = Grid(box=None, header_style="bold", pad_edge=False)
    for heading in ("", "", "seconds", "what was heard"):
        grid.add_column(heading, justify="right" if heading == "seconds" else "left", overflow="fold")
    grid.add_row("prompt", "", f"{prompt.seconds:.1f}", Text(prompt.text or "(no word)"), style="dim")
    for model, drawn in takes.items():
        for take in drawn:
            grid.add_row(Text(model), str(take.draw + 1), f"{take.seconds:.1f}", Text(take.text or f"({take.heard})"))
    console.print(grid)
    console.print(Text(f"sound and {TRANSCRIPT} in {folder}; listen to all in {folder / PAGE}"), soft_wrap=True)
