"""A round's pairs as self-contained rows: audio, transcripts and scores of both sides."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import polars as pl
from datasets import Features

from alignslm import tables
from alignslm.artifacts import Artifacts
from alignslm.audio import encode_flac
from alignslm.config.publishing import DatasetRepository
from alignslm.prompts import read_prompts
from alignslm.publishing.parquet import SHARD_ROWS, audio, features
from alignslm.recordings import recordings_of
from alignslm.storage import replacing_folder
from alignslm.utterances import speech_cells

SPLITS = {"train": "train", "valid": "validation"}  # our split -> the Hub's
SCORES = ("judge_score", "ppl", "auto_bleu", "num_words")
SIDES = ("chosen", "rejected")


class Sources(NamedTuple):
    """The tables of one round, without audio: it is read shard by shard from the folders `speech` and `recorded`.

    `continuations` is empty if they are not published.
    """

    pairs: pl.DataFrame
    prompts: pl.DataFrame
    continuations: pl.DataFrame
    scored: pl.DataFrame  # continuation_id, text and SCORES
    skipped_prompts: pl.DataFrame
    speech: Path
    recorded: Path | None  # FLAC by prompt_id; None if original speech is not published
    sample_rate_hz: int
    recorded_rate_hz: int


def read_sources(name: str, config: DatasetRepository, artifacts: Artifacts, work: Path) -> Sources:
    """Read the tables of judged preferences, and cut their prompts' recordings into `work` if published."""
    prompts = read_prompts(*artifacts.prompt_tables)
    texts = tables.read(tables.TRANSCRIPTS, artifacts.table("transcripts", name))
    scores = tables.read(tables.SCORES, artifacts.table("scores", name))
    pairs = tables.read(tables.PAIRS, artifacts.table("pairs", name))
    speech = artifacts.speech(name)
    rates = tables.read(tables.SPEECH, speech, ["sample_rate_hz"])["sample_rate_hz"]
    heard = prompts.filter(pl.col("prompt_id").is_in(pairs["prompt_id"].unique().to_list()))
    drawn = pl.DataFrame(schema=dict(tables.CONTINUATIONS.schema))  # the largest table, and optional
    if config.continuations:
        drawn = tables.read(tables.CONTINUATIONS, artifacts.table("continuations", name))
    rate_hz = 0
    if config.prompt_audio:
        rate_hz = _cut_recordings(artifacts.utterances, heard, work / "recorded")
    return Sources(
        pairs=pairs,
        prompts=prompts,
        continuations=drawn,
        scored=texts.select(pl.col("source_id").alias("continuation_id"), "text").join(
            scores.select("continuation_id", *SCORES), on="continuation_id", how="full", coalesce=True
        ),
        skipped_prompts=tables.read(tables.SKIPPED_PROMPTS, artifacts.table("skipped_prompts", name)),
        speech=speech,
        recorded=work / "recorded" if config.prompt_audio else None,
        sample_rate_hz=int(rates[0]),
        recorded_rate_hz=rate_hz,
    )


def _cut_recordings(utterances: Path, prompts: pl.DataFrame, folder: Path) -> int:
    """Write every prompt's recording to `folder`; return their sample rate, 0 without prompts."""
    rate_hz = 0
    with replacing_folder(folder) as partial:
        for recording in recordings_of(utterances, prompts):
            rate_hz = recording.sample_rate_hz
            (partial / f"{recording.prompt_id}.flac").write_bytes(encode_flac(recording.prompt, rate_hz))
    return rate_hz


def pair_features(sources: Sources) -> Features:
    """Return the columns of a pair in the order of the viewer: audio and texts first."""
    spoken = audio(sources.sample_rate_hz)
    heard = {"prompt": audio(sources.recorded_rate_hz)} if sources.recorded else {}
    numbers = {"judge_score": "float64", "ppl": "float64", "auto_bleu": "float64", "num_words": "int32"}
    sides = {
        f"{side}_{column}": kind
        for side in SIDES
        for column, kind in {
            **numbers,
            "utility": "float64",
            "finish_reason": "string",
            "units": "units",
            "id": "string",
        }.items()
    }
    return features({
        **heard, "chosen": spoken, "rejected": spoken,
        "prompt_text": "string", "chosen_text": "string", "rejected_text": "string", "margin": "float64",
        **sides,
        "prompt_units": "units", "prompt_id": "string", "utterance_id": "string", "pair_id": "string",
    })  # fmt: skip


def pair_rows(sources: Sources, split: str) -> Iterator[pl.DataFrame]:
    """Yield the pairs of a split with the columns of `pair_features`, SHARD_ROWS at a time."""
    texts = sources.prompts.select("prompt_id", "utterance_id", "prompt_text")
    rows = sources.pairs.filter(pl.col("split") == split).join(
        texts, on="prompt_id", how="left", validate="m:1", maintain_order="left"
    )
    for shard in rows.iter_slices(SHARD_ROWS):
        frame = shard
        names = pl.concat([shard["chosen_id"], shard["rejected_id"]]).unique().to_list()
        spoken = audio_of(sources.speech, names)
        for side in SIDES:
            frame = frame.join(_side(sources.scored, spoken, side), on=f"{side}_id", how="left", maintain_order="left")
        if sources.recorded:
            frame = frame.with_columns(_recorded(sources.recorded, frame["prompt_id"]))
        yield frame


def _side(scored: pl.DataFrame, spoken: pl.DataFrame, side: str) -> pl.DataFrame:
    rows = spoken.join(scored, on="continuation_id", how="left")
    renamed = {"continuation_id": f"{side}_id", "audio": side, "text": f"{side}_text"}
    return rows.rename({**renamed, **{score: f"{side}_{score}" for score in SCORES}})


def audio_of(speech: Path, names: Sequence[str]) -> pl.DataFrame:
    """Return continuation_id and audio {bytes, path}, null if there is none."""
    content = pl.col("audio").struct.field("bytes")
    return speech_cells(speech, names).with_columns(audio=_sound(content, pl.col("continuation_id")))


def _recorded(folder: Path, names: pl.Series) -> pl.Expr:
    content = pl.Series("prompt", [(folder / f"{name}.flac").read_bytes() for name in names], pl.Binary)
    return _sound(pl.lit(content), pl.lit(names)).alias("prompt")


def _sound(content: pl.Expr, name: pl.Expr) -> pl.Expr:
    sound = pl.struct(content.alias("bytes"), pl.format("{}.flac", name).alias("path"))
    return pl.when(content.bin.size() > 0).then(sound)


def continuation_features(sources: Sources) -> Features:
    """Return the columns of a judged continuation."""
    return features({
        "audio": audio(sources.sample_rate_hz), "prompt_text": "string", "text": "string",
        "judge_score": "float64", "ppl": "float64", "auto_bleu": "float64", "num_words": "int32",
        "finish_reason": "string", "logprob": "float64", "units": "units",
        "sample_index": "int32", "prompt_id": "string", "continuation_id": "string",
    })  # fmt: skip


def continuation_rows(sources: Sources, split: str) -> Iterator[pl.DataFrame]:
    """Yield every judged continuation of a split, SHARD_ROWS at a time."""
    rows = continuations_in(sources, split).join(
        sources.scored, on="continuation_id", how="left", validate="1:1", maintain_order="left"
    )
    for shard in rows.iter_slices(SHARD_ROWS):
        spoken = audio_of(sources.speech, shard["continuation_id"].to_list())
        yield shard.join(spoken, on="continuation_id", how="left", maintain_order="left")


def continuations_in(sources: Sources, split: str) -> pl.DataFrame:
    """Return the continuations of a split's prompts with the prompts' texts."""
    prompts = sources.prompts.filter(pl.col("split") == split).select("prompt_id", "prompt_text")
    return sources.continuations.join(prompts, on="prompt_id", how="inner", maintain_order="left")
