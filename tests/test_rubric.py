"""Rubrics filled once and safely, ratings read out of replies, and what a judge lacks before it runs."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from alignslm.cli.checking import checked
from alignslm.config.loading import load_experiment
from alignslm.config.problems import ConfigError
from alignslm.config.rubrics import Rubric, RubricError
from alignslm.judge import JudgeOutput
from alignslm.judge.replies import Reply, aggregate_replies, parse_rating
from tests.messages import names
from tests.sample_experiment import edit, write_experiment

ROOT = Path(__file__).parent.parent
RUBRIC = Rubric.parse("Before: {prompt}\nAfter: {continuation}\n\\boxed{rating}", where="here")
BOXED = "\\boxed{"
TEXTS = st.text(alphabet="ab {}\\1promtcniu", max_size=30)


@given(TEXTS, TEXTS)
@example("{continuation}", "{prompt}")
@example("{prompt} {continuation}", "\\1 \\g<0> {0} {} {{prompt}}")
def test_transcripts_stand_in_the_question_as_they_are(prompt, continuation):  # G6
    assert RUBRIC.fill(prompt, continuation) == f"Before: {prompt}\nAfter: {continuation}\n\\boxed{{rating}}"


def test_placeholders_may_stand_in_either_order():
    assert Rubric.parse("{continuation}<{prompt}", where="here").fill("p", "c") == "c<p"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("nothing", "{prompt} 0 times and {continuation} 0 times"),
        ("{prompt}{prompt}{continuation}", "{prompt} 2 times and {continuation} 1 times"),
        ("{prompt} {Continuation}", "{prompt} 1 times and {continuation} 0 times"),
    ],
)
def test_a_rubric_holds_each_placeholder_once(text, found):
    with pytest.raises(RubricError) as raised:
        Rubric.parse(text, where="mine.txt")
    names(raised.value, "mine.txt", found, "transcript")


def test_the_repositorys_rubrics_are_valid_and_any_file_can_be_dropped_in(tmp_path):
    shipped = sorted(path.stem for path in (ROOT / "experiments/rubric").glob("*.txt"))
    assert shipped == ["relevance", "relevance-digit"]
    for name in shipped:
        rubric = Rubric.read(name, ROOT)
        assert "a (b)" in rubric.fill("a (b)", "c")
        # Whisper writes `text: raw` with both, and a corpus may have either form: a rubric may not deny them.
        assert not re.search(r"neither[^.]*(punctuation|capital)", rubric.text, re.IGNORECASE)
    digit = Rubric.read("relevance-digit", ROOT)  # of `\\boxed{rating}`, a small model writes the word
    assert re.findall(r"\\boxed\{(.*?)\}", digit.text) == ["4"]
    (tmp_path / "experiments/rubric").mkdir(parents=True)
    (tmp_path / "experiments/rubric/mine.txt").write_text("{prompt}|{continuation}")
    assert Rubric.read("mine", tmp_path).fill("é", "2") == "é|2"
    with pytest.raises(RubricError) as raised:
        Rubric.read("mnie", tmp_path)
    names(raised.value, "'mine'", f"{tmp_path}/experiments/rubric/mnie.txt")


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("It fits.\n\\boxed{4}", 4),
        ("\\boxed{ 5 }", 5),
        ("\\boxed{**3**}", 3),
        ("\\boxed{4.0}", 4),
        ("\\boxed{4/5}", 4),
        ("first \\boxed{2}, on reflection \\boxed{3}", 3),
        ("\\boxed{rating} is \\boxed{1}", 1),
        ("\\boxed{10}", None),
        ("\\boxed{0}", None),
        ("\\boxed{-4}", None),
        ("\\boxed{3.5}", None),
        ("\\boxed{3-4}", None),
        ("\\boxed{2} no, \\boxed{6}", None),
        ("\\boxed{four}", None),
        ("I would say 4", None),
        ("boxed{4}", None),
        ("", None),
        ("\\boxed{4 / 5}", 4),
        ("\\boxed{4 out of 5}", 4),
        ("\\boxed{4 (likely)}", 4),
        ("\\boxed{$4$}", 4),
        ("\\boxed{4", 4),  # ended at the bracket, as with a stop sequence
        ("\\boxed{4 / 10}", None),
        ("\\boxed{4 out of 10}", None),
        ("\\boxed{4 of ten}", None),
        ("\\boxed{4 or 5}", None),
        ("\\boxed{4 or five}", None),
        ("\\boxed{3, 4}", None),
        ("\\boxed{3|4}", None),
        ("\\boxed{1 to 5}", None),
        ("\\boxed{4\N{EN DASH}5}", None),
        ("\\boxed{between 3 and 4}", None),
        ("\\boxed{4 or higher}", None),
        ("\\boxed{<4}", None),
        ("\\boxed{4%}", None),
        ("\\boxed{2} hm \\boxed{3 or 4}", None),
        ("<think>At first \\boxed{2} would do, but", None),
        ("<think>At first \\boxed{2} would do.</think>\\boxed{4}", 4),
        ("At first \\boxed{2} would do.</think> \\boxed{4}", 4),
        ("<think>\\boxed{2}</think> I cannot say.", None),
        ("[THINK]\\boxed{2} or [/THINK]\\boxed{1}", 1),
        ("<Reasoning>\\boxed{2}", None),
    ],
)
def test_ratings_in_replies(reply, expected):  # G5
    assert parse_rating(reply, answer_prefix=BOXED) == expected


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("Rating: 4", 4),
        ("Rating: **4**, as it fits.", 4),
        ("Rating:\n4 because 3 things match", 4),
        ("Rating: 4/5.", 4),
        ("Rating: 4. 3 people walk.", 4),
        ("Rating: 4 out of five", 4),
        ("Rating: 4 or 5", None),
        ("Rating: 4-5", None),
        ("Rating: 4, 5", None),
        ("Rating: 4 / 10", None),
        ("Rating: 4 (out of 10)", None),
        ("Rating: 4 out of ten", None),
        ("Rating: 4 to five", None),
        ("Rating: 4th", None),
        ("Rating: 4%", None),
        ("Rating: 3.5", None),
    ],
)
def test_ratings_that_no_bracket_ends(reply, expected):
    assert parse_rating(reply, answer_prefix="Rating:") == expected


def test_the_answer_prefix_is_plain_text():
    assert parse_rating("**Score:** 4", answer_prefix="Score:") == 4
    assert parse_rating("(score) 2 (score). 3", answer_prefix="(score).") == 3


def test_replies_become_rows_never_a_gap():  # G1
    def of(*replies):
        return aggregate_replies(list(replies), answer_prefix=BOXED, ppl=2.0)

    good, bad = Reply("yes \\boxed{4}"), Reply("well ...")
    assert of(good) == JudgeOutput(4.0, 2.0, "ok", "yes \\boxed{4}")
    assert of(bad) == JudgeOutput(None, 2.0, "failed", "well ...")
    assert of(Reply("")) == JudgeOutput(None, 2.0, "failed", "")
    assert of(Reply("I can't rate that. \\boxed{1}", "failed")).status == "failed"
    several = of(good, bad, Reply("\\boxed{1}"))
    assert (several.score, several.status) == (2.5, "ok")
    votes = {"votes": ["yes \\boxed{4}", "well ...", "\\boxed{1}"], "ratings": [4, None, 1], "rated": 2}
    assert json.loads(several.reply) == votes
    assert of(bad, bad).status == "failed"
    assert of(Reply("\\boxed{4} but", "truncated")) == JudgeOutput(None, 2.0, "truncated", "\\boxed{4} but")
    assert of(Reply("<think>\\boxed{4} but")).status == "truncated"
    assert of(bad, Reply("so", "truncated")).status == "truncated"
    assert of(good, Reply("so", "truncated")).score == 4.0
    assert json.loads(of(bad, bad).reply)["rated"] == 0


# What is looked for before anything runs

OPENAI = (ROOT / "experiments/judge/gpt4o.yaml").read_text()


@pytest.fixture
def asking(tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    root = write_experiment(tmp_path)
    (root / "experiments/judge/gpt4o.yaml").write_text(OPENAI)
    (root / "experiments/rubric").mkdir()
    (root / "experiments/rubric/relevance.txt").write_text("{prompt}{continuation}")
    edit(root / "params.yaml", ("judge: story          # trains", "judge: gpt4o"))
    return root


def test_check_passes_with_the_key(asking, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    assert checked(asking, everything=False).judge.kind == "openai"


@pytest.mark.parametrize("value", [None, "", "  "])
def test_check_names_the_variable_and_every_other_lack(asking, monkeypatch, value):
    if value is not None:
        monkeypatch.setenv("OPENAI_API_KEY", value)
    (asking / "experiments/rubric/relevance.txt").write_text("{prompt}")
    with pytest.raises(ConfigError) as raised:
        checked(asking, everything=False)
    file = f"{asking}/experiments/judge/gpt4o.yaml"
    first, second = str(raised.value).splitlines()
    names(
        first,
        "gpt-4o-2024-11-20",
        f"{file}:6",
        "api_key_env",
        "https://api.openai.com/v1",
        "OPENAI_API_KEY=",
        "params.yaml",
    )
    assert re.match(re.escape(f"{file}:7: rubric: {asking}/experiments/rubric/relevance.txt has"), second)


def test_perplexity_that_nobody_measures_is_a_conflict(asking):
    edit(asking / "params.yaml", ("  ppl: 0.0", "  ppl: 1.0"))
    with pytest.raises(ConfigError) as raised:
        load_experiment(asking)
    names(raised.value, "weights.ppl", "gpt4o", "perplexity", "0", "mistral-7b")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "votes: 1",
            "votes: 3",
            ("decoding.num_votes", "3", "temperature", "0"),
        ),
        ("budget:", "bugdet:", ("bugdet",)),
    ],
)
def test_settings_that_cannot_be_meant(asking, old, new, message):
    edit(asking / "experiments/judge/gpt4o.yaml", (old, new))
    with pytest.raises(ConfigError) as raised:
        load_experiment(asking)
    names(raised.value, *message)
