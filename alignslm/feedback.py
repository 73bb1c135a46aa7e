"""The loop before training, row by row: draw, speak, transcribe, score (paper, section 3, steps 2 to 5).

Every function takes rows of one table and returns rows of the next, as many out as in, in the same order: nothing
is dropped. What could not be made or measured carries a status.
"""

from collections.abc import Sequence

import polars as pl

from alignslm import audio, metrics, tables
from alignslm.asr import Recogniser
from alignslm.config.feedback import Sampling
from alignslm.judge import Judge, Judgement, Story
from alignslm.lm.checkpoint import UnitLm
from alignslm.lm.sampling import sample
from alignslm.prompts import decode_at
from alignslm.provenance import content_id, row_seed
from alignslm.vocoder import Vocoder


def draw_continuations(
    prompts: pl.DataFrame, lm: UnitLm, sampling: Sampling, *, seed: int, purpose: str, batch_rows: int
) -> pl.DataFrame:
    """Continue every prompt `sampling.draws` times: rows of the continuations table.

    `purpose` (the round, or "evaluation") enters every draw's seed, so that rounds draw independently, while
    systems compared on the same prompts share their random numbers, which narrows their paired difference.
    """
    seeds = [
        [row_seed(seed, purpose, f"{prompt_id}/{draw}") for draw in range(sampling.draws)]
        for prompt_id in prompts["prompt_id"]
    ]
    drawn = sample(lm, prompts["units"].to_list(), seeds, sampling, batch_rows=batch_rows)
    rows = [
        {
            "continuation_id": continuation_id(prompt_id, purpose, lm.model_id, draw),
            "prompt_id": prompt_id,
            "draw": draw,
            "model_id": lm.model_id,
            "seed": seeds[number][draw],
            "units": item.units,
            "finish": item.finish,
            "logprob_nats": item.logprob_nats,
        }
        for number, prompt_id in enumerate(prompts["prompt_id"])
        for draw, item in enumerate(drawn[number])
    ]
    return pl.DataFrame(rows, schema=dict(tables.CONTINUATIONS.schema))


def continuation_id(prompt_id: str, purpose: str, model_id: str, draw: int) -> str:
    """Return the id of one draw. It starts with the prompt's id, so a prompt's draws lie together in every table."""
    return f"{prompt_id}-{content_id(purpose, model_id)[:6]}-{draw}"


def true_continuations(prompts: pl.DataFrame) -> pl.DataFrame:
    """Return the prompts' own continuations as rows of the continuations table: the ceiling of judged scores."""
    return prompts.select(
        pl.format("{}-true-0", "prompt_id").alias("continuation_id"),
        "prompt_id",
        pl.lit(0, pl.Int32).alias("draw"),
        pl.lit("true").alias("model_id"),
        pl.lit(0, pl.Int64).alias("seed"),
        pl.col("continuation_units").alias("units"),
        pl.lit("eos").alias("finish"),
        pl.lit(0.0).alias("logprob_nats"),
    )


def speak(continuations: pl.DataFrame, vocoder: Vocoder) -> pl.DataFrame:
    """Speak every continuation: rows of the speech table. A continuation without units is status `empty`."""
    waveforms = vocoder.synthesize(continuations["units"].to_list())
    rows = [
        {
            "continuation_id": name,
            "audio": {"bytes": audio.encode_flac(waveform, vocoder.sample_rate_hz), "path": f"{name}.flac"},
            "num_samples": len(waveform),
            "sample_rate_hz": vocoder.sample_rate_hz,
            "status": "ok" if len(waveform) else "empty",
        }
        for name, waveform in zip(continuations["continuation_id"], waveforms, strict=True)
    ]
    return pl.DataFrame(rows, schema=dict(tables.SPEECH.schema))


def transcribe(speech: pl.DataFrame, recogniser: Recogniser) -> pl.DataFrame:
    """Transcribe what was spoken, as stored (after FLAC): rows of the transcripts table."""
    heard = recogniser.transcribe([decode_at(record, recogniser.sample_rate_hz) for record in speech["audio"]])
    return speech.select(pl.col("continuation_id").alias("source_id")).with_columns(
        pl.Series("text", [item.text for item in heard], pl.String),
        pl.Series("status", [item.status for item in heard], pl.String),
        pl.Series("confidence", [item.confidence for item in heard], pl.Float64),
    )


def judge_transcripts(stories: pl.DataFrame, judge: Judge) -> list[Judgement]:
    """Judge rows that hold prompt_text, text (the transcript, or null) and status, in their order.

    What the recogniser could not hear is not shown to the judge: an `empty` transcript is judged empty, a `failed`
    one stays unmeasured.
    """
    heard = [number for number, status in enumerate(stories["status"]) if status == "ok"]
    asked = [Story(prompt, text) for prompt, text in stories[heard].select("prompt_text", "text").iter_rows()]
    answers = dict(zip(heard, judge.judge(asked) if asked else [], strict=True))
    return [
        answers.get(number, Judgement(None, None, "empty" if status == "empty" else "failed", None))
        for number, status in enumerate(stories["status"])
    ]


def score(stories: pl.DataFrame, judge: Judge) -> pl.DataFrame:
    """Score transcripts: the columns of the scores table, with the judge's raw `reply` beside them.

    `stories` holds continuation_id, prompt_id, draw, prompt_text, text, status.
    """
    judgements = judge_transcripts(stories, judge)
    texts: Sequence[str | None] = stories["text"].to_list()
    return stories.select("continuation_id", "prompt_id", "draw").with_columns(
        pl.Series("llm_score", [item.score for item in judgements], pl.Float64),
        pl.Series("ppl", [item.ppl for item in judgements], pl.Float64),
        pl.Series("auto_bleu", [metrics.auto_bleu(text) if text else None for text in texts], pl.Float64),
        pl.Series("num_words", [metrics.num_words(text) if text else 0 for text in texts], pl.Int32),
        pl.Series("status", [item.status for item in judgements], pl.String),
        pl.Series("reply", [item.reply for item in judgements], pl.String),
    )


def stories_of(continuations: pl.DataFrame, transcripts: pl.DataFrame, prompts: pl.DataFrame) -> pl.DataFrame:
    """Join draw, transcript and prompt text: one row a continuation, each with its prompt and what was heard."""
    heard = transcripts.select(pl.col("source_id").alias("continuation_id"), "text", "status")
    tables.require_keys(continuations, "continuation_id", heard, "continuation_id", names="continuations to transcripts")
    tables.require_keys(continuations, "prompt_id", prompts, "prompt_id", names="continuations to prompts")
    silent = prompts.filter(pl.col("prompt_text").is_null())
    if len(silent):
        raise ValueError(
            f"{len(silent)} prompts have no text, first {silent['prompt_id'][0]!r}: the judge reads prompt and "
            "continuation. Use a corpus with transcripts."
        )
    return (
        continuations.select("continuation_id", "prompt_id", "draw")
        .join(heard, on="continuation_id", validate="1:1")
        .join(prompts.select("prompt_id", "prompt_text"), on="prompt_id", validate="m:1")
        .sort("continuation_id")
    )
