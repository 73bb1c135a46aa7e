"""The grammar against its definition, written out here a second time as a parser."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignslm.storyworld import grammar
from alignslm.storyworld.grammar import can_continue, draw_story, scene_of, scenes, scenes_in, split_of
from alignslm.storyworld.words import CLOSERS, OPENERS, SUBJECTS, TOPICS

seeds = st.integers(0, 2**32 - 1)


def parse(prompt: str, continuation: str) -> bool:
    """Slow oracle: read both texts by regular expressions made from the word lists."""
    pronoun = next((p for p, names in SUBJECTS.items() if any(prompt.startswith(name + " ") for name in names)), None)
    if pronoun is None:
        return False
    form = 1 if pronoun == "they" else 0
    for topic in TOPICS:
        for plural, things in ((False, topic.singular_objects), (True, topic.plural_objects)):
            for thing in things:
                subject = "|".join(SUBJECTS[pronoun])
                verb = "|".join(v[form] for v in topic.verbs)
                determiner = "some|the" if plural else "a|the"
                place = "|".join(topic.places)
                first = rf"({subject}) ({verb}) ({determiner}) (small|big|new|red|blue|heavy) {thing} ({place})"
                mention = f"(the {thing}|{'them' if plural else 'it'})"
                act = "|".join(v[form] for v in topic.acts)
                end = "|".join(f"{v[form]} {rest}" for v, rest in topic.endings)
                second = rf"{pronoun} ({act}) {mention} ({'|'.join(topic.tails)})"
                third = rf"({'|'.join(OPENERS)}) {pronoun} ({end}) ({'|'.join(CLOSERS)})"
                if re.fullmatch(first, prompt) and re.fullmatch(f"{second} {third}", continuation):
                    return True
    return False


@given(seeds, seeds)
def test_can_continue_agrees_with_a_parser_written_from_the_definition(one: int, other: int) -> None:
    story = draw_story(np.random.default_rng(one), part="train")
    foreign = draw_story(np.random.default_rng(other), part="test")
    for text in (story.continuation_text, foreign.continuation_text):
        assert can_continue(story.prompt, text) == parse(story.prompt, text)


@given(seeds, st.data())
def test_one_changed_word_is_judged_as_the_parser_does(seed: int, data: st.DataObject) -> None:
    story = draw_story(np.random.default_rng(seed), part="dev")
    words = story.continuation_text.split()
    place = data.draw(st.integers(0, len(words) - 1))
    words[place] = data.draw(st.sampled_from(grammar.VOCABULARY))
    assert can_continue(story.prompt, " ".join(words)) == parse(story.prompt, " ".join(words))


def test_hand_written_stories() -> None:
    prompt = "anna feeds some red ducks near the field"
    assert can_continue(prompt, "she brushes them through the gate soon she picks ripe corn again")
    assert can_continue(prompt, "she brushes the ducks through the gate soon she picks ripe corn again")
    for wrong in (
        "he brushes them through the gate soon he picks ripe corn again",  # pronoun
        "they brush them through the gate soon they pick ripe corn again",  # number
        "she brush them through the gate soon she picks ripe corn again",  # agreement
        "she brushes it through the gate soon she picks ripe corn again",  # object number
        "she brushes the cows through the gate soon she picks ripe corn again",  # object
        "she lifts them before the show soon she sings a slow melody again",  # topic
        "she brushes them through the gate",  # a sentence is missing
        "",
    ):
        assert not can_continue(prompt, wrong)
    assert not can_continue("anna feeds a red ducks near the field", "she brushes them through the gate")
    assert scene_of("no such prompt") is None


def test_prompts_are_distinct_and_every_part_is_large() -> None:
    prompts = [scene.prompt for scene in scenes()]
    # 12 subjects x 6 topics x 2 verbs x 4 objects x 2 determiners x 6 adjectives x 2 places
    assert len(prompts) == len(set(prompts)) == 12 * 6 * 2 * 4 * 2 * 6 * 2
    shares = {part: len(scenes_in(part)) / len(prompts) for part in grammar.PARTS}
    assert sum(shares.values()) == pytest.approx(1)
    assert shares == pytest.approx(grammar.PARTS, abs=0.015)


def test_a_prompt_keeps_its_part() -> None:
    """The parts are a promise to every corpus made before: a changed hash would leak test prompts into training."""
    assert split_of("anna feeds some red ducks near the field") == "train"
    assert split_of("tom reads a new book at school") == split_of("tom reads a new book at school")


@given(seeds)
def test_stories_use_the_vocabulary_alone(seed: int) -> None:
    story = draw_story(np.random.default_rng(seed), part="items")
    words = f"{story.prompt} {story.continuation_text}".split()
    assert set(words) <= set(grammar.VOCABULARY)
    assert split_of(story.prompt) == "items"
    assert story.scene == scene_of(story.prompt)


def test_vocabulary_is_closed_plain_and_no_larger_than_needed() -> None:
    told = {word for scene in scenes() for word in scene.prompt.split()}
    told |= {word for scene in scenes() for text in grammar.continuations(scene) for word in text.split()}
    assert told == set(grammar.VOCABULARY)
    assert all(re.fullmatch("[a-z]+", word) for word in grammar.VOCABULARY)
