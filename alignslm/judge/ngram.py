"""A word n-gram judge with a next-word distribution tilted towards words associated with the prompt's words."""

import json
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file

from alignslm.config.feedback import NgramJudgeConfig
from alignslm.judge import JudgeInput
from alignslm.judge.calibration import CalibratedJudge, calibrate, split_heldout
from alignslm.metrics import words
from alignslm.storage import atomic_write, write_text

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]
UNKNOWN = 0  # id of every word outside the vocabulary; real words count from 1
START = -1  # before the first word, never predicted
SHRINKAGES = (1.0, 2.0, 4.0, 8.0, 16.0)  # candidates; held-back likelihood decides
STRONGEST_TILT = 2.0


class Vocabulary:
    """Sorted words numbered from `first`; any other word is `unknown`."""

    def __init__(self, known: Sequence[str], *, first: int = 1, unknown: int = UNKNOWN) -> None:
        self.known, self.first, self.unknown = list(known), first, unknown
        self._ids = {word: number for number, word in enumerate(self.known, first)}

    def __len__(self) -> int:
        return self.first + len(self.known)

    def encode(self, text: str | None) -> list[int]:
        """Return word ids of a text."""
        return [self._ids.get(word, self.unknown) for word in words(text or "")]


def words_of(stories: Sequence[JudgeInput]) -> list[str]:
    """Return every word of the stories once, sorted."""
    return sorted({word for story in stories for text in story for word in words(text)})


class WordNgrams:
    """Interpolated absolute discounting over raw counts, down to the uniform distribution.

    p_k(w | h) = (max(c(h w) - D, 0) + D * (number of different w after h) * p_{k-1}(w | h')) / c(h), h' dropping the
    oldest word; an unseen h is skipped. Unknown words keep a part of the uniform distribution, so p is never 0.
    """

    def __init__(self, ngrams: Counts, counts: Counts, *, size: int, order: int, discount: float) -> None:
        """Take the distinct n-grams (n, order), padded with START on the left, and their counts (n,)."""
        self.ngrams, self.counts = ngrams, counts
        self.size, self.order, self.discount = size, order, discount
        self._known: dict[tuple[int, ...], Floats] = {}

    @classmethod
    def fit(cls, texts: Sequence[Sequence[int]], *, size: int, order: int, discount: float) -> "WordNgrams":
        """Count the n-grams of word-id sequences."""
        seen: Counter[tuple[int, ...]] = Counter()
        for text in texts:
            padded = [*[START] * (order - 1), *text]
            seen.update(tuple(padded[at : at + order]) for at in range(len(text)))
        rows = sorted(seen.items())
        ngrams = np.array([row for row, _ in rows], np.int64).reshape(-1, order)
        counts = np.array([count for _, count in rows], np.int64)
        return cls(ngrams, counts, size=size, order=order, discount=discount)

    @cached_property
    def _followers(self) -> dict[tuple[int, ...], Counter[int]]:
        """Counts of the next word after every history of 0 .. order - 1 words."""
        followers: dict[tuple[int, ...], Counter[int]] = {}
        for row, count in zip(self.ngrams.tolist(), self.counts.tolist(), strict=True):
            for start in range(self.order):
                followers.setdefault(tuple(row[start:-1]), Counter())[row[-1]] += count
        return followers

    def distribution(self, history: tuple[int, ...]) -> Floats:
        """Return p(. | history) over word ids (size,). A history longer than order - 1 is cut on the left."""
        history = history[max(0, len(history) - self.order + 1) :]
        if history not in self._known:
            shorter = self.distribution(history[1:]) if history else np.full(self.size, 1 / self.size)
            self._known[history] = self._interpolated(history, shorter)
        return self._known[history]

    def _interpolated(self, history: tuple[int, ...], shorter: Floats) -> Floats:
        followers = self._followers.get(history)
        if followers is None:
            return shorter
        total = followers.total()
        mixed = shorter * (self.discount * len(followers) / total)
        mixed[list(followers)] += (np.array(list(followers.values())) - self.discount) / total
        return mixed

    def along(self, context: Sequence[int], continuation: Sequence[int]) -> Floats:
        """Return the distributions (words, size) met when reading the continuation after the context."""
        padded = [*[START] * (self.order - 1), *context, *continuation]
        first = self.order - 1 + len(context)
        steps = range(first, first + len(continuation))
        return np.array([self.distribution(tuple(padded[at - self.order + 1 : at])) for at in steps])


class PromptTilt:
    """How much likelier a word is in a continuation if the prompt contains a certain word.

    association[v, w] = log p(w in continuation | v in prompt) - log p(w in continuation), document frequencies, the
    conditional one shrunk to the marginal as if `shrinkage` more stories had been seen. Topic, pronoun and number of
    a story all reach its continuation this way, without labels. Summed over the prompt's words (naive Bayes) and
    multiplied by `strength` < 1, since the words of a prompt repeat each other's evidence.
    """

    def __init__(self, joint: Counts, prompts: Counts, continuations: Counts, *, stories: int) -> None:
        """Take document counts: joint (size, size) by prompt word and continuation word, and both marginals (size,)."""
        self.joint, self.prompts, self.continuations, self.stories = joint, prompts, continuations, stories

    @classmethod
    def fit(cls, stories: Sequence[tuple[Sequence[int], Sequence[int]]], *, size: int) -> "PromptTilt":
        """Count in how many stories words meet."""
        there, after = (np.zeros((len(stories), size), np.float64) for _ in range(2))
        for row, (prompt, continuation) in enumerate(stories):
            there[row, sorted(set(prompt))] = 1
            after[row, sorted(set(continuation))] = 1
        joint = (there.T @ after).astype(np.int64)  # sums of ones: exact in float64
        return cls(joint, there.sum(0).astype(np.int64), after.sum(0).astype(np.int64), stories=len(stories))

    def association(self, shrinkage: float) -> Floats:
        """Return the association (size, size) in nats; 0 for words never seen in a prompt or a continuation."""
        marginal = self.continuations / self.stories
        conditional = (self.joint + shrinkage * marginal) / (self.prompts[:, None] + shrinkage)
        return np.log(np.where(marginal > 0, conditional, 1) / np.where(marginal > 0, marginal, 1))


def tilted(plain: Floats, towards: Floats) -> Floats:
    """Multiply distributions (words, size) by exp(towards) (size,) and normalise them again."""
    weighted = plain * np.exp(towards - towards.max())
    return weighted / weighted.sum(axis=1, keepdims=True)


class TiltedNgrams:
    """A continuation's words under the tilted n-gram, the prompt being read first."""

    def __init__(
        self, vocabulary: Vocabulary, ngrams: WordNgrams, tilt: PromptTilt, *, shrinkage: float, strength: float
    ) -> None:
        self.vocabulary, self.ngrams, self.tilt = vocabulary, ngrams, tilt
        self.shrinkage, self.strength = shrinkage, strength
        self._towards = strength * tilt.association(shrinkage)

    def word_nats(self, stories: Sequence[JudgeInput]) -> list[list[float]]:
        """Return log p of each continuation word given the prompt and the words before it."""
        return [self._word_nats(story) for story in stories]

    def _word_nats(self, story: JudgeInput) -> list[float]:
        prompt, continuation = (self.vocabulary.encode(text) for text in story)
        if not continuation:
            return []
        plain = self.ngrams.along(prompt, continuation)
        chosen = tilted(plain, self._towards[sorted(set(prompt))].sum(axis=0))[
            np.arange(len(continuation)), continuation
        ]
        return np.log(chosen).tolist()

    def save(self, folder: Path) -> None:
        """Write counts as safetensors, words and parameters as JSON."""
        counts = {"ngrams": self.ngrams.ngrams, "ngram_counts": self.ngrams.counts, "joint": self.tilt.joint}
        marginals = {"prompts": self.tilt.prompts, "continuations": self.tilt.continuations}
        with atomic_write(folder / "counts.safetensors") as partial:
            save_file(counts | marginals, partial)
        write_text(folder / "words.json", json.dumps(self.vocabulary.known) + "\n")
        parameters = {
            "order": self.ngrams.order,
            "discount": self.ngrams.discount,
            "stories": self.tilt.stories,
            "shrinkage": self.shrinkage,
            "strength": self.strength,
        }
        write_text(folder / "ngram.json", json.dumps(parameters, indent=1) + "\n")


def load(folder: Path) -> CalibratedJudge:
    """Load what `fit` left in `folder`."""
    arrays = load_file(folder / "counts.safetensors")
    vocabulary = Vocabulary(json.loads((folder / "words.json").read_text()))
    held = json.loads((folder / "ngram.json").read_text())
    ngrams = WordNgrams(
        arrays["ngrams"],
        arrays["ngram_counts"],
        size=len(vocabulary),
        order=held["order"],
        discount=held["discount"],
    )
    tilt = PromptTilt(arrays["joint"], arrays["prompts"], arrays["continuations"], stories=held["stories"])
    model = TiltedNgrams(vocabulary, ngrams, tilt, shrinkage=held["shrinkage"], strength=held["strength"])
    return CalibratedJudge(model, folder)


def fit(config: NgramJudgeConfig, texts: Sequence[JudgeInput], folder: Path) -> dict[str, float]:
    """Fit on nine tenths of the stories, calibrate on the rest, leave the judge in `folder`.

    Returns calibration figures. Order and repeats of `texts` change nothing. Raises CalibrationError.
    """
    fitted, held_back = split_heldout(texts)
    vocabulary = Vocabulary(words_of(fitted))
    encoded = [(vocabulary.encode(story.prompt), vocabulary.encode(story.continuation)) for story in fitted]
    ngrams = WordNgrams.fit(
        [[*prompt, *continuation] for prompt, continuation in encoded],
        size=len(vocabulary),
        order=config.order,
        discount=config.discount,
    )
    tilt = PromptTilt.fit(encoded, size=len(vocabulary))
    shrinkage, strength = _best_tilt(vocabulary, ngrams, tilt, held_back)
    model = TiltedNgrams(vocabulary, ngrams, tilt, shrinkage=shrinkage, strength=strength)
    figures = calibrate(model, held_back, config.calibration, folder)
    model.save(folder)
    return figures | {"tilt_strength": strength, "tilt_shrinkage": shrinkage}


def _best_tilt(
    vocabulary: Vocabulary, ngrams: WordNgrams, tilt: PromptTilt, stories: Sequence[JudgeInput]
) -> tuple[float, float]:
    """Return the shrinkage and strength under which the stories' continuations are likeliest."""
    from scipy.optimize import minimize_scalar  # takes longer to import than a fitted judge takes to judge

    encoded = [[vocabulary.encode(text) for text in story] for story in stories]
    read = [(sorted(set(p)), c, ngrams.along(p, c)) for p, c in encoded if c]

    def loss(strength: float, association: Floats) -> float:
        terms = [tilted(plain, strength * association[p].sum(0))[np.arange(len(c)), c] for p, c, plain in read]
        return -float(np.log(np.concatenate(terms)).sum())

    found = []
    for shrinkage in SHRINKAGES:
        best = minimize_scalar(
            loss,
            bounds=(0.0, STRONGEST_TILT),
            args=(tilt.association(shrinkage),),
            method="bounded",
            options={"xatol": 1e-3},
        )
        found.append((float(best.fun), shrinkage, float(best.x)))
    _, shrinkage, strength = min(found)
    return shrinkage, strength
