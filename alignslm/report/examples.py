"""Playable examples: prompts taken by id, or by how far a system's first continuation scores from another's."""

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


def first_prompts(judged: pl.DataFrame, count: int) -> list[str]:
    """Return the first `count` prompts by id that any model continued.

    Prompt ids are hashes of content, so their order does not depend on how well a model did.
    """
    return judged["prompt_id"].unique().sort().head(count).to_list()


def first_changes(judged: pl.DataFrame, model: str, against: str) -> pl.DataFrame:
    """Return prompt_id and change, in order of both: the score of one model's first continuation less the other's."""
    ours, others = (_first_scores(judged, name).select("prompt_id", "value") for name in (model, against))
    both = ours.join(others, on="prompt_id").select("prompt_id", change=pl.col("value") - pl.col("value_right"))
    return both.drop_nulls().sort("change", "prompt_id")


def _first_scores(judged: pl.DataFrame, model: str) -> pl.DataFrame:
    """Return the judge_score rows of each prompt's first continuation."""
    rows = judged.filter(model=model, metric="judge_score").sort("prompt_id", "sample_index")
    return rows.unique("prompt_id", keep="first", maintain_order=True)


def read_examples(
    artifacts: Path, judged: pl.DataFrame, *, models: Sequence[str], prompt_ids: Sequence[str]
) -> tuple[Example, ...]:
    """Read these prompts, with every model's first continuation."""
    made = Artifacts(artifacts)
    asked = pl.DataFrame({"prompt_id": prompt_ids}, schema={"prompt_id": pl.String})
    known = asked.join(tables.read(tables.PROMPTS, made.prompts), on="prompt_id", maintain_order="left")
    prompts = fill_missing_texts(known, tables.read(tables.TRANSCRIPTS, made.prompt_transcripts))
    without_text = set(known.filter(pl.col("prompt_text").is_null())["prompt_id"])
    recordings = recordings_of(made.utterances, prompts)
    sounds = {one.prompt_id: encode_flac(one.prompt, one.sample_rate_hz) for one in recordings}
    drawn = {model: _first_draws(made.sample(model), judged, model, prompts) for model in models}
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


def _first_draws(sample: Sample, judged: pl.DataFrame, model: str, prompts: pl.DataFrame) -> dict[str, Continuation]:
    """Return the first continuation of every prompt, by prompt id."""
    heldout = judged.filter(model=model, metric="heldout_judge_score").select("continuation_id", heldout_score="value")
    rows = (
        _first_scores(judged, model)
        .join(prompts.select("prompt_id"), on="prompt_id", how="semi")
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
