"""From units to prompts and their true continuations (paper, section 3: about three seconds of speech)."""

import bisect
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from alignslm import tables
from alignslm.config.models import Prompts
from alignslm.provenance import content_id

SPLITS = ("train", "valid", "dev", "test")


class PromptError(ValueError):
    """A split cannot supply the prompts asked of it."""


class CutPoint(NamedTuple):
    """Where an utterance is cut, and the texts on both sides if known."""

    end_s: float
    prompt_text: str | None
    continuation_text: str | None


def split_units(
    units: list[int], durations: list[int], *, end_s: float, frame_rate_hz: float
) -> tuple[list[int], list[int]]:
    """Cut deduplicated units at a time: the prompt's units, then the rest.

    The cut falls on a run boundary, at or before `end_s`: a run cut in two would repeat its unit across the cut,
    and the language model has never seen a repeat.
    """
    ends = np.cumsum(durations)
    keep = int(np.searchsorted(ends, end_s * frame_rate_hz + 1e-6, side="right"))
    return units[:keep], units[keep:]


def cut_point(row: Mapping[str, Any], config: Prompts) -> CutPoint | None:
    """Return where an utterance is cut, or None if its words leave no prompt or no continuation.

    `sentence` cuts after the first sentence, `word` after the last word that ends by max_duration_s, never later, and
    `time` at max_duration_s, even within a word. The texts that such a cut leaves are not known: both are null.
    Raises PromptError if the utterance has no sentence end.
    """
    match config.cut_at:
        case "time":
            return CutPoint(config.max_duration_s, None, None)
        case "word":
            return _word_end(row["text"], row["word_ends_s"], config.max_duration_s)
        case "sentence":
            return _sentence_end(row, config.max_duration_s)


def _sentence_end(row: Mapping[str, Any], max_duration_s: float) -> CutPoint:
    if row["prompt_end_s"] is None:
        raise PromptError(
            f"utterance {row['utterance_id']!r} has no prompt_end_s, so it cannot be cut by 'sentence'. "
            "Set prompts.cut_at: time in params.yaml, or give the corpus alignments and set prompts.cut_at: word."
        )
    if row["prompt_end_s"] > max_duration_s:
        return CutPoint(max_duration_s, None, None)
    return CutPoint(row["prompt_end_s"], row["prompt_text"], row["continuation_text"])


def _word_end(text: str | None, word_ends_s: list[float] | None, max_duration_s: float) -> CutPoint | None:
    if text is None or word_ends_s is None:
        return None
    words = text.split()
    keep = bisect.bisect_right(word_ends_s, max_duration_s)
    if not 0 < keep < len(words):
        return None
    return CutPoint(word_ends_s[keep - 1], " ".join(words[:keep]), " ".join(words[keep:]))


def make_prompts(
    encoded: pl.DataFrame, utterances: pl.DataFrame, config: Prompts, *, frame_rate_hz: float
) -> pl.DataFrame:
    """Cut every split's first utterances (by hash) into prompt and true continuation: rows of the prompts table.

    Raises PromptError if a split has too few utterances with a prompt of `min_units` followed by speech.
    """
    joined = encoded.join(utterances, on="utterance_id", validate="1:1")
    made = []
    for split in SPLITS:
        rows, wanted = joined.filter(pl.col("split") == split), getattr(config, split)
        if wanted:
            _require_word_times(rows, split, config)
        usable: list[dict[str, object]] = []
        for prompt in _usable(rows, config, frame_rate_hz) if wanted else ():
            usable.append(prompt)
            if len(usable) == wanted:
                break
        if len(usable) < wanted:
            raise PromptError(
                f"split {split!r} gives {len(usable)} prompts of at least {config.min_units} units from {len(rows)} "
                f"utterances{_without_times(rows, config)}, {wanted} were asked for. Lower prompts.{split} or "
                "prompts.min_units, or enlarge the corpus."
            )
        made += usable
    return tables.conform(pl.DataFrame(made, schema=dict(tables.PROMPTS.schema)), tables.PROMPTS)


def _usable(rows: pl.DataFrame, config: Prompts, frame_rate_hz: float) -> Iterator[dict[str, object]]:
    """Yield the prompts of a split in the order of their utterances' hashes, so that more prompts keep the fewer."""
    order = pl.Series("order", [content_id("prompt", name) for name in rows["utterance_id"]], pl.String)
    for row in rows.with_columns(order).sort("order").iter_rows(named=True):
        end = cut_point(row, config)
        if end is None:
            continue
        head, tail = split_units(row["units"], row["durations"], end_s=end.end_s, frame_rate_hz=frame_rate_hz)
        if len(head) >= config.min_units and tail:
            yield _prompt_row(row, head, tail, end)


def _require_word_times(rows: pl.DataFrame, split: str, config: Prompts) -> None:
    if config.cut_at == "word" and len(rows) and rows["word_ends_s"].null_count() == len(rows):
        raise PromptError(
            f"no utterance of split {split!r} has word times, so none can be cut by 'word'. Name alignments of the "
            "corpus in its file in experiments/corpus/ (parts.*.alignments), or prompts.cut_at: time in params.yaml."
        )


def _without_times(rows: pl.DataFrame, config: Prompts) -> str:
    missing = rows["word_ends_s"].null_count() if config.cut_at == "word" else 0
    return f" ({missing} without word times)" if missing else ""


def _prompt_row(row: Mapping[str, object], head: list[int], tail: list[int], end: CutPoint) -> dict[str, object]:
    return {
        "prompt_id": content_id("prompt", row["utterance_id"], end.end_s),
        "utterance_id": row["utterance_id"],
        "split": row["split"],
        "end_s": end.end_s,
        "num_units": len(head),
        "units": head,
        "continuation_units": tail,
        "prompt_text": end.prompt_text,
        "continuation_text": end.continuation_text,
    }


def read_prompts(prompts: Path, heard: Path) -> pl.DataFrame:
    """Read the prompts table, with missing texts from the transcripts table `heard`; see `fill_missing_texts`."""
    return fill_missing_texts(tables.read(tables.PROMPTS, prompts), tables.read(tables.TRANSCRIPTS, heard))


def fill_missing_texts(prompts: pl.DataFrame, heard: pl.DataFrame) -> pl.DataFrame:
    """Fill the missing texts of prompts with their transcripts (paper, step 4).

    `heard` is a transcripts table whose source_id is the prompt_id. A prompt with an empty transcript keeps its null.
    Raises PromptError if a prompt without text was never transcribed.
    """
    silent = prompts.filter(pl.col("prompt_text").is_null())
    missing = silent.join(heard, left_on="prompt_id", right_on="source_id", how="anti")["prompt_id"]
    if len(missing):
        raise PromptError(
            f"{len(missing)} prompts have no text and were not transcribed, first {missing[0]!r}. "
            "Run `dvc repro prompt_transcripts`."
        )
    texts = heard.select(pl.col("source_id").alias("prompt_id"), pl.col("text").alias("heard"))
    filled = prompts.join(texts, on="prompt_id", how="left", maintain_order="left")
    return filled.with_columns(prompt_text=pl.coalesce("prompt_text", "heard")).drop("heard")


def ground_truth_continuations(prompts: pl.DataFrame) -> pl.DataFrame:
    """Return the prompts' own continuations as rows of the continuations table: the ceiling of judged scores."""
    return prompts.select(
        pl.format("{}-true-0", "prompt_id").alias("continuation_id"),
        "prompt_id",
        pl.lit(0, pl.Int32).alias("sample_index"),
        pl.lit("true").alias("model_id"),
        pl.lit(0, pl.Int64).alias("seed"),
        pl.col("continuation_units").alias("units"),
        pl.lit("eos").alias("finish_reason"),
        pl.lit(0.0).alias("logprob"),
    )


def with_prompt_units(drawn: pl.DataFrame, prompts: pl.DataFrame) -> pl.DataFrame:
    """Return continuations with the units of their prompts as `prompt_units`, in their order."""
    return drawn.join(prompts.select("prompt_id", prompt_units="units"), on="prompt_id", maintain_order="left")
