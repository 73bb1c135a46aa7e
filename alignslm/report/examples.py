"""Playable examples: the first evaluation prompts by id with every system's continuation. Never hand-picked."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from alignslm import tables
from alignslm.artifacts import Artifacts, Sample
from alignslm.audio import encode_flac
from alignslm.prompts import fill_missing_texts
from alignslm.recordings import recordings_of
from alignslm.utterances import speech_cells

NO_AUDIO = {"bytes": None}


@dataclass(frozen=True)
class Continuation:
    """A system's first continuation: FLAC bytes (empty if there is no audio), transcript and both judges' scores."""

    model: str
    flac: bytes
    text: str | None
    score: float | None
    heldout_score: float | None


@dataclass(frozen=True)
class Example:
    """One prompt: FLAC bytes, its text and the ground-truth continuation's if known, and the continuations.

    `heard` is true if the corpus has no text of the prompt, so the text is the ASR transcript.
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
    """Read the first `count` prompts of `split` by id that any model continued, with every model's first continuation.

    Prompt ids are hashes of content, so their order does not depend on how well a model did.
    """
    made = Artifacts(artifacts)
    prompts = tables.read(tables.PROMPTS, made.prompts).filter(split=split)
    prompts = prompts.join(judged.select("prompt_id").unique(), on="prompt_id", how="semi").sort("prompt_id")
    known = prompts.head(count)
    prompts = fill_missing_texts(known, tables.read(tables.TRANSCRIPTS, made.prompt_transcripts))
    without_text = set(known.filter(pl.col("prompt_text").is_null())["prompt_id"])
    recordings = recordings_of(made.utterances, prompts)
    sounds = {one.prompt_id: encode_flac(one.prompt, one.sample_rate_hz) for one in recordings}
    drawn = {model: _first_draws(made.sample(model), judged.filter(model=model), prompts) for model in models}
    return tuple(
        Example(
            prompt_id=row["prompt_id"],
            prompt_flac=sounds[row["prompt_id"]],
            prompt_text=row["prompt_text"],
            heard=row["prompt_id"] in without_text,
            true_text=row["continuation_text"],
            continuations=tuple(drawn[model][row["prompt_id"]] for model in models if row["prompt_id"] in drawn[model]),
        )
        for row in prompts.iter_rows(named=True)
    )


def _first_draws(sample: Sample, judged: pl.DataFrame, prompts: pl.DataFrame) -> dict[str, Continuation]:
    """Return the first continuation of every prompt, by prompt id."""
    heldout = judged.filter(metric="heldout_judge_score").select("continuation_id", heldout_score="value")
    rows = (
        judged.filter(metric="judge_score")
        .join(prompts.select("prompt_id"), on="prompt_id", how="semi")
        .sort("prompt_id", "sample_index")
        .unique("prompt_id", keep="first", maintain_order=True)
        .join(_texts(sample), left_on="continuation_id", right_on="source_id", how="left")
        .join(heldout, on="continuation_id", how="left")
    )
    sounds = dict(speech_cells(sample.speech, rows["continuation_id"]).iter_rows())
    return {
        row["prompt_id"]: Continuation(
            model=row["model"],
            flac=sounds.get(row["continuation_id"], NO_AUDIO)["bytes"] or b"",
            text=row["text"],
            score=row["value"],
            heldout_score=row["heldout_score"],
        )
        for row in rows.iter_rows(named=True)
    }


def _texts(sample: Sample) -> pl.DataFrame:
    return tables.read(tables.TRANSCRIPTS, sample.transcripts).select("source_id", "text")
