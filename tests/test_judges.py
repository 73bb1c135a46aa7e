"""Text judges: the tilted n-gram against its definition, the story LM, and what both must tell apart."""

import math
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alignslm.config.calibration import Calibration
from alignslm.config.feedback import NgramJudgeConfig, StoryLMJudgeConfig
from alignslm.judge import JudgeInput, load_judge, prepare_judge, story_lm
from alignslm.judge.calibration import auc
from alignslm.judge.ngram import START, UNKNOWN, PromptTilt, Vocabulary, WordNgrams, tilted
from alignslm.provenance import tree_sha256
from alignslm.storyworld.grammar import PRONOUNS, draw_plot, draw_story, realize_story

CALIBRATION = Calibration(min_word_logprob=-6.0, ground_truth_score=4.0, shuffled_score=2.0)
NGRAM = NgramJudgeConfig(kind="ngram", order=4, discount=0.75, calibration=CALIBRATION)
STORY_LM = StoryLMJudgeConfig(
    kind="story-lm",
    seed=0,
    hidden_size=128,
    layers=1,
    steps=600,
    batch_size=32,
    learning_rate=0.01,
    word_dropout=0.02,
    calibration=CALIBRATION,
)
QUICK_LM = STORY_LM.model_copy(update={"steps": 60, "hidden_size": 32})
JUDGES = [pytest.param(NGRAM, id="ngram"), pytest.param(STORY_LM, id="story-lm")]


FOLDER = TemporaryDirectory()  # of what is prepared once for all tests of this module


@cache
def texts(count=1200):
    rng = np.random.default_rng(0)
    stories = [draw_story(rng, part="train") for _ in range(count)]
    return [JudgeInput(story.prompt, story.continuation_text) for story in stories]


@cache
def fitted(config):
    folder = Path(mkdtemp(dir=FOLDER.name))
    figures = prepare_judge(config, texts(), folder, device="cpu")
    return load_judge(config, folder, device="cpu"), figures, folder


@cache
def endings(count=120):
    """Unseen prompts, each with its true ending, another topic's, and its own with another pronoun."""
    rng = np.random.default_rng(1)
    found = {"true": [], "topic": [], "pronoun": []}
    for _ in range(count):
        scene = draw_story(rng, part="test").scene
        other = draw_story(rng, part="test").scene
        while other.topic == scene.topic:
            other = draw_story(rng, part="test").scene
        plot, pronoun = draw_plot(scene.topic, rng), rng.choice([p for p in PRONOUNS if p != scene.pronoun])
        found["true"].append(JudgeInput(scene.prompt, realize_story(scene, plot).continuation_text))
        found["topic"].append(
            JudgeInput(scene.prompt, realize_story(scene, draw_plot(other.topic, rng)).continuation_text)
        )
        found["pronoun"].append(
            JudgeInput(scene.prompt, realize_story(scene._replace(pronoun=str(pronoun)), plot).continuation_text)
        )
    return found


def scores(judge, stories):
    return [judgement.score for judgement in judge.judge(stories)]


# n-gram

SENTENCES = st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=6), min_size=1, max_size=6)


def slow_probability(word, history, sentences, *, order, discount, size):
    """Interpolated absolute discounting by counting anew for every history."""
    lower = (
        slow_probability(word, history[1:], sentences, order=order, discount=discount, size=size)
        if history
        else 1 / size
    )
    padded = [[START] * (order - 1) + sentence for sentence in sentences]
    after = [s[i] for s in padded for i in range(order - 1, len(s)) if tuple(s[i - len(history) : i]) == tuple(history)]
    if not after:
        return lower
    return (max(after.count(word) - discount, 0) + discount * len(set(after)) * lower) / len(after)


@settings(max_examples=40, deadline=None)
@given(SENTENCES, st.lists(st.integers(0, 4), min_size=1, max_size=4), st.integers(1, 3), st.sampled_from([0.1, 0.75]))
def test_ngram_equals_its_definition(sentences, text, order, discount):
    ngrams = WordNgrams.fit(sentences, size=5, order=order, discount=discount)
    context, continuation = text[:1], text[1:]
    found = ngrams.along(context, continuation)
    for at, row in enumerate(found, 1):
        history = tuple(([START] * (order - 1) + text)[at : at + order - 1])
        expected = [slow_probability(w, history, sentences, order=order, discount=discount, size=5) for w in range(5)]
        assert row.tolist() == pytest.approx(expected)
        assert row.sum() == pytest.approx(1)
        assert row[UNKNOWN] > 0


def test_association_by_hand():
    stories = [([1], [3]), ([1], [3]), ([2], [4]), ([2], [3, 4])]
    found = PromptTilt.fit(stories, size=6).association(1.0)
    assert found[1, 3] == pytest.approx(math.log((2 + 0.75) / (2 + 1) / 0.75))
    assert found[1, 4] == pytest.approx(math.log((0 + 0.5) / (2 + 1) / 0.5))
    assert found[:, 5].tolist() == [0] * 6  # never seen in a continuation
    assert found[5, 3] == pytest.approx(0)  # never seen in a prompt: no evidence


def test_tilt_multiplies_and_normalises():
    plain = np.array([[0.5, 0.25, 0.25]])
    assert tilted(plain, np.log([1.0, 2.0, 1.0])).tolist() == [pytest.approx([0.4, 0.4, 0.2])]
    assert tilted(plain, np.zeros(3)).tolist() == plain.tolist()


def test_vocabulary_numbers_words_and_leaves_0_for_the_rest():
    assert Vocabulary(["a", "b"]).encode("B what A") == [2, UNKNOWN, 1]
    assert Vocabulary([]).encode(None) == []


def test_ngram_judge_is_the_tilted_ngram():
    judge, figures, _ = fitted(NGRAM)
    model = judge.model
    story = endings()["true"][0]
    prompt, continuation = model.vocabulary.encode(story.prompt), model.vocabulary.encode(story.continuation)
    association = model.tilt.association(figures["tilt_shrinkage"])
    tilt = figures["tilt_strength"] * sum(association[word] for word in set(prompt))
    expected = []
    for at, word in enumerate(continuation):
        weighted = model.ngrams.distribution((*prompt, *continuation[:at])) * np.exp(tilt)
        expected.append(math.log(weighted[word] / weighted.sum()))
    assert model.word_nats([story])[0] == pytest.approx(expected)


# story LM


def test_story_lm_scores_are_the_models_log_probabilities():
    judge = fitted(STORY_LM)[0].model
    story = JudgeInput(endings()["true"][0].prompt, endings()["true"][0].continuation + " gibberish")
    prompt, continuation = (
        [story_lm.BOS, *judge.vocabulary.encode(story.prompt)],
        judge.vocabulary.encode(story.continuation),
    )
    with torch.inference_mode():
        logits = judge.model(torch.tensor([prompt + continuation]))[0].double()
    nats = logits.log_softmax(-1)[len(prompt) - 1 : -1].gather(-1, torch.tensor(continuation)[:, None])[:, 0]
    nats[-1] -= math.log(len(judge.vocabulary.known))  # one unknown word among as many as are known
    assert judge.word_nats([story])[0] == pytest.approx(nats.tolist(), abs=1e-4)


def test_every_forward_pass_has_the_same_number_of_rows_and_one_length():
    judge, shapes = fitted(STORY_LM)[0].model, []
    hook = judge.model.register_forward_pre_hook(lambda _, given: shapes.append(tuple(given[0].shape)))
    stories = endings()["true"][:70]
    judge.word_nats(stories)
    hook.remove()
    lengths = {1 + len(f"{story.prompt} {story.continuation}".split()) for story in stories}
    assert {rows for rows, _ in shapes} == {story_lm.ROWS}
    assert {length for _, length in shapes} == lengths


def test_fitting_gives_the_callers_threads_back(tmp_path):
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    story_lm.fit(QUICK_LM.model_copy(update={"calibration": loose(0.01)}), texts(600), tmp_path)
    found = torch.get_num_threads()
    torch.set_num_threads(before)
    assert found == 3


def test_padding_is_neither_seen_nor_predicted():
    model = fitted(STORY_LM)[0].model.model
    sequences = [[1, 9, 8, 2], [1, 7, 6, 5, 10, 11, 2]]
    tokens, labels = story_lm._batch(sequences, 1e-9, torch.Generator().manual_seed(0))
    assert tokens.tolist() == [[1, 9, 8, 2, 0, 0, 0], [1, 7, 6, 5, 10, 11, 2]]
    assert labels[0].tolist() == [1, 9, 8, 2, -100, -100, -100]
    with torch.inference_mode():
        padded, alone = model(tokens)[0, :4], model(torch.tensor(sequences[:1]))[0]
    torch.testing.assert_close(padded, alone)


def test_hidden_words_are_read_and_predicted_as_unknown_but_specials_stay():
    tokens, labels = story_lm._batch([[1, 9, 8, 7, 2]] * 400, 0.25, torch.Generator().manual_seed(0))
    assert torch.equal(tokens, labels)
    assert (tokens[:, 0] == story_lm.BOS).all()
    assert (tokens[:, -1] == story_lm.EOS).all()
    assert 0.2 < (tokens[:, 1:4] == story_lm.UNKNOWN).float().mean() < 0.3


def test_fitting_leaves_the_global_generator_alone(tmp_path):
    before = torch.get_rng_state()
    story_lm.fit(QUICK_LM.model_copy(update={"calibration": loose(0.01)}), texts(600), tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


# Both


def loose(gap):
    return Calibration(min_word_logprob=-6.0, ground_truth_score=3 + gap, shuffled_score=3 - gap)


@pytest.mark.parametrize("config", JUDGES)
def test_other_topics_and_wrong_pronouns_score_lower(config):
    judge, figures, _ = fitted(config)
    true = scores(judge, endings()["true"])
    assert auc(true, scores(judge, endings()["topic"])) > 0.99
    assert auc(true, scores(judge, endings()["pronoun"])) > 0.9
    assert figures["auc_true_vs_shuffled"] > 0.97
    assert figures["ground_truth_score"] == pytest.approx(4.0)
    assert figures["shuffled_score"] == pytest.approx(2.0)


@pytest.mark.parametrize("config", JUDGES)
def test_a_judgement_does_not_depend_on_its_company(config):
    judge = fitted(config)[0]
    stories = [story for kind in endings().values() for story in kind[:40]]
    together = judge.judge(stories)
    assert [judge.judge([story])[0] for story in stories] == together
    assert judge.judge(stories[::-1]) == together[::-1]


@pytest.mark.parametrize("config", JUDGES)
def test_nothing_said_is_empty_not_scored(config):
    prompt = texts()[0].prompt
    for nothing in ("", "  ", None):
        assert fitted(config)[0].judge([JudgeInput(prompt, nothing)]) == [(None, None, "empty", None)]
    assert fitted(config)[0].judge([]) == []


@pytest.mark.parametrize("config", JUDGES)
def test_unknown_words_are_finite_and_dear(config):
    judge = fitted(config)[0]
    true = endings()["true"][0]
    heard = true.continuation.split()
    misheard = JudgeInput(true.prompt, " ".join([*heard[:-1], "qzx"]))
    gibberish, spoken, odd, promptless = judge.judge(
        [JudgeInput("who what", "qzx xzq qqq"), true, misheard, JudgeInput("", "he")]
    )
    assert all(math.isfinite(found.ppl) and 1 <= found.score <= 5 for found in (gibberish, spoken, odd, promptless))
    assert gibberish.score < odd.score < spoken.score
    assert gibberish.score < 1.5
    assert gibberish.ppl > odd.ppl > spoken.ppl


@pytest.mark.parametrize("config", [pytest.param(NGRAM, id="ngram"), pytest.param(QUICK_LM, id="story-lm")])
def test_equal_texts_give_equal_files_in_any_order(config, tmp_path):
    config = config.model_copy(update={"calibration": loose(0.01)})
    some = texts(600)
    first = prepare_judge(config, some, tmp_path / "a" / "judge", device="cpu")
    second = prepare_judge(config, [*some[::-1], *some[:9]], tmp_path / "b" / "judge", device="cpu")
    assert first == second
    assert tree_sha256([tmp_path / "a" / "judge"]) == tree_sha256([tmp_path / "b" / "judge"])
    assert not list(tmp_path.rglob("*.bin")) + list(tmp_path.rglob("*.pt"))


@pytest.mark.parametrize("config", JUDGES)
def test_loading_gives_the_judge_that_was_fitted(config):
    judge, _, folder = fitted(config)
    assert load_judge(config, folder, device="cpu").judge(endings()["true"]) == judge.judge(endings()["true"])
