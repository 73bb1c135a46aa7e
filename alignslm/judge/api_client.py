"""One question to an OpenAI-compatible server, asked again where the server was busy, broken or unintelligible."""

import random
import threading
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import NamedTuple, TypeAlias

from pydantic import BaseModel, Field, ValidationError

from alignslm.config.llm_judges import OpenAIJudgeConfig
from alignslm.extras import needed
from alignslm.judge.reply_store import Answer, LedgerEntry, ReplyStore

with needed("openai", by="kind: openai"):
    import openai

FIRST_WAIT_S = 0.5
MAX_BACKOFF_S = 30.0
MAX_RETRY_AFTER_S = 300.0  # a server that wants a longer pause is told about, not waited for
RETRY_STATUS_CODES = {408, 409, 425, 429}
CONTENT_CODES = {
    "content_filter",
    "content_policy_violation",
}  # the question offends: an answer, and not to be repeated


class JudgeAPIError(ValueError):
    """A server cannot be asked: unreachable, no valid key, no such model, out of quota, or failing for too long."""


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Usage(BaseModel):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Body(BaseModel):
    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage | None = None
    model: str | None = None


class _Error(BaseModel):
    message: str


class _ErrorBody(BaseModel):
    error: _Error


class Malformed(NamedTuple):
    """What came back with status 200 but is no chat completion."""

    body: str


class Failed(NamedTuple):
    """An attempt worth repeating: why, and how long the server wants to be left alone, where it says so."""

    why: str
    retry_after_s: float | None = None


Attempt: TypeAlias = "Answer | Malformed | Failed"


def make_client(config: OpenAIJudgeConfig, key: str | None) -> openai.OpenAI:
    """Return a client that asks once and never retries by itself: every request is counted here."""
    return openai.OpenAI(
        base_url=config.base_url, api_key=key or "none", timeout=config.timeout_s, max_retries=0, organization=None
    )


def read_answer(body: str) -> Answer | Malformed:
    """Read the body of a chat completion."""
    try:
        read = _Body.model_validate_json(body)
    except ValidationError:
        return Malformed(body)
    message, usage = read.choices[0].message, read.usage or _Usage()
    refused = message.refusal is not None or read.choices[0].finish_reason == "content_filter"
    text = message.content if message.refusal is None else message.refusal
    if text is None and not refused:
        return Malformed(body)
    return Answer(
        text=text or "",
        refused=refused,
        finish=read.choices[0].finish_reason,
        model=read.model,
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
    )


def retry_after_s(value: str | None, now: datetime) -> float | None:
    """Read a Retry-After header: seconds, or a date."""
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(value) - now).total_seconds())
    except (TypeError, ValueError):
        return None


def backoff_s(attempt: int, chance: float) -> float:
    """Return the wait before attempt 1, 2, ...: doubling, then shortened by up to a half by `chance` in 0..1."""
    return min(MAX_BACKOFF_S, FIRST_WAIT_S * 2.0 ** (attempt - 1)) * (1 - 0.5 * chance)


class APIClient:
    """Asks one judge's questions, within its budget. `stop` ends all waiting and every question not yet sent."""

    def __init__(self, config: OpenAIJudgeConfig, store: ReplyStore, key: str | None) -> None:
        self.config, self.store, self.client = config, store, make_client(config, key)
        self.stop = threading.Event()

    def ask(self, question: str, vote: int) -> Answer | Malformed | None:
        """Return the answer, then in the store too; what stayed malformed in every attempt; or None after a stop.

        Raises JudgeAPIError, BudgetError, and stops every other question then.
        """
        try:
            return self._persist(question, vote)
        except BaseException:
            self.stop.set()
            raise

    def _persist(self, question: str, vote: int) -> Answer | Malformed | None:
        key = self.store.key(question, vote)
        last: Malformed | Failed = Failed("")
        for number in range(self.config.max_attempts):
            if self.stop.wait(self._wait_s(number, last)):
                return None
            attempt = self._attempt(key, question, vote)
            if isinstance(attempt, Answer):
                self.store.put(key, attempt)
                return attempt
            last = attempt
        if isinstance(last, Malformed):
            return last
        raise JudgeAPIError(
            f"{self.config.base_url} failed {self.config.max_attempts} times in a row on one question, at last with: "
            f"{last.why}. Every answer so far is kept: run the same command again when the server is well, or raise "
            "max_attempts or timeout_s, or lower concurrency, in the judge's file."
        )

    @staticmethod
    def _wait_s(number: int, last: Malformed | Failed) -> float:
        """Return the pause before attempt 0, 1, ...; the first needs none."""
        if number == 0:
            return 0.0
        ordered = last.retry_after_s if isinstance(last, Failed) else None
        return max(backoff_s(number, random.random()), ordered or 0.0)

    def _attempt(self, key: str, question: str, vote: int) -> Attempt:
        """Send once, counted in budget and ledger however it ends."""
        self.store.reserve()
        outcome = "interrupted"
        prompt_tokens = completion_tokens = 0
        try:
            attempt = self._send(question, vote)
            outcome = type(attempt).__name__.lower()
            if isinstance(attempt, Answer):
                prompt_tokens, completion_tokens = attempt.prompt_tokens, attempt.completion_tokens
        finally:
            self.store.record(
                LedgerEntry(key=key, outcome=outcome, prompt_tokens=prompt_tokens, completion_tokens=completion_tokens)
            )
        return attempt

    def _send(self, question: str, vote: int) -> Attempt:
        decoding = self.config.decoding
        try:
            got = self.client.chat.completions.with_raw_response.create(
                model=self.config.model,
                messages=[{"role": "user", "content": question}],
                temperature=decoding.temperature,
                seed=decoding.seed + vote,
                extra_body={self.config.max_tokens_field: decoding.max_tokens},
            )
        except openai.APITimeoutError:
            return Failed(f"no answer within {self.config.timeout_s:g} s")
        except openai.APIConnectionError as error:
            return Failed(f"no connection ({error.__cause__ or error})")
        except openai.APIStatusError as error:
            return self._refused(error)
        return read_answer(got.http_response.text)

    def _refused(self, error: openai.APIStatusError) -> Attempt:
        """Tell what an HTTP error means: a busy or broken server, a question it will not answer, or a wrong setup."""
        status, body = error.status_code, error.response.text
        if error.code == "insufficient_quota":
            raise JudgeAPIError(self._stopped(status, body, "the account has no quota left; add some"))
        if status in RETRY_STATUS_CODES or status >= 500:
            wait_s = retry_after_s(error.response.headers.get("retry-after"), datetime.now(UTC))
            if wait_s is not None and wait_s > MAX_RETRY_AFTER_S:
                raise JudgeAPIError(self._stopped(status, body, f"it wants to be left alone for {wait_s:.0f} s"))
            return Failed(f"status {status}, {_brief(body)}", wait_s)
        if error.code in CONTENT_CODES:
            return Answer(text=body, refused=True, finish=error.code, model=None, prompt_tokens=0, completion_tokens=0)
        named = self.config.api_key_env or "api_key_env in the judge's file (null: no key is sent)"
        hints = {401: f"check {named}", 403: f"check {named}", 404: "check base_url and model in the judge's file"}
        raise JudgeAPIError(self._stopped(status, body, hints.get(status, "check the judge's file")))

    def _stopped(self, status: int, body: str, hint: str) -> str:
        return (
            f"{self.config.base_url} answered {self.config.model!r} with status {status}: {_brief(body)}. Nothing more "
            f"was asked; every answer so far is kept. What to do: {hint}."
        )


def _brief(body: str) -> str:
    """Return the message of an error body, or the beginning of whatever else came."""
    try:
        message = _ErrorBody.model_validate_json(body).error.message
    except ValidationError:
        message = body
    return " ".join(message.split())[:300] or "without a word"
