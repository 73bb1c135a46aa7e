"""Figures of all texts of a system together, with an error by prompt: distinct n-grams, and word error rate.

Neither is a mean of values of prompts. Each is turned into one value a prompt, so that it is one: their mean is the
figure, their standard error the delete-one-prompt jackknife's, and the mean of the differences of two systems on the
same prompts is the difference of their figures.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from statistics import fmean
from typing import NamedTuple

import numpy as np
import polars as pl
from rapidfuzz.distance import Levenshtein

from alignslm.metrics import ngrams, words
from alignslm.statistics import Floats

WORD_ERRORS = {"system": pl.String, "prompt_id": pl.String, "errors": pl.Int64, "words": pl.Int64}
Values = dict[str, float]  # by prompt


def jackknife_values(whole: float, without: Floats) -> Floats:
    """Return a value a cluster (clusters,) from a figure and what it is without each cluster in turn (clusters,).

    Their mean is `whole`, and their standard error sqrt((C - 1) / C * sum (without - mean)^2), the jackknife's (Efron
    and Stein, 1981).
    """
    return whole + (len(without) - 1) * (without.mean() - without)


def _values(figure: Callable[[str | None], float], prompts: Iterable[str]) -> Values:
    """Give every prompt its value; `figure` is of all prompts, or of all but one."""
    order, whole = sorted(prompts), figure(None)
    if len(order) < 2:
        return dict.fromkeys(order, whole)
    return dict(
        zip(order, jackknife_values(whole, np.array([figure(prompt) for prompt in order])).tolist(), strict=True)
    )


class _Tally(NamedTuple):
    """Different n-grams and all n-grams of one draw; by prompt, those that no other prompt has, and all it has."""

    different: int
    total: int
    by_prompt: Mapping[str, tuple[int, int]]

    def share(self, without: str | None) -> float | None:
        """Return different n-grams over all, one prompt left out; None where nothing is left."""
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
    """Return the values of distinct-n of the prompts that have an n-gram; `draws` hold a text by prompt each.

    distinct-n is different n-grams over all n-grams of one draw of every prompt (Li et al., 2016), averaged over
    draws: so a system of two draws can be compared with one of a single draw. It falls with the length of texts.
    """
    tallies = [_tally(texts, n) for texts in draws]

    def share(left_out: str | None) -> float:
        """Return distinct-n without one prompt, the mean over draws."""
        return fmean(found for tally in tallies if (found := tally.share(left_out)) is not None)

    measured = {prompt for tally in tallies for prompt in tally.by_prompt}
    return _values(share, measured) if measured else {}


def word_errors(references: pl.DataFrame, heard: pl.DataFrame, *, system: str) -> pl.DataFrame:
    """Count word errors of one system: a row of WORD_ERRORS for each reference (prompt_id, source_id, text).

    `heard` are TRANSCRIPTS rows by source_id. Words are those of `metrics.words`: case and punctuation are no errors.
    Where nothing was heard all words are missing; `errors` is null where the recogniser gave up.
    """
    transcripts = heard.select("source_id", "status", found="text")
    joined = references.join(transcripts, on="source_id", validate="1:1")
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
    """Return the values of the word error rate, all errors over all words, of prompts with a measured reference."""
    measured = rows.filter(pl.col("errors").is_not_null() & (pl.col("words") > 0))
    counts = {prompt: (errors, size) for prompt, errors, size in measured.select("prompt_id", "errors", "words").rows()}
    errors, total = (sum(pair[place] for pair in counts.values()) for place in (0, 1))

    def rate(left_out: str | None) -> float:
        """Return the error rate without one prompt."""
        less_errors, less = counts.get(left_out or "", (0, 0))
        return (errors - less_errors) / (total - less)

    return _values(rate, counts) if counts else {}
