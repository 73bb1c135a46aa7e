"""Spoken items of the toy benchmarks: pairs of a right and a wrong utterance that differ in as little as possible.

After sWUGGY, sBLIMP (ZeroSpeech 2021) and the spoken StoryClozes (TWIST). Every sentence is drawn from the `items` part
of the grammar's prompts, which no split of the corpus and no judge's text ever holds.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from alignslm.benchmarks.items import SpokenItem
from alignslm.config.evaluation import ToyLexical, ToyStoryCloze, ToySyntactic
from alignslm.config.speech import StoryWorldConfig
from alignslm.provenance import content_id, row_seed
from alignslm.storyworld import StoryWorldError
from alignslm.storyworld.corpus import processes
from alignslm.storyworld.grammar import Plot, Scene, draw_plot, plots, scenes_in, sentences
from alignslm.storyworld.narration import synthesize_story
from alignslm.storyworld.nonwords import LexicalPair, lexical_pairs
from alignslm.storyworld.words import PRONOUNS, TOPICS, Pronoun

ToyBenchmark: TypeAlias = ToyLexical | ToySyntactic | ToyStoryCloze
Polarity: TypeAlias = Literal["positive", "negative"]
_PAIRS_AT_ONCE = 256  # waveforms of so many are in memory
_TASK_PAIRS = 16


class Pair(NamedTuple):
    """Both items of a pair as lists of sentences to be spoken, and as they are written."""

    pair_id: str
    subtype: str
    positive: tuple[str, ...]
    negative: tuple[str, ...]
    positive_text: str
    negative_text: str
    has_context: bool


def toy_items(config: ToyBenchmark, *, corpus: StoryWorldConfig, workers: int) -> Iterator[list[SpokenItem]]:
    """Yield the spoken items of a benchmark in the corpus's voice, positive before negative, some pairs at a time.

    The context of a story is its prompt; words and sentences are compared whole and have none. The number of
    workers changes nothing but the time.
    """
    pairs = toy_pairs(config, voice=corpus.voice)
    with processes(workers) as pool:
        for start in range(0, len(pairs), _PAIRS_AT_ONCE):
            block = pairs[start : start + _PAIRS_AT_ONCE]
            tasks = [block[at : at + _TASK_PAIRS] for at in range(0, len(block), _TASK_PAIRS)]
            yield list(chain.from_iterable(pool(partial(_speak_pairs, corpus=corpus), tasks)))


def toy_pairs(config: ToyBenchmark, *, voice: str) -> list[Pair]:
    """Return the pairs of a benchmark as text. The voice matters only for non-words: it defines the phonemes."""
    match config:
        case ToyLexical():
            return [_lexical(pair) for pair in lexical_pairs(config.pairs, seed=config.seed, voice=voice)]
        case ToySyntactic():
            return _syntactic_pairs(config)
        case ToyStoryCloze():
            return _cloze_pairs(config)


def _speak_pairs(pairs: Sequence[Pair], corpus: StoryWorldConfig) -> list[SpokenItem]:
    items = []
    for pair in pairs:
        items.append(_speak(pair, "positive", pair.positive, pair.positive_text, corpus))
        items.append(_speak(pair, "negative", pair.negative, pair.negative_text, corpus))
    return items


def _speak(pair: Pair, polarity: Polarity, spoken: Sequence[str], text: str, corpus: StoryWorldConfig) -> SpokenItem:
    waveform, first_end_s = synthesize_story(
        spoken, voice=corpus.voice, words_per_minute=corpus.words_per_minute, sample_rate_hz=corpus.sample_rate_hz
    )
    context_end_s = first_end_s if pair.has_context else None
    return SpokenItem(pair.pair_id, polarity, pair.subtype, corpus.voice, text, waveform, context_end_s)


def _lexical(pair: LexicalPair) -> Pair:
    pair_id = content_id("toy-swuggy", pair.word, pair.nonword)
    return Pair(pair_id, pair.changed, (pair.word,), (pair.nonword,), pair.written, pair.nonword, has_context=False)


def _written(pair_id: str, subtype: str, positive: Sequence[str], negative: Sequence[str], *, context: bool) -> Pair:
    return Pair(
        pair_id,
        subtype,
        tuple(positive),
        tuple(negative),
        " ".join(positive),
        " ".join(negative),
        has_context=context,
    )


def _shuffled_scenes(seed: int, name: str, accept: Callable[[Scene], bool]) -> list[Scene]:
    choices = [scene for scene in scenes_in("items") if accept(scene)]
    order = np.random.default_rng(row_seed(seed, "items", name)).permutation(len(choices))
    return [choices[i] for i in order]


def _first_scenes(count: int, seed: int, name: str, accept: Callable[[Scene], bool] = lambda _: True) -> list[Scene]:
    found = _shuffled_scenes(seed, name, accept)
    if count > len(found):
        raise StoryWorldError(
            f"{name} asks for {count} sentences, but the grammar has {len(found)} that fit. Ask for fewer."
        )
    return found[:count]


# --- sentences, right and wrong


def _agreement(scene: Scene, _rng: np.random.Generator) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """`tom reads ...` against `tom read ...`."""
    right, wrong = scene.verb.form(scene.pronoun), scene.verb.form("he" if scene.pronoun == "they" else "they")
    return (scene.prompt,), (scene.prompt.replace(f" {right} ", f" {wrong} ", 1),)


def _determiner(scene: Scene, _rng: np.random.Generator) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """`... a small boat` against `... some small boat`, and `some small nets` against `a small nets`."""
    wrong = "a" if scene.plural_thing else "some"
    return (scene.prompt,), (scene._replace(determiner=wrong).prompt,)


def _word_order(scene: Scene, _rng: np.random.Generator) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """`... small boat` against `... boat small`: the same words."""
    return (scene.prompt,), (scene._replace(adjective=scene.thing, thing=scene.adjective).prompt,)


def _anaphor(scene: Scene, rng: np.random.Generator) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """`anna ... she ...` against `anna ... he ...`, over two sentences."""
    plot = draw_plot(scene.topic, rng)
    right, wrong = (_sentences(scene, plot, pronoun=p)[0] for p in (scene.pronoun, _other_gender(scene.pronoun)))
    return (scene.prompt, right), (scene.prompt, wrong)


def _sentences(scene: Scene, plot: Plot, *, pronoun: Pronoun) -> tuple[str, str]:
    return sentences(pronoun, scene.thing, plural_thing=scene.plural_thing, plot=plot)


def _other_gender(pronoun: Pronoun) -> Pronoun:
    return "she" if pronoun == "he" else "he"


class _Phenomenon(NamedTuple):
    name: str
    make: Callable[[Scene, np.random.Generator], tuple[tuple[str, ...], tuple[str, ...]]]
    accept: Callable[[Scene], bool]


PHENOMENA = (
    _Phenomenon("agreement", _agreement, lambda _: True),
    _Phenomenon("determiner", _determiner, lambda scene: scene.determiner != "the"),
    _Phenomenon("word-order", _word_order, lambda _: True),
    _Phenomenon("anaphor", _anaphor, lambda scene: scene.pronoun != "they"),
)


def _syntactic_pairs(config: ToySyntactic) -> list[Pair]:
    """Return pairs of every phenomenon, as evenly as the number allows."""
    pairs = []
    for place, phenomenon in enumerate(PHENOMENA):
        count = len(range(place, config.pairs, len(PHENOMENA)))
        for number, scene in enumerate(_first_scenes(count, config.seed, phenomenon.name, phenomenon.accept)):
            pair_id = content_id("toy-sblimp", phenomenon.name, number)
            rng = np.random.default_rng(row_seed(config.seed, "toy-sblimp", pair_id))
            positive, negative = phenomenon.make(scene, rng)
            pairs.append(_written(pair_id, phenomenon.name, positive, negative, context=False))
    return pairs


# --- stories, with their own and with a foreign ending


def _cloze_pairs(config: ToyStoryCloze) -> list[Pair]:
    """Return a `topic` pair of every story; about half of the first `num_hard_stories` give each harder subtype."""
    scenes = _first_scenes(config.stories, config.seed, "toy-storycloze")
    return [pair for number, scene in enumerate(scenes) for pair in _cloze_of(number, scene, config)]


def _cloze_of(number: int, scene: Scene, config: ToyStoryCloze) -> Iterator[Pair]:
    rng = np.random.default_rng(row_seed(config.seed, "toy-storycloze", str(number)))
    plot = draw_plot(scene.topic, rng)
    positive = (scene.prompt, *_sentences(scene, plot, pronoun=scene.pronoun))
    endings = {"topic": _mismatched_topic(scene, plot, rng)}
    harder = number < config.num_hard_stories
    if harder and scene.pronoun != "they" and number % 4:
        endings["pronoun"] = _sentences(scene, plot, pronoun=_other_gender(scene.pronoun))
    if harder and number % 2:
        endings["number"] = _sentences(scene, plot, pronoun=_other_number(scene.pronoun, rng))
    elif harder:
        endings["object"] = _mismatched_object(scene, plot, rng)
    for subtype, ending in endings.items():
        pair_id = content_id("toy-storycloze", subtype, number)
        yield _written(pair_id, subtype, positive, (scene.prompt, *ending), context=True)


def _other_number(pronoun: Pronoun, rng: np.random.Generator) -> Pronoun:
    return PRONOUNS[int(rng.integers(2))] if pronoun == "they" else "they"


def _mismatched_topic(scene: Scene, plot: Plot, rng: np.random.Generator) -> tuple[str, str]:
    """Draw an ending of another topic with the same pronoun, object number, opener and closer."""
    others = [topic for topic in TOPICS if topic is not scene.topic]
    topic = others[int(rng.integers(len(others)))]
    things = topic.plural_objects if scene.plural_thing else topic.singular_objects
    fitting = [p for p in plots(topic) if (p.named, p.opener, p.closer) == (plot.named, plot.opener, plot.closer)]
    foreign = fitting[int(rng.integers(len(fitting)))]
    thing = things[int(rng.integers(len(things)))]
    return sentences(scene.pronoun, thing, plural_thing=scene.plural_thing, plot=foreign)


def _mismatched_object(scene: Scene, plot: Plot, rng: np.random.Generator) -> tuple[str, str]:
    """Name another object of the topic, or swap `it` and `them`."""
    things = [one for one in scene.topic.singular_objects + scene.topic.plural_objects if one != scene.thing]
    thing = things[int(rng.integers(len(things)))]
    return sentences(scene.pronoun, thing, plural_thing=not scene.plural_thing, plot=plot)
