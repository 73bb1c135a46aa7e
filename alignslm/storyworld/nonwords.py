"""Spoken words of the vocabulary and non-words one phoneme away, as phoneme input for espeak-ng."""

from itertools import pairwise
from typing import Literal, NamedTuple, TypeAlias, TypeVar

import numpy as np

from alignslm.provenance import row_seed
from alignslm.storyworld import StoryWorldError
from alignslm.storyworld.espeak import phonemes
from alignslm.storyworld.grammar import VOCABULARY

Phonemes: TypeAlias = tuple[str, ...]
T = TypeVar("T")

MIN_PHONEMES = 3
"""Shorter words, such as `at`, have too few neighbors that are not words."""

_STRESS = "',%="
_VOWELS = "aeiouAEIOUV03@"
_EDGE = "#"
# Variants of one sound, or vowels hard to tell apart: one never replaces another of its family.
_FAMILIES = (
    {"i", "i:", "I", "I#", "i@3"},
    {"@", "@2", "@L", "3", "3:", "V", "a#"},
    {"a", "aa", "E", "e@"},
    {"0", "O:", "O2", "O@", "o@", "A@"},
    {"U", "u:", "U@"},
    {"t", "t#", "t2"},
)


class LexicalPair(NamedTuple):
    """A word and a non-word of as many phonemes, both as espeak phoneme input; `written` is the word's spelling.

    A non-word is none of this world's words; English may well have it.
    """

    written: str
    changed: Literal["vowel", "consonant"]
    word: str
    nonword: str


def bare(phoneme: str) -> str:
    """Return a phoneme without its stress mark."""
    return phoneme.lstrip(_STRESS)


def is_vowel(phoneme: str) -> bool:
    """Return whether a phoneme is a vowel, by espeak's mnemonics."""
    return bare(phoneme)[:1] in _VOWELS


def _sound(word: Phonemes) -> Phonemes:
    return tuple(bare(phoneme) for phoneme in word)


def _steps(word: Phonemes) -> set[tuple[str, str]]:
    path = (_EDGE, *_sound(word), _EDGE)
    return set(pairwise(path))


def _alike(one: str, other: str) -> bool:
    return one == other or any(one in family and other in family for family in _FAMILIES)


def neighbours(word: Phonemes, known: set[Phonemes]) -> list[Phonemes]:
    """Return the non-words that differ from `word` in one phoneme, a vowel for a vowel, a consonant for a consonant.

    `known` has every pronunciation of the vocabulary, without stress: no result is one of them, and every step
    from phoneme to phoneme (and from and to the word's edge) occurs in one of them, so a non-word sounds like a word.
    """
    steps = {step for sound in known for step in _steps(sound)}
    inventory = sorted({phoneme for sound in known for phoneme in sound})
    found = [
        (*word[:place], old[: len(old) - len(bare(old))] + new, *word[place + 1 :])
        for place, old in enumerate(word)
        for new in inventory
        if is_vowel(new) == is_vowel(old) and not _alike(new, bare(old))
    ]
    return [nonword for nonword in found if _sound(nonword) not in known and _steps(nonword) <= steps]


def phoneme_input(word: Phonemes) -> str:
    """Return the text that makes espeak-ng say these phonemes; bars keep `t`, `S` from being read as `tS`."""
    return f"[[{'|'.join(word)}]]"


def lexical_pairs(count: int, *, seed: int, voice: str) -> list[LexicalPair]:
    """Return `count` distinct pairs, going round the shuffled vocabulary until there are enough."""
    spoken = dict(zip(VOCABULARY, phonemes(VOCABULARY, voice=voice), strict=True))
    known = {_sound(word) for word in spoken.values()}
    written = [word for word in VOCABULARY if len(spoken[word]) >= MIN_PHONEMES]
    pools = {word: _shuffled(neighbours(spoken[word], known), seed, word) for word in written}
    order = _shuffled(written, seed, "words")
    rounds = max((len(pool) for pool in pools.values()), default=0)
    chosen = [(word, pools[word][turn]) for turn in range(rounds) for word in order if turn < len(pools[word])]
    if count > len(chosen):
        raise StoryWorldError(f"{count} word pairs requested, but the vocabulary makes {len(chosen)}. Ask for fewer.")
    return [_pair(word, spoken[word], nonword) for word, nonword in chosen[:count]]


def _pair(written: str, word: Phonemes, nonword: Phonemes) -> LexicalPair:
    changed = next(old for old, new in zip(word, nonword, strict=True) if old != new)
    kind: Literal["vowel", "consonant"] = "vowel" if is_vowel(changed) else "consonant"
    return LexicalPair(written, kind, phoneme_input(word), phoneme_input(nonword))


def _shuffled(things: list[T], seed: int, name: str) -> list[T]:
    order = np.random.default_rng(row_seed(seed, "nonwords", name)).permutation(len(things))
    return [things[i] for i in order]
