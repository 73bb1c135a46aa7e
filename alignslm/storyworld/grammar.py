"""The story grammar: prompts, the continuations each allows, and the exact test whether one follows the other.

A story has three sentences. The first is the prompt; the two others are the continuation and depend on the
prompt's topic, pronoun, number and object. Every set here is finite and small enough to be written out, so
`can_continue` is a program without a model: the continuation is in the set or it is not.
"""

import hashlib
from functools import lru_cache
from itertools import product
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from alignslm.storyworld.words import (
    ADJECTIVES,
    CLOSERS,
    DETERMINERS,
    OPENERS,
    PRONOUNS,
    SUBJECTS,
    TOPICS,
    Pronoun,
    Topic,
    Verb,
)

Part: TypeAlias = Literal["train", "valid", "dev", "test", "items"]

# Share of all prompt sentences in each part. `items` belongs to the spoken benchmarks alone.
PARTS: dict[Part, float] = {"train": 0.62, "valid": 0.08, "dev": 0.09, "test": 0.09, "items": 0.12}


class Scene(NamedTuple):
    """What a prompt says, in the grammar's terms. Equal scenes have equal prompt sentences."""

    topic: Topic
    pronoun: Pronoun
    subject: str
    verb: Verb
    determiner: str
    adjective: str
    thing: str
    plural_thing: bool
    place: str

    @property
    def prompt(self) -> str:
        """The first sentence of the story."""
        verb = self.verb.form(self.pronoun)
        return f"{self.subject} {verb} {self.determiner} {self.adjective} {self.thing} {self.place}"


class Plot(NamedTuple):
    """The free choices of a continuation, apart from what the scene fixes."""

    act: Verb
    named: bool
    tail: str
    opener: str
    ending: tuple[Verb, str]
    closer: str


class Story(NamedTuple):
    """One story: the prompt sentence, the two sentences after it, and the scene they are drawn from."""

    prompt: str
    continuation: tuple[str, str]
    scene: Scene

    @property
    def continuation_text(self) -> str:
        """Both continuing sentences as one text."""
        return " ".join(self.continuation)


@lru_cache(maxsize=1)
def scenes() -> tuple[Scene, ...]:
    """Every scene of the grammar, in one fixed order."""
    return tuple(scene for topic in TOPICS for pronoun in PRONOUNS for scene in _scenes_of(topic, pronoun))


def _scenes_of(topic: Topic, pronoun: Pronoun) -> list[Scene]:
    things = [(thing, False) for thing in topic.singular_objects] + [(thing, True) for thing in topic.plural_objects]
    return [
        Scene(topic, pronoun, subject, verb, determiner, adjective, thing, plural, place)
        for subject, verb, (thing, plural), adjective, place in product(
            SUBJECTS[pronoun], topic.verbs, things, ADJECTIVES, topic.places
        )
        for determiner in DETERMINERS[plural]
    ]


@lru_cache(maxsize=1)
def _scene_by_prompt() -> dict[str, Scene]:
    return {scene.prompt: scene for scene in scenes()}


def scene_of(prompt_text: str) -> Scene | None:
    """Return the scene a prompt sentence tells, or None where the grammar has no such prompt."""
    return _scene_by_prompt().get(prompt_text)


def split_of(prompt_text: str) -> Part:
    """Return the part a prompt sentence belongs to: a function of its text alone, whatever the corpus seed."""
    digest = hashlib.blake2b(prompt_text.encode(), digest_size=8).digest()
    place, edge = int.from_bytes(digest, "little") / 2**64, 0.0
    for part, share in PARTS.items():
        edge += share
        if place < edge:
            return part
    return "items"


@lru_cache(maxsize=8)
def scenes_in(part: Part) -> tuple[Scene, ...]:
    """Every scene whose prompt sentence belongs to a part."""
    return tuple(scene for scene in scenes() if split_of(scene.prompt) == part)


def sentences(pronoun: Pronoun, thing: str, *, plural_thing: bool, plot: Plot) -> tuple[str, str]:
    """Return the two continuing sentences, with the object named or as a pronoun. The plot carries the topic."""
    mention = f"the {thing}" if plot.named else ("them" if plural_thing else "it")
    verb, rest = plot.ending
    return (
        f"{pronoun} {plot.act.form(pronoun)} {mention} {plot.tail}",
        f"{plot.opener} {pronoun} {verb.form(pronoun)} {rest} {plot.closer}",
    )


@lru_cache(maxsize=8)
def plots(topic: Topic) -> tuple[Plot, ...]:
    """Every plot of a topic, in one fixed order."""
    return tuple(
        Plot(*choice) for choice in product(topic.acts, (True, False), topic.tails, OPENERS, topic.endings, CLOSERS)
    )


def realize_story(scene: Scene, plot: Plot) -> Story:
    """Return the story of a scene and a plot of its topic."""
    continuation = sentences(scene.pronoun, scene.thing, plural_thing=scene.plural_thing, plot=plot)
    return Story(scene.prompt, continuation, scene)


def draw_plot(topic: Topic, rng: np.random.Generator) -> Plot:
    """Draw a plot uniformly."""
    choices = plots(topic)
    return choices[int(rng.integers(len(choices)))]


def draw_story(rng: np.random.Generator, *, part: Part) -> Story:
    """Draw a clean story whose prompt belongs to a part: scene and plot uniformly."""
    choices = scenes_in(part)
    scene = choices[int(rng.integers(len(choices)))]
    return realize_story(scene, draw_plot(scene.topic, rng))


@lru_cache(maxsize=256)
def _continuations(topic: Topic, pronoun: Pronoun, thing: str, plural_thing: bool) -> frozenset[str]:  # noqa: FBT001 lru_cache
    return frozenset(" ".join(sentences(pronoun, thing, plural_thing=plural_thing, plot=plot)) for plot in plots(topic))


def continuations(scene: Scene) -> frozenset[str]:
    """Every continuation text that the grammar allows after a scene."""
    return _continuations(scene.topic, scene.pronoun, scene.thing, scene.plural_thing)


def can_continue(prompt_text: str, continuation_text: str) -> bool:
    """Tell whether the grammar can produce this continuation, word for word, after this prompt."""
    scene = scene_of(prompt_text)
    return scene is not None and continuation_text in continuations(scene)


def _all_words() -> tuple[str, ...]:
    endings = [f"{verb.singular} {verb.plural} {rest}" for topic in TOPICS for verb, rest in topic.endings]
    verbs = [form for topic in TOPICS for verb in topic.verbs + topic.acts for form in verb]
    things = [word for topic in TOPICS for word in topic.singular_objects + topic.plural_objects]
    phrases = [phrase for topic in TOPICS for phrase in topic.places + topic.tails]
    subjects = [subject for names in SUBJECTS.values() for subject in names]
    determiners = [word for words in DETERMINERS.values() for word in words]
    shared = [*PRONOUNS, *ADJECTIVES, *OPENERS, *CLOSERS, "it", "them"]
    texts = [*endings, *verbs, *things, *phrases, *subjects, *determiners, *shared]
    return tuple(sorted({word for text in texts for word in text.split()}))


VOCABULARY: tuple[str, ...] = _all_words()
"""Every word the world can say, sorted."""
