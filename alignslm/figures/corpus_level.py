"""Metrics of all texts of a system together, with an error over prompts: distinct n-grams and word error rate.

Neither is a mean over prompts. Each is turned into one value per prompt whose mean is the metric and whose standard
error is that of the delete-one-prompt jackknife; the mean difference of two systems on the same prompts is the
difference of their metrics.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from statistics import fmean
from typing import NamedTuple

import numpy as np
import polars as pl
from rapidfuzz.distance import Levenshtein

from alignslm.metrics import ngrams, words
from alignslm.statistics import jackknife_values

WORD_ERRORS = {"system": pl.String, "prompt_id": pl.String, "errors": pl.Int64, "words": pl.Int64}
Values = dict[str, float]  # by prompt


def _values(figure: Callable[[str | None], float], prompts: Iterable[str]) -> Values:
    """Return the value of every prompt; `figure` computes the metric over all prompts, or all but one."""
    order, whole = sorted(prompts), figure(None)
    if len(order) < 2:
        return dict.fromkeys(order, whole)
    return dict(
        zip(order, jackknife_values(whole, np.array([figure(prompt) for prompt in order])).tolist(), strict=True)
    )


class _Tally(NamedTuple):
    """Unique n-grams and all n-grams of one draw; by prompt, those that no other prompt has, and all it has."""

    different: int
    total: int
    by_prompt: Mapping[str, tuple[int, int]]

    def share(self, without: str | None) -> float | None:
        """Return the ratio of unique n-grams without one prompt; None if no n-gram is left."""
        own, size = self.by_prompt.get(without or "", (0, 0))
        return None if size == self.total else (self.different - own) / (self.total - size)


def _tally(texts: Mapping[str, str | None], n: int) -> _Tally:
    grams = {prompt: Counter(ngrams(words(text or ""), n)) for prompt, text in texts.items()}
    holders = Counter(gram for counts in grams.values() for gram in counts)
    by_prompt = {
        prompt: (sum(holders[gram] == 1 for gram in counts), counts.total())
        for prompt, counts in grams.items()
        if counts
    }
    return _Tally(len(holders), sum(size for _, size in by_prompt.values()), by_prompt)


def distinct_values(draws: Iterable[Mapping[str, str | None]], *, n: int) -> Values:
    """Return the values of distinct-n of the prompts that have an n-gram; `draws` are texts by prompt.

    distinct-n is the ratio of unique n-grams among all n-grams of one continuation per prompt (Li et al., 2016),
    averaged over draws, so systems with different numbers of continuations are comparable. It falls with text length.
    """
    tallies = [_tally(texts, n) for texts in draws]

    def share(left_out: str | None) -> float:
        """Return distinct-n without one prompt, the mean over draws."""
        return fmean(found for tally in tallies if (found := tally.share(left_out)) is not None)

    measured = {prompt for tally in tallies for prompt in tally.by_prompt}
    return _values(share, measured) if measured else {}


def word_errors(references: pl.DataFrame, transcripts: pl.DataFrame, *, system: str) -> pl.DataFrame:
    """Count word errors of one system: a row of WORD_ERRORS for each reference (prompt_id, source_id, text).

    `transcripts` are TRANSCRIPTS rows by source_id. Words are those of `metrics.words`: case and punctuation do not
    count. All words are missing in an empty transcript; `errors` is null if the ASR model failed.
    """
    found = transcripts.select("source_id", "status", found="text")
    joined = references.join(found, on="source_id", validate="1:1")
    rows = [
        (
            system,
            prompt,
            None if status == "failed" else Levenshtein.distance(words(found or ""), words(text)),
            len(words(text)),
        )
        for prompt, text, found, status in joined.select("prompt_id", "text", "found", "status").iter_rows()
    ]
    return pl.DataFrame(rows, schema=WORD_ERRORS, orient="row")


def word_error_values(rows: pl.DataFrame) -> Values:
    """Return the values of the word error rate (all errors / all words) of prompts with a measured reference."""
    measured = rows.filter(pl.col("errors").is_not_null() & (pl.col("words") > 0))
    counts = {prompt: (errors, size) for prompt, errors, size in measured.select("prompt_id", "errors", "words").rows()}
    errors, total = (sum(pair[place] for pair in counts.values()) for place in (0, 1))

    def rate(left_out: str | None) -> float:
        """Return the error rate without one prompt."""
        less_errors, less = counts.get(left_out or "", (0, 0))
        return (errors - less_errors) / (total - less)

    return _values(rate, counts) if counts else {}
