"""Calibration of judges: both means hold, held-back stories are foreign to the fit, refusals say why."""

import json
import math
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignslm.config.calibration import Calibration
from alignslm.judge import JudgeInput, JudgeOutput
from alignslm.judge.calibration import (
    CalibrationError,
    Sigmoid,
    auc,
    calibrate,
    mean_clamped,
    reordered,
    shuffled,
    solve,
    split_heldout,
    try_judge,
)
from alignslm.provenance import content_id
from tests.messages import names

CALIBRATION = Calibration(min_word_logprob=-6.0, ground_truth_score=4.0, shuffled_score=2.0)
TEXTS = [JudgeInput(f"he saw {number}", f"then he took {number // 2}") for number in range(600)]


@given(st.lists(st.integers(0, 4), min_size=1, max_size=8), st.lists(st.integers(0, 4), min_size=1, max_size=8))
def test_auc_equals_the_share_of_won_pairs(positive, negative):
    won = [(p > n) + (p == n) / 2 for p in positive for n in negative]
    assert auc(positive, negative) == pytest.approx(sum(won) / len(won))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.3, 8), st.floats(0.05, 2), st.floats(3.1, 4.6), st.floats(1.4, 2.9))
def test_both_means_hold_after_solving(seed, distance, spread, ground_truth_score, shuffled_score):
    rng = np.random.default_rng(seed)
    true, foreign = rng.normal(-1, spread, 200), rng.normal(-1 - distance - 3 * spread, spread, 150)
    wanted = Calibration(min_word_logprob=-6, ground_truth_score=ground_truth_score, shuffled_score=shuffled_score)
    sigmoid = solve(true, foreign, wanted)
    assert sigmoid.slope > 0
    assert float(sigmoid.score(true).mean()) == pytest.approx(ground_truth_score, abs=1e-6)
    assert float(sigmoid.score(foreign).mean()) == pytest.approx(shuffled_score, abs=1e-6)


def test_a_judge_that_cannot_tell_is_refused():
    alike = np.linspace(-3, -1, 50)
    with pytest.raises(CalibrationError) as raised:
        solve(alike, alike, CALIBRATION)
    names(
        raised.value, "-2.00", "AUC 0.500", "4.0", "2.0", "calibration.ground_truth_score", "calibration.shuffled_score"
    )


def test_judgement_by_hand():
    sigmoid = Sigmoid(slope=2.0, offset=4.0, min_word_logprob=-6.0)
    judgement = sigmoid.judgement([-1.0, -20.0])  # clamped mean -3.5, so 1 + 4 / (1 + e^3); true mean -10.5
    assert judgement.score == pytest.approx(1 + 4 / (1 + math.exp(3)))
    assert judgement.ppl == pytest.approx(math.exp(10.5))
    assert sigmoid.judgement([]) == (None, None, "empty", None)
    assert mean_clamped([-1.0, -20.0], -6.0) == -3.5


def test_held_back_stories_depend_on_texts_not_on_their_order_or_number():
    some = TEXTS[:400]
    fit, held_back = split_heldout(some)
    assert split_heldout([*some[::-1], *some[:50]]) == (fit, held_back)
    assert not set(fit) & set(held_back)
    assert set(fit) | set(held_back) == set(some)
    assert 0.05 < len(held_back) / len(set(some)) < 0.15


def test_too_few_stories_are_refused():
    with pytest.raises(CalibrationError) as raised:
        split_heldout(TEXTS[:30])
    names(raised.value, "30", "40")


def test_shuffling_gives_everybody_a_foreign_ending():
    stories = [JudgeInput(f"prompt {i}", f"ending {i % 3}") for i in range(30)]
    foreign = shuffled(stories)
    own = {story.prompt: story.continuation for story in stories}
    assert foreign == shuffled(stories[::-1])
    assert all(own[story.prompt] != story.continuation for story in foreign)
    assert 10 <= len(foreign) < 30  # those that would have got their own words back are left out


class _Knows:
    """A judge that knows some of its texts: score 4 for a continuation that follows its prompt's number, else 2."""

    def __init__(self, known):
        self.known = known

    def judge(self, stories):
        right = [s.continuation == TEXTS[int(s.prompt.split()[-1])].continuation for s in stories]
        known = [int(s.prompt.split()[-1]) < self.known for s in stories]
        return [
            JudgeOutput(4.0 if ok and k else 2.0, 10.0 if ok else 20.0, "ok", None)
            for ok, k in zip(right, known, strict=True)
        ]


def tried(judge, **limits):
    return try_judge(judge, TEXTS, count=20, **{"min_auc": 0.5, **limits})


def test_a_judge_that_knows_is_accepted_without_a_word(capsys):
    assert tried(_Knows(600)) == {
        "auc_true_vs_shuffled": 1.0,
        "auc_true_vs_shuffled_words": 1.0,
        "auc_ppl_true_vs_shuffled": 1.0,
        "auc_ppl_true_vs_shuffled_words": 1.0,
        "score_spread": 1.0,
    }
    assert capsys.readouterr().out == ""
    assert try_judge(_Knows(0), [], count=20, min_auc=0.5) == {}
    assert try_judge(_Knows(0), TEXTS, count=0, min_auc=0.5) == {}


def test_a_judge_that_guesses_is_refused_and_the_better_metric_named(capsys):
    with pytest.raises(CalibrationError) as raised:
        tried(_Knows(0))  # always 2
    names(raised.value, "0.50", "20 texts", "1.00", "weights.judge_score: 0", "weights.ppl: 1", "min_auc: 0")
    assert tried(_Knows(0), min_auc=0)["auc_true_vs_shuffled"] == 0.5
    names(capsys.readouterr().out, "warning", "0.50", "weights.ppl: 1")


class _Ranks:
    """A judge without perplexity: a hash of the text is its score, and 1 is added to a share of the true ones."""

    def __init__(self, better, mass=1.0):
        self.better, self.mass = better, mass

    def judge(self, stories):
        reply = json.dumps({"mass": self.mass})
        return [JudgeOutput(self.score(story), None, "ok", reply) for story in stories]

    def score(self, story):
        true = story.continuation == TEXTS[int(story.prompt.split()[-1])].continuation
        place = int(content_id(*story), 16) % 1000 / 1000
        return 1 + place + (true and place < self.better)


@pytest.mark.parametrize("better", [0.0, 0.2, 1.0])
def test_auc_and_spread_are_those_of_the_definition(better):
    judge = _Ranks(better)
    some = sorted(set(TEXTS), key=lambda story: content_id(*story))[:20]
    sides = [[judge.score(story) for story in side] for side in (some, shuffled(some), reordered(some))]
    figures = tried(judge, min_auc=0)
    for side, name in ((sides[1], "shuffled"), (sides[2], "shuffled_words")):
        won = [(a > b) + (a == b) / 2 for a in sides[0] for b in side]
        assert figures[f"auc_true_vs_{name}"] == pytest.approx(sum(won) / len(won))
    assert figures["score_spread"] == pytest.approx(statistics.pstdev(sides[0] + sides[1]))
    assert set(figures) == {"auc_true_vs_shuffled", "auc_true_vs_shuffled_words", "score_spread"}


def test_between_guessing_and_telling_a_judge_is_warned_of(capsys):
    """Either AUC decides, and a limit of one's own."""
    figures = tried(_Ranks(0.2))
    lower = min(figures["auc_true_vs_shuffled"], figures["auc_true_vs_shuffled_words"])
    assert 0.5 < lower < 0.65
    said = capsys.readouterr().out
    names(said, "warning", f"AUC {lower:.2f}")
    assert "weights.ppl" not in said
    with pytest.raises(CalibrationError) as raised:
        tried(_Ranks(0.2), min_auc=lower)
    names(raised.value, f"AUC {lower:.2f}", "rubric", "min_auc: 0")


def test_a_judge_that_would_not_write_a_digit_is_refused():
    assert tried(_Ranks(1.0, mass=0.1), min_digit_mass=0.1)["digit_mass"] == pytest.approx(0.1)
    with pytest.raises(CalibrationError) as raised:
        tried(_Ranks(1.0, mass=0.05), min_digit_mass=0.1)
    names(raised.value, "0.050", "min_digit_mass (0.1)", "relevance-digit.txt", "answer_prefix", "min_digit_mass: 0")
    assert tried(_Ranks(1.0, mass=0.05), min_digit_mass=0)["digit_mass"] == pytest.approx(0.05)


@given(st.lists(st.sampled_from(["a", "b", "c"]), max_size=8).map(" ".join))
def test_reordered_words_are_the_same_words(text):
    moved = reordered([JudgeInput("p", text)])
    assert [story.continuation for story in reordered([JudgeInput("q", text)])] == [one.continuation for one in moved]
    for story in moved:
        assert sorted(story.continuation.split()) == sorted(text.split())
        assert story.continuation.split() != text.split()
    assert reordered([JudgeInput("p", "one"), JudgeInput("p", "")]) == []
    assert len(reordered([JudgeInput("p", "one two three four five six seven")])) == 1


@pytest.mark.parametrize("count", [40, 41, 150])
def test_of_few_stories_twenty_are_held_back(count):
    fit, held_back = split_heldout(TEXTS[:count])
    assert len(held_back) == 20
    assert len(fit) == count - 20


def test_a_judge_that_cannot_separate_scores_by_the_spread_of_true_texts(tmp_path, capsys):
    class Alike:
        def word_nats(self, stories):
            return [[-1.0 - (len(story.prompt) % 2)] for story in stories]

    stories = [JudgeInput("p" * (3 + i % 2), f"ending {i}") for i in range(40)]
    calibration = Calibration(min_word_logprob=-6.0, ground_truth_score=3.4, shuffled_score=2.6)
    figures = calibrate(Alike(), stories, calibration, tmp_path)
    sigmoid = Sigmoid.model_validate_json((tmp_path / "calibration.json").read_text())
    assert figures["auc_true_vs_shuffled"] == pytest.approx(0.5, abs=0.1)
    assert sigmoid.score(-1.5) == pytest.approx(3.4)  # the mean of true texts
    logit = math.log(2.4 / 1.6)
    assert sigmoid.score(-1.0) == pytest.approx(1 + 4 / (1 + math.exp(-(logit + 1))))  # one standard deviation, 0.5
    assert "warning" in capsys.readouterr().out
