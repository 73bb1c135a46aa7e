"""Benchmark items: the right one right, the wrong one wrong, and little else between them."""

from collections import Counter
from itertools import chain, pairwise

import numpy as np
import pytest

from alignslm.config.evaluation import ToyLexical, ToyStoryCloze, ToySyntactic
from alignslm.config.speech import StoryWorldConfig
from alignslm.storyworld import StoryWorldError, espeak, nonwords
from alignslm.storyworld.grammar import VOCABULARY, can_continue, scene_of, split_of
from alignslm.storyworld.items import Pair, toy_items, toy_pairs
from alignslm.storyworld.narration import synthesize_story
from tests.messages import names

LEXICAL = ToyLexical(kind="toy-swuggy", seed=0, pairs=300)
SYNTACTIC = ToySyntactic(kind="toy-sblimp", seed=0, pairs=302)
CLOZE = ToyStoryCloze(kind="toy-storycloze", seed=0, stories=400, num_hard_stories=400)
WORLD = StoryWorldConfig(
    kind="storyworld",
    seed=0,
    stories={"train": 1, "valid": 1, "dev": 1, "test": 1},
    mismatched_fraction=0,
    mismatched_same_pronoun=0,
    num_texts=1,
    voice="en-us",
    words_per_minute=170,
    sample_rate_hz=16000,
)


@pytest.fixture(scope="module")
def cloze() -> list[Pair]:
    return toy_pairs(CLOZE, voice="en-us")


@pytest.fixture(scope="module")
def syntactic() -> list[Pair]:
    return toy_pairs(SYNTACTIC, voice="en-us")


@pytest.fixture(scope="module")
def lexical() -> list[nonwords.LexicalPair]:
    return nonwords.lexical_pairs(300, seed=0, voice="en-us")


def test_true_endings_follow_and_foreign_ones_cannot(cloze: list[Pair]) -> None:
    for pair in cloze:
        assert can_continue(pair.positive[0], " ".join(pair.positive[1:]))
        assert not can_continue(pair.positive[0], " ".join(pair.negative[1:]))
        assert pair.positive[0] == pair.negative[0]
        assert split_of(pair.positive[0]) == "items"


def test_every_story_has_a_topic_pair_and_the_harder_subtypes_come_often(cloze: list[Pair]) -> None:
    counts = Counter(pair.subtype for pair in cloze)
    assert counts == {"topic": 400, "number": 200, "object": 200, "pronoun": counts["pronoun"]}
    assert 150 <= counts["pronoun"] <= 200
    assert len({pair.pair_id for pair in cloze}) == len(cloze)


def test_harder_subtypes_change_their_own_words_alone(cloze: list[Pair]) -> None:
    for pair in cloze:
        scene = scene_of(pair.positive[0])
        words = list(zip(pair.positive_text.split(), pair.negative_text.split(), strict=False))
        changed = {word for word, other in words if word != other}
        match pair.subtype:
            case "topic":
                assert pair.negative[1].split()[0] == scene.pronoun
            case "pronoun":
                assert changed == {scene.pronoun}
                assert pair.negative[1].split()[0] in {"he", "she"}
            case "number":
                assert scene.pronoun in changed
                assert (scene.pronoun == "they") != (pair.negative[1].split()[0] == "they")
            case "object":
                assert changed in ({scene.thing}, {"it"}, {"them"})


def test_syntactic_pairs_differ_in_one_phenomenon(syntactic: list[Pair]) -> None:
    assert Counter(pair.subtype for pair in syntactic) == {
        "agreement": 76,
        "determiner": 76,
        "word-order": 75,
        "anaphor": 75,
    }
    for pair in syntactic:
        right, wrong = pair.positive_text.split(), pair.negative_text.split()
        changed = [(a, b) for a, b in zip(right, wrong, strict=True) if a != b]
        assert scene_of(pair.positive[0]) is not None
        assert set(right + wrong) <= set(VOCABULARY)
        match pair.subtype:
            case "agreement":
                assert len(changed) == 1
                assert scene_of(pair.negative_text) is None
            case "determiner":
                assert set(changed[0]) == {"a", "some"}
                assert len(changed) == 1
                assert scene_of(pair.negative_text) is None
            case "word-order":
                assert sorted(right) == sorted(wrong)
                assert len(changed) == 2
                assert scene_of(pair.negative_text) is None
            case "anaphor":
                assert set(changed[0]) == {"he", "she"}
                assert len(changed) == 1


def test_too_many_pairs_are_refused() -> None:
    with pytest.raises(StoryWorldError) as raised:
        toy_pairs(CLOZE.model_copy(update={"stories": 99999}), voice="en-us")
    names(raised.value, "toy-storycloze", "99999", "1630")
    with pytest.raises(StoryWorldError) as raised:
        toy_pairs(LEXICAL.model_copy(update={"pairs": 99999}), voice="en-us")
    names(raised.value, "99999", "vocabulary")


def split_input(text: str) -> tuple[str, ...]:
    return tuple(phoneme.lstrip("',%=") for phoneme in text.strip("[]").split("|"))


def test_nonwords_are_one_phoneme_away_unknown_and_made_of_known_steps(lexical: list[nonwords.LexicalPair]) -> None:
    known = {split_input("|".join(word)) for word in espeak.phonemes(VOCABULARY, voice="en-us")}
    steps = {step for word in known for step in pairwise(("#", *word, "#"))}
    for pair in lexical:
        word, nonword = split_input(pair.word), split_input(pair.nonword)
        assert word in known
        assert nonword not in known
        assert sum(a != b for a, b in zip(word, nonword, strict=True)) == 1
        assert set(pairwise(("#", *nonword, "#"))) <= steps
    assert len({(pair.word, pair.nonword) for pair in lexical}) == 300
    assert max(Counter(pair.written for pair in lexical).values()) <= 2  # the vocabulary is gone round evenly


def test_a_nonword_keeps_the_stress_of_its_word(lexical: list[nonwords.LexicalPair]) -> None:
    for pair in lexical:
        marks = [[p[:1] in "',%=" for p in text.strip("[]").split("|")] for text in (pair.word, pair.nonword)]
        assert marks[0] == marks[1]


def test_words_sound_unlike_their_nonwords(lexical: list[nonwords.LexicalPair]) -> None:
    for pair in lexical[:20]:
        one, other = (
            espeak.synthesize(text, voice="en-us", words_per_minute=170, sample_rate_hz=16000)
            for text in (pair.word, pair.nonword)
        )
        shorter = min(len(one), len(other))
        assert np.abs(one[:shorter] - other[:shorter]).max() > 0.02


def test_items_come_in_pairs_and_the_context_is_shared_sound() -> None:
    config = CLOZE.model_copy(update={"stories": 3})
    items = list(chain.from_iterable(toy_items(config, corpus=WORLD, workers=1)))
    pairs = toy_pairs(config, voice="en-us")
    assert len(items) == 2 * len(pairs)
    for right, wrong, pair in zip(items[::2], items[1::2], pairs, strict=True):
        assert (right.polarity, wrong.polarity) == ("positive", "negative")
        assert right.pair_id == wrong.pair_id == pair.pair_id
        assert right.context_end_s == wrong.context_end_s
        end = round(right.context_end_s * 16000)
        np.testing.assert_array_equal(right.waveform[:end], wrong.waveform[:end])
        spoken, _ = synthesize_story(pair.negative, voice="en-us", words_per_minute=170, sample_rate_hz=16000)
        np.testing.assert_array_equal(wrong.waveform, spoken)
        assert wrong.text == pair.negative_text


@pytest.mark.parametrize("config", [LEXICAL, SYNTACTIC])
def test_whole_utterances_have_no_context(config: ToyLexical | ToySyntactic) -> None:
    items = list(chain.from_iterable(toy_items(config.model_copy(update={"pairs": 4}), corpus=WORLD, workers=1)))
    assert len(items) == 8
    assert {item.context_end_s for item in items} == {None}
    assert all(item.waveform.dtype == np.float32 and item.voice == "en-us" for item in items)


def test_workers_change_nothing() -> None:
    config = SYNTACTIC.model_copy(update={"pairs": 40})
    alone, shared = ([*chain.from_iterable(toy_items(config, corpus=WORLD, workers=n))] for n in (1, 2))
    assert [item[:5] for item in alone] == [item[:5] for item in shared]
    for one, other in zip(alone, shared, strict=True):
        np.testing.assert_array_equal(one.waveform, other.waveform)


def test_another_seed_draws_other_items() -> None:
    for config in (LEXICAL, SYNTACTIC, CLOZE):
        other = config.model_copy(update={"seed": 1})
        assert toy_pairs(config, voice="en-us") == toy_pairs(config, voice="en-us")
        assert toy_pairs(config, voice="en-us") != toy_pairs(other, voice="en-us")
