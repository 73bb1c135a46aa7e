"""`alignslm trace`: every step behind a pair or a continuation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from alignslm.cli.options import Root
from alignslm.cli.tables import cell
from alignslm.config.loading import load_experiment
from alignslm.terminal import Console

if TYPE_CHECKING:
    from alignslm.lineage import Chain

WIDTH = 18  # of the names of values


def trace(
    identity: Annotated[str, typer.Argument(metavar="ID", help="A pair id or a continuation id.")],
    root: Root = Path(),
    *,
    audio: Annotated[
        Path | None, typer.Option("--audio", "-a", help="Write the continuation's speech: .flac, .wav, .ogg or .mp3.")
    ] = None,
) -> None:
    """Print where a pair or a continuation comes from, from the utterance to the rule that selected it.

    Utterance, prompt, model and seed, units, speech, transcript, the judge's reply, scores, the selection rule. With
    --audio, the two sides of a pair are written as FILE-chosen and FILE-rejected, and a continuation that several
    systems share as FILE-SYSTEM.

    [bold]alignslm trace 00c1a9d0e2f45b67-3fa2c1-0[/]

    [bold]alignslm trace 00c1a9d0e2f45b67-3fa2c1-0-00c1a9d0e2f45b67-3fa2c1-4 --audio pair.flac[/]
    """
    from alignslm.audio import decode
    from alignslm.generation.take import write_audio
    from alignslm.lineage import speech_of
    from alignslm.lineage import trace as chains_of

    chains = chains_of(identity, root / "artifacts", load_experiment(root))
    console = Console(highlight=False, soft_wrap=True)
    for role, chain in chains.items():
        _print_chain(console, role, chain)
        if audio is not None:
            path = audio if len(chains) == 1 else audio.with_stem(f"{audio.stem}-{role}")
            write_audio(*decode(speech_of(chain).data), path)
            console.print(f"  wrote {path}")
        console.print()


def _print_chain(console: Console, role: str, chain: Chain) -> None:
    console.print(Text(f"{role}: {chain.continuation_id} ({chain.place.kind} {chain.place.name})", style="bold cyan"))
    for step in chain.steps:
        console.print(Text.assemble((f"  {step.title}", "bold"), (f"  {step.source or ''}", "dim")))
        for name, value in step.facts.items():
            console.print(Text(f"    {name:<{WIDTH}} {cell(value)}"))
