"""Parsed replies of a server: an answer, an error of one question only, or an error worth another try."""

import re
from http import HTTPStatus
from math import ceil
from typing import NamedTuple, TypeAlias

from pydantic import JsonValue
from pydantic_core import from_json

from alignslm.judge import Status
from alignslm.judge.reply_store import CUT, Answer

RETRIED = {408, 409, 425, 429}
_NO_CREDIT = re.compile(r"insufficient_quota|insufficient credits|quota exceeded|billing", re.IGNORECASE)
_TOO_LONG = re.compile(r"(?i)context.{0,9}(length|window|size)|too (long|large|many tokens)|maximum.{0,30}length")
_OFFENDS = re.compile(r"moderat|flagged|content.{0,9}(filter|policy)", re.IGNORECASE)
_NAMED = {"rate_limit_exceeded": 429, "context_length_exceeded": 400, "invalid_api_key": 401, "model_not_found": 404}

Body: TypeAlias = "dict[str, JsonValue]"


class Unanswered(NamedTuple):
    """No answer to one question: its row gets this text and status, and nothing is stored.

    `again`: worth a retry. `error`: the HTTP status of a question that the server will not answer, else 0.
    """

    text: str
    status: Status
    again: bool = False
    error: int = 0


class Failed(NamedTuple):
    """A server that is busy or failed: why, and how long it asks to wait, if it does."""

    why: str
    retry_after_s: float | None = None


class Refused(NamedTuple):
    """A setup that no retry mends: the status and the server's words."""

    status: int
    why: str


Attempt: TypeAlias = Answer | Unanswered | Failed | Refused


def read_body(text: str) -> Body:
    """Return a reply's JSON object; an empty one if it is not."""
    try:
        return _object(from_json(text))
    except ValueError:
        return {}


def count_tokens(body: Body) -> tuple[int, int]:
    """Return the tokens (read, written) that a reply of any kind was paid with, rounded up; 0 if it does not say."""
    usage = _object(body.get("usage"))
    read, written = _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))
    return read, written or max(0, _count(usage.get("total_tokens")) - read)


def read_reply(status: int, text: str) -> Attempt:
    """Read what came with an HTTP status. An error inside a 200 counts as the error it is."""
    body = read_body(text)
    choices = body.get("choices")
    choice = _object(choices[0] if isinstance(choices, list) and choices else None)
    error = body.get("error") or choice.get("error")
    if status != HTTPStatus.OK or error:
        return _read_error(_error_status(error) if status == HTTPStatus.OK else status, text, error or body)
    return _read_choice(choice, body, text) if choice else Unanswered(text, "failed", again=True)


def _read_choice(choice: Body, body: Body, text: str) -> Attempt:
    message, finish = _object(choice.get("message")), choice.get("finish_reason")
    reply, refusal = _content(message.get("content")), _content(message.get("refusal"))
    if finish == "error":
        return Failed("finish_reason error")
    if finish in CUT:
        return Unanswered(reply or text, "truncated")
    refused = bool(refusal.strip()) or finish == "content_filter"
    read, written = count_tokens(body)
    if not refused and not reply.strip():
        return Unanswered(text, "failed", again=written == 0)  # other paid output, such as only reasoning
    return Answer(
        text=refusal or reply if refused else reply,
        refused=refused,
        finish=finish if isinstance(finish, str) else None,
        model=str(body.get("model") or "") or None,
        prompt_tokens=read,
        completion_tokens=written,
    )


def _read_error(status: int, text: str, error: JsonValue) -> Attempt:
    why = words_of(text, error)
    if status == HTTPStatus.PAYMENT_REQUIRED or _NO_CREDIT.search(text):
        return Refused(HTTPStatus.PAYMENT_REQUIRED if status == HTTPStatus.OK else status, why)
    if status in RETRIED or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return Failed(f"status {status}, {why}")
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE or _TOO_LONG.search(text):
        return Unanswered(text, "too_long", error=status)
    if status in {HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY} or _OFFENDS.search(text):
        return Unanswered(text, "failed", error=status)
    return Refused(status, why)


def _error_status(error: JsonValue) -> int:
    """Return the HTTP status of an error inside a 200: its code, or that of a failed server."""
    code = _object(error).get("code")
    if isinstance(code, str):
        code = int(code) if code.isdecimal() else _NAMED.get(code)
    return code if isinstance(code, int) and code >= HTTPStatus.BAD_REQUEST else HTTPStatus.BAD_GATEWAY


def words_of(text: str, error: JsonValue) -> str:
    """Return an error's message, or the whole body."""
    return " ".join((_words(error) or text).split())[:300].rstrip(".") or "without a word"


def _words(error: JsonValue) -> str:
    """Return the message of an error in any of the forms in use."""
    if isinstance(error, str):
        return error
    found = _object(error)
    inner = next((found[key] for key in ("error", "message", "detail") if found.get(key)), None)
    if isinstance(inner, str):
        return inner
    return _words(inner) if isinstance(inner, dict) else ""


def _content(content: JsonValue) -> str:
    """Return a message's text: a string, or the parts of a list that are text and no thoughts."""
    if isinstance(content, list):
        parts = [part if isinstance(part, str) else _object(part).get("text") for part in content]
        return "".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else ""


def _object(value: JsonValue) -> Body:
    return value if isinstance(value, dict) else {}


def _count(value: JsonValue) -> int:
    """Return a count of tokens as it is meant: a whole number of at least 0."""
    if not isinstance(value, int | float) or not 0 <= value < 1e12:  # nor NaN
        return 0
    return ceil(value)
