"""Raw text metrics of continuations: words, self-repetition (auto-BLEU) and diversity."""

import re
from collections.abc import Sequence

from alignslm.config.feedback import AutoBleu
from alignslm.extras import needed

_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")


def words(text: str) -> list[str]:
    """Return the lower-cased words of a text without punctuation: the only definition of a word in this project.

    An ASR model that writes "The boat. The boat?" repeats itself as one does that writes "the boat the boat".
    Apostrophes and hyphens inside a word belong to it.
    """
    return _WORD.findall(text.lower())


def num_words(text: str | None) -> int:
    """Count words; an absent transcript has none."""
    return len(words(text or ""))


def ngrams(tokens: Sequence[str], n: int) -> list[tuple[str, ...]]:
    """Return the n-grams of a word sequence, repeats included, in order."""
    return [tuple(tokens[start : start + n]) for start in range(len(tokens) - n + 1)]


def auto_bleu(text: str | None, *, definition: AutoBleu, n: int = 2) -> float | None:
    """Return the ratio of a text's n-grams that occur elsewhere in it: 0 is without repetition, 1 is only repetition.

    Align-SLM's veto against babbling is auto-BLEU-2. Three definitions give three figures:

    - gslm: the equation of GSLM, which Align-SLM cites (Lakhotia et al., 2021): n-grams of words. None for fewer than n
      words, since a 0 would make the emptiest continuation the most diverse one.
    - gslm-script: what GSLM's published script computes: the mean over 1- to n-grams of the text as it is written, and
      an occurrence that overlaps is none. 0 below two words.
    - slamkit: n-grams of NLTK's tokens, with case and punctuation. 0 below n tokens. Needs the extra nltk.
    """
    match definition:
        case "gslm":
            return _repeated(words(text or ""), n, apart=1)
        case "gslm-script":
            tokens = (text or "").split()
            found = [_repeated(tokens, order, apart=order) or 0.0 for order in range(1, n + 1)]
            return sum(found) / n if len(tokens) > 1 else 0.0
        case "slamkit":
            with needed("nltk", by="auto_bleu: slamkit"):
                from nltk.tokenize import NLTKWordTokenizer
            return _repeated(NLTKWordTokenizer().tokenize(text or ""), n, apart=1) or 0.0


def _repeated(tokens: Sequence[str], n: int, *, apart: int) -> float | None:
    """Return the ratio of n-grams that occur again at least `apart` tokens away; None if there are no n-grams."""
    grams = ngrams(tokens, n)
    last = {gram: at for at, gram in enumerate(grams)}
    first = {gram: at for at, gram in reversed([*enumerate(grams)])}
    again = sum(last[gram] - at >= apart or at - first[gram] >= apart for at, gram in enumerate(grams))
    return again / len(grams) if grams else None
