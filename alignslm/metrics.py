"""Raw text metrics of continuations: words, self-repetition (auto-BLEU) and diversity."""

import re
from collections import Counter
from collections.abc import Sequence

_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")


def words(text: str) -> list[str]:
    """Return the lower-cased words of a text, punctuation left out: the one definition of a word in this project.

    A recogniser that writes "The boat. The boat?" repeats itself as one does that writes "the boat the boat".
    Apostrophes and hyphens inside a word belong to it.
    """
    return _WORD.findall(text.lower())


def num_words(text: str | None) -> int:
    """Count words; an absent transcript has none."""
    return len(words(text or ""))


def ngrams(tokens: Sequence[str], n: int) -> list[tuple[str, ...]]:
    """Return the n-grams of a word sequence, repeats included, in order."""
    return [tuple(tokens[start : start + n]) for start in range(len(tokens) - n + 1)]


def auto_bleu(text: str | None, *, n: int = 2) -> float | None:
    """Return the share of one continuation's n-grams that occur elsewhere in it: 0 is no repetition, 1 only repetition.

    Align-SLM's veto against babbling (auto-BLEU-2, after GSLM). Fewer than n words have no n-gram: None, not
    measured. A 0 there would make the emptiest continuation the most diverse one.
    """
    counts = Counter(ngrams(words(text or ""), n))
    total = counts.total()
    return sum(count for count in counts.values() if count > 1) / total if total else None
