"""From a continuation's word log-probabilities to a score on 1..5, calibrated on true against shuffled stories."""

import json
import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from alignslm.config.calibration import Calibration
from alignslm.config.model import Config
from alignslm.judge import Judge, JudgeInput, JudgeOutput
from alignslm.metrics import words
from alignslm.provenance import content_id
from alignslm.storage import write_text

Floats = npt.NDArray[np.float64]
HELD_BACK_OF_TEN = 1  # tenths of the stories a judge is calibrated on instead of fitted to
MIN_HELD_BACK = 20
CALIBRATION_FILE = "calibration.json"
GUESSING = 0.65  # an AUC below this is warned of
STEEPEST = 1e4  # beyond this slope (per nat) the sigmoid is a step and the scores carry no degrees


class CalibrationError(ValueError):
    """A judge cannot be calibrated: too few stories, or it does not tell true from shuffled continuations."""


class Sigmoid(Config):
    """score = 1 + 4 / (1 + exp(-(slope * x + offset))), x the mean clamped log-probability per word in nats."""

    slope: float
    offset: float
    min_word_logprob: float

    def score(self, mean_nats: npt.ArrayLike) -> Floats:
        """Map mean clamped log-probabilities (stories,) to scores (stories,) in [1, 5]."""
        return 1 + 4 * _logistic(self.slope * np.asarray(mean_nats, np.float64) + self.offset)

    def judgement(self, word_nats: Sequence[float]) -> JudgeOutput:
        """Judge one continuation by its words' log-probabilities; no word at all is status `empty`."""
        if not word_nats:
            return JudgeOutput(None, None, "empty", None)
        score = float(self.score(mean_clamped(word_nats, self.min_word_logprob)))
        return JudgeOutput(score, math.exp(-math.fsum(word_nats) / len(word_nats)), "ok", None)


class WordModel(Protocol):
    """A model of a continuation's words, conditioned on the prompt."""

    def word_nats(self, stories: Sequence[JudgeInput]) -> list[list[float]]:
        """Return log p of each continuation word given the prompt and the words before it."""
        ...


class CalibratedJudge:
    """Judges a continuation by its words' probability under a model, on the scale it was calibrated to."""

    def __init__(self, model: WordModel, folder: Path) -> None:
        """Take a fitted model and read the calibration that `calibrate` left in `folder`."""
        self.model = model
        self.sigmoid = Sigmoid.model_validate_json((folder / CALIBRATION_FILE).read_text())

    def judge(self, stories: Sequence[JudgeInput]) -> list[JudgeOutput]:
        """Return one judgement per story; an empty continuation has status `empty`."""
        return [self.sigmoid.judgement(nats) for nats in self.model.word_nats(stories)]


def _logistic(x: Floats) -> Floats:
    return 0.5 * (1 + np.tanh(0.5 * x))


def mean_clamped(word_nats: Sequence[float], floor_nats: float) -> float:
    """Return the mean log-probability per word, each word clamped below so that no single word decides."""
    return math.fsum(max(nats, floor_nats) for nats in word_nats) / len(word_nats)


def split_heldout(stories: Sequence[JudgeInput]) -> tuple[list[JudgeInput], list[JudgeInput]]:
    """Return (stories to fit on, stories to calibrate on), by a hash of the text: order and repeats change nothing.

    A tenth calibrates; of few stories, `MIN_HELD_BACK`. A repeated story is on one side only. Raises CalibrationError
    if that would be more than half.
    """
    told = {content_id(*story): story for story in stories}
    held = {key for key in told if int(key, 16) % 10 < HELD_BACK_OF_TEN}
    if len(held) < MIN_HELD_BACK:
        held = {*sorted(told)[:MIN_HELD_BACK]}
    if len(told) < 2 * MIN_HELD_BACK:
        raise CalibrationError(
            f"{len(stories)} stories ({len(told)} different) are too few to fit and calibrate a judge on; "
            f"{2 * MIN_HELD_BACK} are needed. Give "
            "more training transcripts of more than num_prompt_words words, or raise `texts` if it is lower, both in "
            "experiments/corpus; or choose a judge that is not fitted (`judge` in params.yaml)."
        )
    fitted, held_back = (
        [story for key, story in sorted(told.items()) if (key in held) == wanted] for wanted in (False, True)
    )
    return fitted, held_back


def shuffled(stories: Sequence[JudgeInput]) -> list[JudgeInput]:
    """Give every prompt the continuation of the next story in hash order; drop those that got their own words back."""
    ordered = sorted(stories, key=lambda story: content_id(*story))
    moved = [(mine, JudgeInput(mine.prompt, other.continuation)) for mine, other in pairwise([*ordered, ordered[0]])]
    return [foreign for mine, foreign in moved if words(foreign.continuation) != words(mine.continuation)]


def solve(true_nats: Floats, shuffled_nats: Floats, config: Calibration) -> Sigmoid:
    """Place the sigmoid so that true continuations have mean `ground_truth_score` and shuffled ones `shuffled_score`.

    The offset is solved for every slope so that the first mean holds; the second then falls as the slope grows.
    Raises CalibrationError if no slope up to `STEEPEST` separates the two as far as asked.
    """
    from scipy.optimize import brentq  # takes longer to import than a fitted judge takes to judge

    def fitted(slope: float) -> Sigmoid:
        centre = float(np.mean(true_nats))
        reach = 1e3 + slope * float(np.ptp(true_nats))

        def excess(shift: float) -> float:
            return float(np.mean(_logistic(slope * (true_nats - centre) + shift)) - (config.ground_truth_score - 1) / 4)

        shift = brentq(excess, -reach, reach, xtol=1e-12)
        return Sigmoid(slope=slope, offset=shift - slope * centre, min_word_logprob=config.min_word_logprob)

    def surplus(slope: float) -> float:
        return float(np.mean(fitted(slope).score(shuffled_nats))) - config.shuffled_score

    if surplus(STEEPEST) > 0:
        raise CalibrationError(
            f"true continuations have {np.mean(true_nats):.2f} nats a word, shuffled ones {np.mean(shuffled_nats):.2f} "
            f"(AUC {auc(true_nats, shuffled_nats):.3f}): no sigmoid puts their mean scores at "
            f"{config.ground_truth_score} and {config.shuffled_score}. Bring calibration.ground_truth_score and "
            "calibration.shuffled_score closer, or fit the judge on more texts."
        )
    return fitted(brentq(surplus, 0.0, STEEPEST, xtol=1e-12))


def _by_spread(true_nats: Floats, config: Calibration) -> Sigmoid:
    """Fit the sigmoid to true continuations only, if shuffled ones are equally probable."""
    slope = 1 / max(float(np.std(true_nats)), 1 / STEEPEST)
    shift = math.log((config.ground_truth_score - 1) / (5 - config.ground_truth_score))
    offset = shift - slope * float(np.mean(true_nats))
    return Sigmoid(slope=slope, offset=offset, min_word_logprob=config.min_word_logprob)


def auc(positive: npt.ArrayLike, negative: npt.ArrayLike) -> float:
    """Return the probability that a random positive exceeds a random negative, ties counting half."""
    high, low = np.asarray(positive, np.float64), np.sort(np.asarray(negative, np.float64))
    below, not_above = (np.searchsorted(low, high, side=side).sum() for side in ("left", "right"))
    return float((below + not_above) / (2 * len(high) * len(low)))


def separation(
    true: Sequence[JudgeOutput], mismatched: Sequence[JudgeOutput], reordered: Sequence[JudgeOutput]
) -> dict[str, float]:
    """Return AUC of score and of perplexity, each if measured, and the standard deviation of the scores, for the log.

    True continuations against those of other prompts, and against their own words in another order: .5 is guessing.
    """
    figures: dict[str, float] = {}
    for name, label, sign in (("score", "auc", 1), ("ppl", "auc_ppl", -1)):
        sides = [
            [sign * value for one in side if (value := getattr(one, name)) is not None]
            for side in (true, mismatched, reordered)
        ]
        for negative, against in zip(sides[1:], ("shuffled", "shuffled_words"), strict=True):
            if sides[0] and negative:
                figures[f"{label}_true_vs_{against}"] = auc(sides[0], negative)
        if name == "score" and sides[0] and sides[1]:
            figures["score_spread"] = float(np.std(sides[0] + sides[1]))
    return figures


def try_judge(
    judge: Judge, texts: Sequence[JudgeInput], *, count: int, min_auc: float, min_digit_mass: float | None = None
) -> dict[str, float]:
    """Return `separation` on `count` texts, of a judge that is not fitted; with `min_digit_mass` also `digit_mass`.

    `digit_mass` is the mean total probability of the five digits as the judge's reply. Raises
    CalibrationError if it is below `min_digit_mass` or an AUC of the score not above `min_auc`, and warns if an AUC
    is below GUESSING.
    """
    some = first_texts(texts, count)
    if not some:
        return {}
    true, mismatched, others = (judge.judge(side) for side in (some, shuffled(some), reordered(some)))
    figures = separation(true, mismatched, others)
    if min_digit_mass is not None:
        masses = [json.loads(one.reply or "")["mass"] for one in [*true, *mismatched] if one.status == "ok"]
        figures["digit_mass"] = float(np.mean(masses)) if masses else 0.0
    require_judgement(figures, len(some), min_auc=min_auc, min_digit_mass=min_digit_mass or 0.0)
    return figures


def first_texts(texts: Sequence[JudgeInput], count: int) -> list[JudgeInput]:
    """Return the first `count` different texts with a continuation, by a hash."""
    known = {content_id(*story): story for story in texts if words(story.continuation)}
    return [known[key] for key in sorted(known)[:count]]


def reordered(stories: Sequence[JudgeInput]) -> list[JudgeInput]:
    """Put every continuation's words in the order of a hash; drop those that keep their order."""
    moved = []
    for story in stories:
        spoken = story.continuation.split()
        mixed = [word for _, word in sorted(enumerate(spoken), key=lambda placed: content_id("order", *placed))]
        if mixed != spoken:
            moved.append(JudgeInput(story.prompt, " ".join(mixed)))
    return moved


_AGAINST = {
    "auc_true_vs_shuffled": "those of other prompts",
    "auc_true_vs_shuffled_words": "their own words in another order",
}


def require_judgement(figures: dict[str, float], count: int, *, min_auc: float, min_digit_mass: float = 0.0) -> None:
    """Raise CalibrationError if `separation` on `count` texts is below the limits, and warn below GUESSING."""
    if figures.get("digit_mass", 1.0) < min_digit_mass:
        raise CalibrationError(
            f"this judge would not answer with a digit: 1 to 5 have {figures['digit_mass']:.3f} of the probability "
            f"in total, below min_digit_mass ({min_digit_mass:g}), so its scores mean little. Let the "
            "rubric show an example answer, as experiments/rubric/relevance-digit.txt does, let answer_prefix be what "
            "stands before the digit there, or choose another model. To accept this judge, set `min_digit_mass: 0` in "
            "its file."
        )
    found = {name: figures[name] for name in _AGAINST if name in figures}
    worst = min(found, key=lambda name: found[name], default=None)
    if worst is None or found[worst] >= GUESSING:
        return
    fact = (
        f"this judge's score hardly tells true continuations from {_AGAINST[worst]}: AUC {found[worst]:.2f} on {count} "
        "texts, where .5 is guessing."
    )
    ppl = min(
        (figures[f"auc_ppl{name.removeprefix('auc')}"] for name in found if "auc_ppl_true_vs_shuffled" in figures),
        default=0.0,
    )
    better = "Choose another rubric or model"
    if ppl >= GUESSING:
        better = f"Its perplexity does (AUC {ppl:.2f}): set weights.judge_score: 0 and weights.ppl: 1 in params.yaml"
    if min_auc > 0 and found[worst] <= min_auc:
        raise CalibrationError(f"{fact} {better}. To accept this judge, set `min_auc: 0` in its file.")
    print(f"warning: {fact} {better}.", flush=True)


def calibrate(model: WordModel, held_back: Sequence[JudgeInput], config: Calibration, folder: Path) -> dict[str, float]:
    """Calibrate a fitted model on stories it was not fitted on, into `folder`; return figures for the log.

    Stories without a continuation are left out.
    """
    told = [story for story in held_back if words(story.continuation)]
    true, foreign, mixed = (model.word_nats(side) for side in (told, shuffled(told), reordered(told)))
    true_means, foreign_means = (
        np.array([mean_clamped(nats, config.min_word_logprob) for nats in side]) for side in (true, foreign)
    )
    try:
        sigmoid = solve(true_means, foreign_means, config)
    except CalibrationError as error:
        sigmoid = _by_spread(true_means, config)
        print(
            f"warning: {error} Until then a score only says how probable the words are: "
            f"{config.ground_truth_score:g} as those of true texts, and about a point for each standard deviation.",
            flush=True,
        )
    write_text(folder / CALIBRATION_FILE, json.dumps(sigmoid.model_dump(), indent=1, sort_keys=True) + "\n")
    flat = [nats for story in true for nats in story]
    judged = ([sigmoid.judgement(nats) for nats in side] for side in (true, foreign, mixed))
    return {
        "held_back_stories": float(len(true)),
        **separation(*judged),
        "ground_truth_score": float(np.mean(sigmoid.score(true_means))),
        "shuffled_score": float(np.mean(sigmoid.score(foreign_means))),
        "true_ppl": math.exp(-math.fsum(flat) / len(flat)),
        "slope_per_nat": sigmoid.slope,
        "offset": sigmoid.offset,
    }
