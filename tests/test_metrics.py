"""Text metrics against hand-derived values and a quadratic oracle."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignslm.metrics import auto_bleu, num_words, words

TEXTS = st.lists(st.sampled_from("abcd"), max_size=12).map(" ".join)


def slow_auto_bleu(text: str, n: int) -> float | None:
    """Share of positions whose n-gram stands at another position too."""
    tokens = text.split()
    grams = [tokens[i : i + n] for i in range(len(tokens) - n + 1)]
    if not grams:
        return None
    again = [any(i != j and gram == other for j, other in enumerate(grams)) for i, gram in enumerate(grams)]
    return sum(again) / len(again)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a b a b", 2 / 3),  # ab, ba, ab
        ("no no no", 1.0),
        ("the cat sat", 0.0),
        ("word", None),
        ("", None),
        (None, None),
        ("A b  a\nB", 2 / 3),  # case and kind of white space do not matter
    ],
)
def test_auto_bleu_by_hand(text, expected):
    assert auto_bleu(text) == expected


@given(TEXTS, st.integers(1, 4))
def test_auto_bleu_equals_the_quadratic_definition(text, n):
    assert auto_bleu(text, n=n) == slow_auto_bleu(text, n)


def test_words_know_neither_case_nor_punctuation():
    assert words("The boat's red. “Well-made”, isn't it? — 3 o’clock...") == [
        "the", "boat's", "red", "well-made", "isn't", "it", "3", "o’clock",
    ]  # fmt: skip
    assert words("... !?") == []
    assert auto_bleu("The boat. The boat!") == auto_bleu("the boat the boat") == 2 / 3


def test_num_words():
    assert [num_words(text) for text in ("he was  here", " ", None)] == [3, 0, 0]
