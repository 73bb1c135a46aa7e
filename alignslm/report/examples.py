"""Playable examples: the first evaluation prompts by id, and what every model made of them. Never hand-picked."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from alignslm import tables
from alignslm.audio import encode_flac
from alignslm.prompts import fill_missing_texts
from alignslm.recordings import recordings_of


@dataclass(frozen=True)
class Continuation:
    """One model's first draw: FLAC bytes (empty where nothing was spoken), transcript and both judges' scores."""

    model: str
    flac: bytes
    text: str | None
    score: float | None
    heldout_score: float | None


@dataclass(frozen=True)
class Example:
    """One prompt: its sound as FLAC, its text and the true continuation's where known, and the models' answers.

    Where the corpus does not know the prompt's text, `heard` says that the text is what the recogniser heard.
    """

    prompt_id: str
    prompt_flac: bytes
    prompt_text: str | None
    heard: bool
    true_text: str | None
    continuations: tuple[Continuation, ...]


def read_examples(
    artifacts: Path, judged: pl.DataFrame, *, models: Sequence[str], split: str, count: int
) -> tuple[Example, ...]:
    """Read the first `count` prompts of `split` by prompt id that any model continued, with every model's first draw.

    Prompt ids are hashes of content, so their order knows nothing of how well a model did.
    """
    prompts = tables.read(tables.PROMPTS, artifacts / "prompts.parquet").filter(split=split)
    prompts = prompts.join(judged.select("prompt_id").unique(), on="prompt_id", how="semi").sort("prompt_id")
    known = prompts.head(count)
    prompts = fill_missing_texts(known, tables.read(tables.TRANSCRIPTS, artifacts / "prompt_transcripts.parquet"))
    unwritten = set(known.filter(pl.col("prompt_text").is_null())["prompt_id"])
    sounds = {
        recording.prompt_id: encode_flac(recording.prompt, recording.sample_rate_hz)
        for recording in recordings_of(artifacts / "corpus" / "utterances", prompts)
    }
    drawn = {
        model: _first_draws(artifacts / "samples" / model, judged.filter(model=model), prompts) for model in models
    }
    return tuple(
        Example(
            prompt_id=row["prompt_id"],
            prompt_flac=sounds[row["prompt_id"]],
            prompt_text=row["prompt_text"],
            heard=row["prompt_id"] in unwritten,
            true_text=row["continuation_text"],
            continuations=tuple(drawn[model][row["prompt_id"]] for model in models if row["prompt_id"] in drawn[model]),
        )
        for row in prompts.iter_rows(named=True)
    )


def _first_draws(folder: Path, judged: pl.DataFrame, prompts: pl.DataFrame) -> dict[str, Continuation]:
    """Return the lowest draw of every prompt, by prompt id."""
    heldout = judged.filter(metric="heldout_judge").select("continuation_id", heldout_score="value")
    rows = (
        judged.filter(metric="judge")
        .join(prompts.select("prompt_id"), on="prompt_id", how="semi")
        .sort("prompt_id", "draw")
        .unique("prompt_id", keep="first", maintain_order=True)
        .join(_texts(folder), left_on="continuation_id", right_on="source_id", how="left")
        .join(heldout, on="continuation_id", how="left")
    )
    sounds = _sounds(folder / "speech", rows["continuation_id"].to_list())
    return {
        row["prompt_id"]: Continuation(
            model=row["model"],
            flac=sounds.get(row["continuation_id"], b""),
            text=row["text"],
            score=row["value"],
            heldout_score=row["heldout_score"],
        )
        for row in rows.iter_rows(named=True)
    }


def _texts(folder: Path) -> pl.DataFrame:
    return tables.read(tables.TRANSCRIPTS, folder / "transcripts.parquet").select("source_id", "text")


def _sounds(speech: Path, ids: list[str]) -> dict[str, bytes]:
    return {
        row["continuation_id"]: row["audio"]["bytes"] or b""
        for part in tables.iterate(tables.SPEECH, speech, ["continuation_id", "audio"])
        for row in part.filter(pl.col("continuation_id").is_in(ids)).iter_rows(named=True)
    }
