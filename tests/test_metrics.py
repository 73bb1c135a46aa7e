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
    assert auto_bleu(text, definition="gslm") == expected


@given(TEXTS, st.integers(1, 4))
def test_auto_bleu_equals_the_quadratic_definition(text, n):
    assert auto_bleu(text, definition="gslm", n=n) == slow_auto_bleu(text, n)


def slow_script(tokens: list[str], n: int) -> float:
    """The published script's way: each n-gram is cut out, and looked for in what is left on either side."""
    if len(tokens) <= 1:
        return 0.0
    ratios = []
    for order in range(1, n + 1):
        starts = range(len(tokens) - order + 1)
        matches = 0
        for at in starts:
            sides = tokens[:at], tokens[at + order :]
            rest = [side[i : i + order] for side in sides for i in range(len(side) - order + 1)]
            matches += tokens[at : at + order] in rest
        ratios.append(matches / len(starts) if starts else 0.0)
    return sum(ratios) / n


@given(TEXTS, st.integers(1, 4))
def test_gslms_script_equals_its_own_loop(text, n):
    assert auto_bleu(text, definition="gslm-script", n=n) == pytest.approx(slow_script(text.split(), n))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no no no", (1 + 0) / 2),  # each word occurs again; every other bigram overlaps
        ("a b a b", (1 + 2 / 3) / 2),
        ("A b a b", (1 / 2 + 0) / 2),  # as it is written: A is not a
        ("word", 0.0),
    ],
)
def test_gslms_script_by_hand(text, expected):
    assert auto_bleu(text, definition="gslm-script") == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a b a b", 2 / 3),
        ("The boat. The boat!", 0.0),  # The boat. / The boat ! : the first full stop stays at its word
        ("the boat, the boat,", 4 / 5),  # the boat / boat , / , the / the boat / boat ,
        ("don't don't", 2 / 3),  # do n't / n't do / do n't
        ("word", 0.0),
    ],
)
def test_slamkits_tokens_keep_case_and_punctuation(text, expected):
    pytest.importorskip("nltk")
    assert auto_bleu(text, definition="slamkit") == pytest.approx(expected)


def test_words_know_neither_case_nor_punctuation():
    assert words("The boat's red. “Well-made”, isn't it? — 3 o’clock...") == [
        "the", "boat's", "red", "well-made", "isn't", "it", "3", "o’clock",
    ]  # fmt: skip
    assert words("... !?") == []
    spoken, written = (auto_bleu(text, definition="gslm") for text in ("the boat the boat", "The boat. The boat!"))
    assert written == spoken == 2 / 3


def test_num_words():
    assert [num_words(text) for text in ("he was  here", " ", None)] == [3, 0, 0]
