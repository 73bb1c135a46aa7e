"""The openai judge against a failing server on loopback, and against `transformers serve` as it is."""

import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from pydantic import TypeAdapter, ValidationError

from alignslm import tables
from alignslm.config.feedback import JudgeConfig
from alignslm.engine.work import lazy
from alignslm.judge import JudgeInput, api_client, load_judge, prepare_judge
from alignslm.judge.api_client import JudgeAPIError, backoff_s, retry_after_s
from alignslm.judge.api_reply import read_reply
from alignslm.judge.openai_api import MissingKeyError
from alignslm.judge.reply_store import Answer, BudgetError, ReplyStore, store_folder
from alignslm.judge.rows import CachedJudge, UnscoredError, score
from alignslm.provenance import tree_sha256
from tests.chat_server import Response, completion, failure, serving, transformers_serve
from tests.messages import names
from tests.tiny_judge import write_judge

ROOT = Path(__file__).parent.parent
KEY = "ALIGNSLM_TEST_KEY"
PROBED = 1  # requests that preparing sends
STORIES = [JudgeInput("tom walks", f"he finds shell number {number}") for number in range(6)]


@pytest.fixture(autouse=True)
def _place(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGNSLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv(KEY, "sk-secret")
    monkeypatch.setattr(api_client, "FIRST_WAIT_S", 0.01)


def config(url, **changes):
    raw = {
        "kind": "openai",
        "base_url": url,
        "model": "tiny",
        "api_key_env": KEY,
        "rubric": "relevance",
        "answer_prefix": "\\boxed{",
        "decoding": {"temperature": 0.5, "max_tokens": 20, "num_votes": 1, "seed": 3},
        "max_tokens_field": "max_tokens",
        "budget": {"requests": 100, "tokens": 100000},
        "concurrency": 3,
        "timeout_s": 30,
        "max_attempts": 3,
    }
    return TypeAdapter(JudgeConfig).validate_python(raw | changes)


def judge(chosen, folder):
    if not (folder / "judge").exists():
        prepare_judge(chosen, [], folder / "judge", device="cpu", root=ROOT)
    return load_judge(chosen, folder / "judge", device="cpu")


def number_in(question):
    """Which of STORIES a question is about; -1 for the probe."""
    return next((at for at, story in enumerate(STORIES) if story.continuation in question), -1)


def by_number(question, before, body):
    return completion(f"Fine. \\boxed{{{max(1, number_in(question))}}}")


def scores(judgements):
    return [(item.score, item.status) for item in judgements]


RIGHT = [(float(max(1, at)), "ok") for at in range(6)]


def test_what_is_sent_and_what_comes_back(tmp_path):
    with serving(by_number) as server:
        found = judge(config(server.url), tmp_path).judge(STORIES)
    assert scores(found) == RIGHT
    assert found[2] == (2.0, None, "ok", "Fine. \\boxed{2}")
    assert server.keys == {"Bearer sk-secret"}
    body = server.seen[-1]
    text = (ROOT / "experiments/rubric/relevance.txt").read_text()
    at = number_in(body["messages"][0]["content"])
    question = text.replace("{continuation}", STORIES[at].continuation).replace("{prompt}", "tom walks")
    assert body == {
        "model": "tiny",
        "messages": [{"role": "user", "content": question}],
        "temperature": 0.5,
        "seed": 3,
        "max_tokens": 20,
        "path": "/v1/chat/completions",
    }
    assert server.most_at_once <= 3


def test_the_limit_has_the_name_the_server_knows(tmp_path):
    with serving(by_number) as server:
        judge(config(server.url, max_tokens_field="max_completion_tokens"), tmp_path)
    assert server.seen[0]["max_completion_tokens"] == 20
    assert "max_tokens" not in server.seen[0]


def test_requests_run_side_by_side_up_to_the_bound(tmp_path):
    with serving(lambda *_: Response(completion("\\boxed{3}").body, delay_s=1.0)) as server:
        asked = judge(config(server.url, concurrency=6), tmp_path)
        asked.judge(STORIES)
    assert server.most_at_once == 6


def test_nothing_is_asked_twice(tmp_path):
    with serving(by_number) as server:
        first = judge(config(server.url), tmp_path).judge([*STORIES, *STORIES[:2], JudgeInput("tom walks", " ")])
        assert len(server.seen) == PROBED + len(STORIES)
        again = judge(config(server.url), tmp_path)
        assert again.judge([*STORIES, *STORIES[:2], JudgeInput("tom walks", " ")]) == first
        assert first[-1] == (None, None, "empty", None)
        assert judge(config(server.url, concurrency=1, timeout_s=9), tmp_path).judge(STORIES[3:]) == first[3:6]
        assert len(server.seen) == PROBED + len(STORIES)
        hotter = {"temperature": 0.6, "max_tokens": 20, "num_votes": 1, "seed": 3}
        for changes in ({"model": "other"}, {"decoding": hotter}, {"rubric": "relevance-digit"}):
            before = len(server.seen)
            judge(config(server.url, **changes), tmp_path / str(changes)[:8]).judge(STORIES[:1])
            assert len(server.seen) == before + 2


def test_an_answer_survives_kill_9(tmp_path):
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]);"
        "from pathlib import Path; from tests.test_judge_openai import STORIES, config, judge;"
        "judge(config(sys.argv[2], concurrency=1), Path(sys.argv[3])).judge(STORIES)"
    )

    def slow_after_two(question, before, body):
        stuck = number_in(question) >= 2 and not released
        return Response(by_number(question, before, body).body, delay_s=20 if stuck else 0)

    released = []
    with serving(slow_after_two) as server:
        child = subprocess.Popen(
            [sys.executable, "-c", program, str(ROOT), server.url, str(tmp_path)], env={**os.environ, "PYTHONPATH": ""}
        )
        deadline = time.monotonic() + 300
        while len(server.seen) < PROBED + 3 and time.monotonic() < deadline:
            time.sleep(0.02)
        child.send_signal(signal.SIGKILL)
        child.wait()
        released.append(True)
        assert scores(judge(config(server.url), tmp_path).judge(STORIES)) == RIGHT
        asked = [number_in(body["messages"][0]["content"]) for body in server.seen]
    assert sorted(asked) == [-1, 0, 1, 2, 2, 3, 4, 5]  # only the one under way at the kill came twice


@pytest.mark.parametrize(
    "trouble",
    [
        failure(429, "slow down", retry_after="0.02"),
        failure(429, "slow down", retry_after="Wed, 21 Oct 2015 07:28:00 GMT"),
        failure(500, "oops"),
        failure(503, "busy"),
        failure(408, "late"),
        Response("<html>bad gateway</html>", 502),
        Response("{]", 200),
        Response({"choices": []}, 200),
        Response({**completion(None).body, "usage": None}),
        Response({"error": {"message": "Provider returned error", "code": 429}, "user_id": "u"}),
        Response({"error": "overloaded", "choices": None}),
        Response({"id": None, "choices": None, "usage": None}),
        completion("", finish="error"),
        completion("\\boxed{1} so f", finish="error"),
        Response(completion("\\boxed{5}").body, delay_s=6.0),
    ],
    ids=[
        "429",
        "429-date",
        "500",
        "503",
        "408",
        "502-html",
        "no-json",
        "no-choice",
        "null",
        "200-429",
        "200-error",
        "choices-null",
        "finish-error",
        "finish-error-text",
        "time-out",
    ],
)
def test_a_passing_trouble_is_overcome(tmp_path, trouble):
    def answer(question, before, body):
        return trouble if before == 0 and number_in(question) in (1, 4) else by_number(question, before, body)

    with serving(answer) as server:
        assert (
            scores(judge(config(server.url, timeout_s=4 if trouble.delay_s else 30), tmp_path).judge(STORIES)) == RIGHT
        )
    assert len(server.seen) == PROBED + len(STORIES) + 2


def test_retry_after_is_waited_for(tmp_path):
    def answer(question, before, body):
        return failure(429, "wait", retry_after="0.4") if before == 0 else by_number(question, before, body)

    with serving(answer) as server:
        began = time.monotonic()
        judge(config(server.url), tmp_path)
        assert time.monotonic() - began >= 0.4
    assert len(server.seen) == 2


@pytest.mark.parametrize(
    ("reply", "raw"),
    [
        (completion("I would rather not say."), "I would rather not say."),
        (completion("Ten of five! \\boxed{10}"), "Ten of five! \\boxed{10}"),
        (completion(""), None),
        (completion("It rambles on and", finish="length"), "It rambles on and"),
        (completion(None, refusal="I can't help with \\boxed{1}"), "I can't help with \\boxed{1}"),
        (completion(None, finish="content_filter"), ""),
        (failure(400, "filtered", code="content_filter"), None),
        (Response("{]"), "{]"),
    ],
    ids=["unparsed", "out-of-range", "empty", "cut-off", "refused", "filtered", "filtered-400", "malformed"],
)
def test_a_reply_without_rating_is_a_row_with_its_words(tmp_path, reply, raw):  # G1
    def answer(question, before, body):
        return reply if number_in(question) == 3 else by_number(question, before, body)

    with serving(answer) as server:
        asked = judge(config(server.url), tmp_path)
        found = asked.judge(STORIES)
        status = "truncated" if raw == "It rambles on and" else "failed"
        assert scores(found) == [*RIGHT[:3], (None, status), *RIGHT[4:]]
        assert found[3].reply == (json.dumps(reply.body) if raw is None else raw)
        rows = pl.DataFrame(
            [
                {
                    "continuation_id": f"c{at}",
                    "prompt_id": "p",
                    "sample_index": at,
                    "prompt_text": s.prompt,
                    "text": s.continuation,
                }
                for at, s in enumerate(STORIES)
            ]
        ).with_columns(status=pl.lit("ok"))
        scored = score(rows, asked, auto_bleu="gslm")
    assert scored["status"].to_list() == ["ok", "ok", "ok", status, "ok", "ok"]
    assert scored["judge_score"].to_list() == [1.0, 1.0, 2.0, None, 4.0, 5.0]
    replies = tables.conform(scored.with_columns(judge=pl.lit("x")), tables.REPLIES)
    tables.verify(replies, tables.REPLIES, where="replies")
    assert replies["reply"][3] == found[3].reply


def test_votes_are_separate_requests_and_their_mean_counts_those_that_rate(tmp_path):
    def answer(question, before, body):
        return completion({3: "\\boxed{2}", 4: "hm", 5: "\\boxed{5}"}[body["seed"]])

    three = {"temperature": 0.5, "max_tokens": 20, "num_votes": 3, "seed": 3}
    with serving(answer) as server:
        found = judge(config(server.url, decoding=three), tmp_path).judge(STORIES[:2])
        assert scores(found) == [(3.5, "ok")] * 2
        raw = {"votes": ["\\boxed{2}", "hm", "\\boxed{5}"], "ratings": [2, None, 5], "rated": 2}
        assert json.loads(found[0].reply) == raw
        assert len(server.seen) == PROBED + 6
        single = judge(config(server.url), tmp_path).judge(STORIES[:2])
        assert scores(single) == [(2.0, "ok")] * 2
        assert len(server.seen) == PROBED + 6  # the first vote is the same question


# Stops


def stopped(chosen, folder, expected, stories=STORIES):
    with pytest.raises(expected) as raised:
        judge(chosen, folder).judge(stories)
    assert "sk-secret" not in str(raised.value)
    return str(raised.value)


def test_without_the_key_nothing_is_asked(tmp_path, monkeypatch):
    with serving(by_number) as server:
        judge(config(server.url), tmp_path)
        monkeypatch.delenv(KEY)
        for fresh in (tmp_path, tmp_path / "new"):
            names(stopped(config(server.url), fresh, MissingKeyError), "tiny", KEY, server.url, f"{KEY}=")
        assert len(server.seen) == PROBED
        none = judge(config(server.url, api_key_env=None), tmp_path / "keyless")
        assert scores(none.judge(STORIES)) == RIGHT


def test_a_spent_budget_of_requests_stops_and_loses_nothing(tmp_path):
    def answer(question, before, body):
        return failure(500, "oops") if before == 0 and number_in(question) == 0 else by_number(question, before, body)

    with serving(answer) as server:
        small = {"requests": 4, "tokens": 10000}
        chosen = config(server.url, budget=small, concurrency=1)
        ledger = judge(chosen, tmp_path).store.ledger
        message = stopped(chosen, tmp_path, BudgetError)
        names(message, "budget.requests", "4 of 4", ledger, "judge's file")
        assert stopped(chosen, tmp_path, BudgetError) == message
        assert len(server.seen) == 4
        lines = [json.loads(line) for line in ledger.read_text().splitlines()]
        assert [line["outcome"] for line in lines] == ["answer", "failed", "answer", "answer"]
        assert sum(line["prompt_tokens"] + line["completion_tokens"] for line in lines) == 330
        rich = config(server.url, budget={"requests": 8, "tokens": 10000})
        assert scores(judge(rich, tmp_path).judge(STORIES)) == RIGHT
        assert len(server.seen) == 8


def test_a_spent_budget_of_tokens_stops(tmp_path):
    with serving(by_number) as server:
        chosen = config(server.url, budget={"requests": 100, "tokens": 300}, concurrency=1)
        assert stopped(chosen, tmp_path, BudgetError).startswith("budget.tokens is spent: 330 of 300 (")
        assert len(server.seen) == 3
        fresh = ReplyStore(
            json.dumps(json.loads((tmp_path / "cache/judge").glob("*/identity.json").__next__().read_text())),
            chosen.budget,
        )
        assert (fresh.requests, fresh.tokens) == (3, 330)


def test_a_server_that_stays_ill_stops_the_run_and_loses_nothing(tmp_path):
    ill = [True]

    def answer(question, before, body):
        return failure(500, "oops") if ill and number_in(question) == 2 else by_number(question, before, body)

    with serving(answer) as server:
        names(
            stopped(config(server.url, concurrency=1), tmp_path, JudgeAPIError),
            "500, oops",
            server.url,
            "3",
            "timeout_s",
        )
        assert len(server.seen) == PROBED + 2 + 3
        ill.clear()
        assert scores(judge(config(server.url), tmp_path).judge(STORIES)) == RIGHT
        assert len(server.seen) == PROBED + 2 + 3 + 4


@pytest.mark.parametrize(
    ("trouble", "message", "hint"),
    [
        (failure(401, "Incorrect API key"), "401: Incorrect API key", (KEY,)),
        (failure(403, "not yours"), "403: not yours", (KEY,)),
        (failure(404, "no such model"), "404: no such model", ("base_url",)),
        (failure(429, "pay", code="insufficient_quota"), "429: pay", ("quota",)),
        (failure(429, "no", retry_after="86400"), "429: no", ("86400",)),
        (failure(400, "max_tokens?"), "400: max_tokens?", ("judge's file",)),
    ],
    ids=["401", "403", "404", "quota", "tomorrow", "400"],
)
def test_a_wrong_setup_stops_at_the_first_question(tmp_path, trouble, message, hint):
    with serving(lambda *_: trouble) as server:
        status, said = message.split(": ")
        names(stopped(config(server.url), tmp_path, JudgeAPIError), "tiny", server.url, status, said, *hint)
    assert len(server.seen) == 1
    assert not (tmp_path / "judge").exists()


def test_preparing_tells_a_page_from_a_chat_server_and_nobody_from_both(tmp_path):
    with serving(lambda *_: Response("<html>hello</html>")) as server:
        names(
            stopped(config(server.url), tmp_path, JudgeAPIError),
            "<html>hello</html>",
            server.url,
            "base_url",
            "OpenAI",
            "/v1",
        )
    message = stopped(config(server.url), tmp_path, JudgeAPIError)
    names(message, server.url, "3 times", "connection")


def test_preparing_leaves_the_same_files_however_it_is_asked(tmp_path):
    with serving(by_number) as server:
        changes = [{}, {"concurrency": 1, "timeout_s": 9, "budget": {"requests": 9, "tokens": 9000}}, {"model": "b"}]
        for name, change in zip("abc", changes, strict=True):
            judge(config(server.url, **change), tmp_path / name)
    hashes = [tree_sha256([tmp_path / name / "judge"]) for name in "abc"]
    assert hashes[0] == hashes[1] != hashes[2]
    assert "sk-secret" not in "".join(path.read_text() for path in tmp_path.rglob("*.*") if path.is_file())


def test_a_damaged_store_asks_again_and_a_torn_ledger_counts(tmp_path):
    with serving(by_number) as server:
        judge(config(server.url), tmp_path).judge(STORIES[:2])
        for file in (tmp_path / "cache").rglob("??/*.json"):
            file.write_text(file.read_text()[:20])
        (ledger,) = (tmp_path / "cache").rglob("ledger.jsonl")
        ledger.write_text(ledger.read_text()[:-15])
        again = judge(config(server.url), tmp_path)
        assert (again.store.requests, again.store.tokens) == (3, 220)
        assert scores(again.judge(STORIES[:2])) == RIGHT[:2]
        assert len(server.seen) == PROBED + 4
        assert len(ledger.read_text().splitlines()) == 5


def test_waits_grow_and_vary():
    assert [backoff_s(attempt, 0.0) for attempt in (1, 2, 3, 9)] == [0.01, 0.02, 0.04, 2.56]
    assert backoff_s(3, 1.0) == pytest.approx(0.02)
    assert backoff_s(60, 0.0) == api_client.MAX_BACKOFF_S
    now = datetime(2024, 1, 1, tzinfo=UTC)
    headers = [None, "2", "-1", "Mon, 01 Jan 2024 00:00:30 GMT", "Sun, 31 Dec 2023 00:00:00 GMT", "soon"]
    assert [retry_after_s(header, now) for header in headers] == [None, 2.0, 0.0, 30.0, 0.0, None]


def test_usage_and_fields_beyond_the_protocol_may_be_missing():
    bare = {"choices": [{"message": {"content": "x"}, "surprise": 1}]}
    found = read_reply(200, json.dumps(bare))
    assert (found.text, found.prompt_tokens, found.finish) == ("x", 0, None)


# Replies as servers give them


def reply(message, finish="stop", **usage):
    """A body with any message, and usage as it is given."""
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
    return {"choices": [choice], "model": "tiny", **usage}


PAID = {"usage": {"prompt_tokens": 300, "completion_tokens": 512, "total_tokens": 812}}


@pytest.mark.parametrize(
    ("body", "rating"),
    [
        (reply({"content": [{"type": "text", "text": "Fine. "}, {"type": "text", "text": "\\boxed{2}"}]}), 2.0),
        (reply({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "\\boxed{1}"}]},
                            {"type": "text", "text": "\\boxed{4}"}]}), 4.0),
        (reply({"content": "\\boxed{3}", "refusal": ""}), 3.0),
        (reply({"content": "\\boxed{3}", "reasoning_content": "perhaps \\boxed{1}"}, usage=None), 3.0),
        (reply({"content": "<think>\\boxed{1}?</think>\\boxed{5}"}), 5.0),
    ],
    ids=["parts", "thinking-part", "empty-refusal", "reasoning", "think"],
)  # fmt: skip
def test_an_answer_is_read_in_every_form(tmp_path, body, rating):
    with serving(lambda *_: Response(body)) as server:
        assert scores(judge(config(server.url), tmp_path).judge(STORIES[:1])) == [(rating, "ok")]


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        (None, (0, 0)),
        ({"prompt_tokens": 9.5, "completion_tokens": -1}, (10, 0)),
        ({"prompt_tokens": None, "total_tokens": 30}, (0, 30)),
        ({"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 99}, (7, 3)),
        ({"prompt_tokens": "many", "completion_tokens": 1e99}, (0, 0)),
    ],
)
def test_odd_usage_is_counted_as_it_is_meant(usage, tokens):
    found = read_reply(200, json.dumps(reply({"content": "x"}, usage=usage)))
    assert (found.prompt_tokens, found.completion_tokens) == tokens


@pytest.mark.parametrize(
    ("body", "requests", "facts"),
    [
        (reply({"content": "", "reasoning_content": "Let me"}, "length", **PAID), 1, ("truncated", "max_tokens", "20")),
        (reply({"content": None, "reasoning_content": "fine"}, **PAID), 1, ("answer_prefix",)),
        (reply({"content": "<think>\\boxed{2} would do, so I"}, "length", **PAID), 1, ("max_tokens",)),
        (reply({"content": "It is a four."}, **PAID), 2, ("answer_prefix", "It is a four.")),
    ],
    ids=["no-answer-left", "reasoning-alone", "thought-cut", "no-rating"],
)
def test_what_cannot_become_a_rating_fails_at_the_probe_and_is_counted(tmp_path, body, requests, facts):
    with serving(lambda *_: Response(body)) as server:
        chosen = config(server.url)
        message = stopped(chosen, tmp_path, JudgeAPIError)
        names(message, server.url, str(812 * requests), *facts[1 if facts[0] == "truncated" else 0 :])
        assert len(server.seen) == requests
        stopped(
            config(server.url, decoding={"temperature": 0.0, "max_tokens": 21, "num_votes": 1, "seed": 3}),
            tmp_path,
            JudgeAPIError,
        )
        assert len(server.seen) == requests + 1  # the same answer again at temperature 0: one is enough
    (ledger, _) = sorted((tmp_path / "cache").rglob("ledger.jsonl"), key=lambda file: -file.stat().st_size)
    lines = [json.loads(line) for line in ledger.read_text().splitlines()]
    assert [(line["prompt_tokens"], line["completion_tokens"]) for line in lines] == [(300, 512)] * requests
    stored = [file for file in (tmp_path / "cache").rglob("??/*.json") if not json.loads(file.read_text())["text"]]
    assert stored == []


@pytest.mark.parametrize(
    "trouble", [completion("a \\boxed{2}", finish="length"), completion(""), completion("", finish="error")]
)
def test_only_a_complete_answer_is_ever_stored(tmp_path, trouble):
    ill = [True]

    def answer(question, before, body):
        return trouble if ill and number_in(question) == 2 else by_number(question, before, body)

    with serving(answer) as server:
        asked = judge(config(server.url), tmp_path)
        try:
            asked.judge(STORIES)
        except JudgeAPIError:
            assert trouble.body["choices"][0]["finish_reason"] == "error"
        assert asked.store.get(asked.store.key(asked.rubric.fill(*STORIES[2]), 0)) is None
        ill.clear()
        assert scores(asked.judge(STORIES)) == RIGHT


def test_an_incomplete_reply_of_an_earlier_version_is_asked_again(tmp_path):
    with serving(by_number) as server:
        asked = judge(config(server.url), tmp_path)
        key = asked.store.key(asked.rubric.fill(*STORIES[2]), 0)
        for text, finish in (("", "stop"), ("\\boxed{5} or", "length")):
            old = Answer(text=text, refused=False, finish=finish, model=None, prompt_tokens=1, completion_tokens=1)
            asked.store.put(key, old)
            assert asked.store.get(key) is None
        assert scores(asked.judge(STORIES)) == RIGHT


@pytest.mark.parametrize(
    ("trouble", "status"),
    [
        (failure(400, "This model's maximum context length is 8 tokens", code="context_length_exceeded"), "too_long"),
        (Response("entity too large", 413), "too_long"),
        (failure(422, "Input should have at most 9 characters"), "failed"),
        (Response({"error": {"message": "prompt is too long", "code": 400}}), "too_long"),
        (failure(403, "your input was flagged by moderation"), "failed"),
    ],
    ids=["400", "413", "422", "200-400", "403"],
)
def test_one_story_that_the_server_will_not_read_is_a_row_and_is_asked_once(tmp_path, trouble, status):
    def answer(question, before, body):
        return trouble if number_in(question) == 3 else by_number(question, before, body)

    with serving(answer) as server:
        found = judge(config(server.url), tmp_path).judge(STORIES)
        assert scores(found) == [*RIGHT[:3], (None, status), *RIGHT[4:]]
        assert len(server.seen) == PROBED + len(STORIES)


def test_too_many_rows_without_a_score_fail_the_stage_and_the_scored_ones_are_kept(tmp_path):
    ill = [True]

    def answer(question, before, body):
        return Response({"choices": []}) if ill and number_in(question) >= 3 else by_number(question, before, body)

    with serving(answer) as server:
        asked = judge(config(server.url), tmp_path)

        def cached(limit):
            return CachedJudge(
                lazy(lambda device: asked, device="cpu"),
                max_unscored=limit, folder=tmp_path / "work", shard_size=2, label="scores@r1", pool=None,
            )  # fmt: skip

        with pytest.raises(UnscoredError) as raised:
            cached(0.49).judge(STORIES)
        names(raised.value, "scores@r1", "3 of 6", "failed: 3", "max_unscored 0.49", "dvc repro")
        kept = [pl.read_parquet(part)["score"].to_list() for part in (tmp_path / "work").rglob("part-*.parquet")]
        assert kept == [[1.0, 1.0]]
        assert scores(cached(0.5).judge(STORIES))[3:] == [(None, "failed")] * 3
        ill.clear()
        for part in (tmp_path / "work").rglob("part-*.parquet"):
            part.unlink()
        before = len(server.seen)
        assert scores(cached(0.0).judge(STORIES)) == RIGHT
        assert len(server.seen) == before + 3


# Requests as servers want them


def test_a_field_is_left_out_renamed_or_added_by_the_config(tmp_path):
    bare = {"temperature": None, "max_tokens": 20, "num_votes": 2, "seed": None}
    with serving(by_number) as server:
        chosen = config(
            server.url, decoding=bare, extra_body={"reasoning_effort": "low"}, extra_query={"api-version": "7"}
        )
        judge(chosen, tmp_path / "a").judge(STORIES[:1])
        mistral = config(server.url, seed_field="random_seed", api_key_header="api-key")
        judge(mistral, tmp_path / "b")
    sent, other = server.seen[1], server.seen[-1]
    assert sorted(sent) == ["max_tokens", "messages", "model", "path", "reasoning_effort"]
    assert (sent["reasoning_effort"], sent["path"]) == ("low", "/v1/chat/completions?api-version=7")
    assert (other["random_seed"], "seed" in other) == (3, False)
    assert (server.headers[-1]["api-key"], server.headers[-1]["Authorization"]) == ("sk-secret", None)


def test_other_fields_are_other_questions_and_none_changes_the_old_ones(tmp_path):
    with serving(by_number) as server:
        plain = judge(config(server.url), tmp_path / "a").store.folder
        rubric = (ROOT / "experiments/rubric/relevance.txt").read_text()
        before = json.dumps([server.url, "tiny", {"temperature": 0.5, "max_tokens": 20, "seed": 3}, rubric])
        assert plain == store_folder(before)  # replies paid for by earlier versions are found
        added = [{"extra_body": {"top_k": 1}}, {"extra_query": {"v": "1"}}, {"seed_field": "random_seed"}]
        folders = {
            judge(config(server.url, **change), tmp_path / str(at)).store.folder for at, change in enumerate(added)
        }
    assert len(folders | {plain}) == 4


@pytest.mark.parametrize(
    ("trouble", "cure"),
    [
        (failure(400, "Unsupported parameter: 'temperature' is not supported."), "decoding.temperature: null"),
        (Response({"object": "error", "message": {"detail": [{"loc": ["body", "seed"], "msg": "Extra inputs"}]}}, 422),
         "decoding.seed: null"),
        (failure(400, "Use 'max_completion_tokens' instead."), "max_tokens_field: max_completion_tokens"),
        (failure(400, "unknown field top_k"), "extra_body.top_k"),
    ],
)  # fmt: skip
def test_a_field_that_the_server_refuses_is_named_with_its_key(tmp_path, trouble, cure):
    with serving(lambda *_: trouble) as server:
        names(stopped(config(server.url, extra_body={"top_k": 1}), tmp_path, JudgeAPIError), cure, str(trouble.status))


@pytest.mark.parametrize(
    ("changes", "facts"),
    [
        ({"base_url": "http://me:hunter22@127.0.0.1/v1"}, ("base_url", "password")),
        ({"base_url": "http://127.0.0.1/v1?api-version=1"}, ("base_url", "extra_query")),
        ({"base_url": "http://:80/v1"}, ("base_url", "HOST")),
        ({"extra_body": {"stream": True}}, ("extra_body.stream",)),
        ({"extra_body": {"temperature": 1}}, ("extra_body.temperature",)),
    ],
)
def test_a_config_that_would_leak_or_contradict_itself_is_refused(changes, facts):
    with pytest.raises(ValidationError) as raised:
        config("http://127.0.0.1:1/v1", **changes)
    names(raised.value, *facts)


# Servers, proxies and keys that are not as they should be


def test_a_server_that_sends_a_byte_at_a_time_is_left_when_its_time_is_up(tmp_path):
    with serving(lambda *_: Response(completion("\\boxed{3}").body, byte_s=0.2)) as server:
        message = stopped(config(server.url, timeout_s=1, max_attempts=2), tmp_path, JudgeAPIError)
    names(message, "timeout_s", "1", "2")
    assert len(server.seen) == 2


def test_a_proxy_that_refuses_is_named_without_its_password(tmp_path, monkeypatch):
    with serving(lambda *_: Response("go away", 403)) as proxy:
        where = proxy.url.removeprefix("http://").removesuffix("/v1")
        for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"):
            monkeypatch.setenv(name, f"http://me:hunter2222@{where}")
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        for scheme in ("http", "https"):
            message = stopped(config(f"{scheme}://judge.invalid/v1"), tmp_path / scheme, JudgeAPIError)
            names(message, where, "proxy", f"{scheme}://judge.invalid/v1")
            assert "hunter2222" not in message
        for name in ("HTTPS_PROXY", "https_proxy"):
            monkeypatch.setenv(name, "gopher://x")
        names(stopped(config("https://judge.invalid/v1"), tmp_path / "odd", JudgeAPIError), "HTTPS_PROXY")


@pytest.mark.parametrize("key", ["sk-“quoted”", "sk-two\nlines", "sk-é"])
def test_a_key_that_cannot_be_sent_is_refused_without_being_shown(tmp_path, monkeypatch, key):
    monkeypatch.setenv(KEY, key)
    with serving(by_number) as server:
        message = stopped(config(server.url), tmp_path, MissingKeyError)
    names(message, KEY, f"{KEY}=")
    assert key not in message
    assert repr(key)[1:-1] not in message
    assert server.seen == []


def test_another_server_in_the_environment_is_refused_aloud(tmp_path, monkeypatch):
    with serving(by_number) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", "http://elsewhere.invalid/v1")
        names(stopped(config(server.url), tmp_path, MissingKeyError), "OPENAI_BASE_URL", "base_url", server.url)
        monkeypatch.setenv("OPENAI_BASE_URL", server.url + "/")
        assert scores(judge(config(server.url), tmp_path).judge(STORIES)) == RIGHT


def test_a_garbled_store_asks_again(tmp_path):
    with serving(by_number) as server:
        judge(config(server.url), tmp_path).judge(STORIES[:2])
        first, second, *_ = (tmp_path / "cache").rglob("??/*.json")
        first.write_bytes(b"\xff\xfe\x00garbled")
        second.unlink()
        second.mkdir()
        (ledger,) = (tmp_path / "cache").rglob("ledger.jsonl")
        ledger.write_bytes(ledger.read_bytes() + b"\xff\n")
        second.rmdir()
        assert scores(judge(config(server.url), tmp_path).judge(STORIES[:2])) == RIGHT[:2]


# The real server


def test_transformers_serve_rates_as_the_model_it_serves(tmp_path):
    model = write_judge(tmp_path / "model")
    stories = [JudgeInput("kate finds a boat", text) for text in ("she paints it", "home home", "the beach", "a a a")]
    with transformers_serve(model) as url:
        greedy = {"temperature": 0.0, "max_tokens": 8, "num_votes": 1, "seed": 0}
        chosen = config(
            url, model=str(model), api_key_env=None, rubric="relevance-digit", decoding=greedy, timeout_s=60
        )
        asked = judge(chosen, tmp_path)
        found = asked.judge(stories)
        spent = (asked.store.requests, asked.store.tokens)
    assert judge(chosen, tmp_path).judge(stories) == found  # the server is gone; nothing is asked
    local = TypeAdapter(JudgeConfig).validate_python(
        {
            "kind": "causal-lm",
            "weights": {"kind": "folder", "path": str(model)},
            "dtype": "float32",
            "rubric": "relevance-digit",
            "answer_prefix": "\\boxed{",
            "score": {"mode": "generate", **greedy},
            "compute_perplexity": False,
            "batch_size": 2,
        }
    )
    assert found == judge(local, tmp_path / "local").judge(stories)
    assert {judgement.status for judgement in found} == {"ok"}
    assert spent[0] == PROBED + 4
    assert spent[1] > 5 * 100
