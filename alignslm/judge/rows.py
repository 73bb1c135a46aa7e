"""Transcripts in, scores out, row by row (paper, section 3, step 5): nothing is dropped, everything has a status."""

from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import polars as pl

from alignslm import metrics, tables
from alignslm.config.feedback import AutoBleu
from alignslm.engine import Pool
from alignslm.engine.work import LazyModel, ModelTask
from alignslm.judge import Judge, JudgeInput, JudgeOutput
from alignslm.shards import map_shards

SCORED = ("ok", "empty")
_CURES = {
    "failed": "Run `dvc repro` again if the server was ill; else check rubric and answer_prefix",
    "truncated": "Raise max_tokens, or let the model reason less",
    "too_long": "Use a shorter rubric, a lower sampling.max_new_units, or a model that reads more",
}
_JUDGEMENTS = {"score": pl.Float64, "ppl": pl.Float64, "status": pl.String, "reply": pl.String}


class UnreadablePromptError(ValueError):
    """A prompt has no text for the judge."""


def judge_transcripts(stories: pl.DataFrame, judge: Judge) -> list[JudgeOutput]:
    """Judge rows with prompt_text, text (the transcript, or null) and status, in their order.

    Transcripts without text are not shown to the judge: an `empty` one is judged empty, a `failed` one stays
    unmeasured.
    """
    heard = [number for number, status in enumerate(stories["status"]) if status == "ok"]
    asked = [JudgeInput(prompt, text) for prompt, text in stories[heard].select("prompt_text", "text").iter_rows()]
    answers = dict(zip(heard, judge.judge(asked) if asked else [], strict=True))
    return [
        answers.get(number, JudgeOutput(None, None, "empty" if status == "empty" else "failed", None))
        for number, status in enumerate(stories["status"])
    ]


class UnscoredError(ValueError):
    """Too many texts have no score: what would follow rests on the few that have one."""


class CachedJudge:
    """A judge with outputs saved in `folder` shard by shard, so that a resumed run asks for no story twice."""

    def __init__(
        self,
        judge: LazyModel[Judge],
        *,
        max_unscored: float,
        folder: Path,
        shard_size: int,
        label: str,
        pool: Pool | None,
    ) -> None:
        self.inner, self.max_unscored = judge, max_unscored
        self.folder, self.shard_size, self.label, self.pool = folder, shard_size, label, pool

    def judge(self, stories: Sequence[JudgeInput]) -> list[JudgeOutput]:
        """Return one judgement per story; a second call must be about the same stories.

        Raises UnscoredError if more than `max_unscored` of them have no score; judgements are then kept but for the
        shards with such stories, which are asked about again.
        """
        asked = pl.DataFrame(stories, schema=JudgeInput._fields, orient="row")
        shards = map_shards(
            asked,
            ModelTask(self.inner, _judge_rows),
            folder=self.folder,
            shard_size=self.shard_size,
            label=self.label,
            pool=self.pool,
        )
        judged = [JudgeOutput(*row) for shard in shards for row in shard.iter_rows()]
        unscored = [one for one in judged if one.status not in SCORED]
        if len(unscored) > self.max_unscored * len(judged):
            for part in self.folder.rglob("part-*.parquet"):
                if not pl.read_parquet(part, columns=["status"])["status"].is_in(SCORED).all():
                    part.unlink()
            raise UnscoredError(self._explain(unscored, len(judged)))
        return judged

    def _explain(self, unscored: Sequence[JudgeOutput], judged: int) -> str:
        counts = Counter(one.status for one in unscored)
        listed = ", ".join(f"{status}: {count}" for status, count in counts.most_common())
        most = counts.most_common(1)[0][0]
        reply = next(one.reply for one in unscored if one.status == most) or ""
        return (
            f"{self.label}: {len(unscored)} of {judged} continuations have no score ({listed}), more than max_unscored "
            f"{self.max_unscored:g} in the judge's file; one reply is {reply[:200]!r}. What is scored is kept. "
            f"{_CURES[most]}."
        )


def _judge_rows(rows: pl.DataFrame, judge: Judge) -> pl.DataFrame:
    judged = judge.judge([JudgeInput(*row) for row in rows.iter_rows()])
    return pl.DataFrame(judged, schema=_JUDGEMENTS, orient="row")


def score(stories: pl.DataFrame, judge: Judge, *, auto_bleu: AutoBleu) -> pl.DataFrame:
    """Score transcripts: the columns of the scores table, with the judge's raw `reply`.

    `stories` has continuation_id, prompt_id, sample_index, prompt_text, text, status; `auto_bleu` is the definition
    in use.
    """
    judgements = judge_transcripts(stories, judge)
    measured = partial(metrics.auto_bleu, definition=auto_bleu)
    texts: Sequence[str | None] = stories["text"].to_list()
    return stories.select("continuation_id", "prompt_id", "sample_index").with_columns(
        pl.Series("judge_score", [item.score for item in judgements], pl.Float64),
        pl.Series("ppl", [item.ppl for item in judgements], pl.Float64),
        pl.Series("auto_bleu", [measured(text) if text else None for text in texts], pl.Float64),
        pl.Series("num_words", [metrics.num_words(text) if text else 0 for text in texts], pl.Int32),
        pl.Series("status", [item.status for item in judgements], pl.String),
        pl.Series("reply", [item.reply for item in judgements], pl.String),
    )


def join_judge_inputs(continuations: pl.DataFrame, transcripts: pl.DataFrame, prompts: pl.DataFrame) -> pl.DataFrame:
    """Join draw, transcript and prompt text: one row per continuation.

    A continuation of a prompt without text cannot be judged: its status is `failed`. Continuations of one prompt are
    contiguous, so that a judge reads the prompt once.
    """
    heard = transcripts.select(pl.col("source_id").alias("continuation_id"), "text", "status")
    tables.require_keys(
        continuations, "continuation_id", heard, "continuation_id", names="continuations to transcripts"
    )
    tables.require_keys(continuations, "prompt_id", prompts, "prompt_id", names="continuations to prompts")
    if len(prompts) and prompts["prompt_text"].null_count() == len(prompts):
        raise UnreadablePromptError(
            f"none of {len(prompts)} prompts has a text, first {prompts['prompt_id'][0]!r}: the judge reads prompt and "
            "continuation. Transcribe the prompts (`dvc repro prompt_transcripts`), or use a corpus with transcripts."
        )
    unread = pl.col("prompt_text").is_null() & (pl.col("status") == "ok")
    return (
        continuations.select("continuation_id", "prompt_id", "sample_index")
        .join(heard, on="continuation_id", validate="1:1")
        .join(prompts.select("prompt_id", "prompt_text"), on="prompt_id", validate="m:1")
        .with_columns(status=pl.when(unread).then(pl.lit("failed")).otherwise("status"))
        .sort("prompt_id", "sample_index", "continuation_id")
    )
