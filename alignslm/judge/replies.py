"""The rating in a written reply, and one judgement from several replies."""

import json
import re
from collections.abc import Sequence
from typing import NamedTuple

from alignslm.judge import JudgeOutput, Status

LOWEST, HIGHEST = 1, 5
_THOUGHT = r"(?:think|thinking|thought|reasoning)"
_OPENED, _CLOSED = (re.compile(rf"[<\[]{slash}{_THOUGHT}[>\]]", re.IGNORECASE) for slash in ("", "/"))
_CLOSERS = {"{": "}", "[": "]", "(": ")", "<": ">"}
_SPACE = r"[^\S\n]*"
_VALUE = r"(?:[+-]?\d|(?:one|two|three|four|five|ten)\b)"
_RATING = rf"[\s*_$\"'`]*([+-]?\d+(?:\.\d+)?)(?:{_SPACE}(?:/|out of|of){_SPACE}(?:5|five)\b(?!\.\d))?[*_$\"'`]*+"
_REMARK = r"(?:\s*(?:stars?|points?))?(?:\s*\([^\d)]*\)|\s*:[^\d]+|\s+[–—-]\s[^\d]+)?[\s*_$.,]*"
_OTHER = r"/|out of|of|or|to|and|through|vs\.?|versus|[,;&|~×–—→-]|->|\.\.+"  # another number makes it no rating
_BRACKETED = re.compile(_RATING + rf"(?!.*\b(?:or|to|and)\s+{_VALUE})" + _REMARK, re.IGNORECASE | re.DOTALL)
_OPEN = re.compile(
    _RATING + rf"(?!{_SPACE}(?:[%+½¼¾]|(?:/|out of)|\(?{_SPACE}(?:{_OTHER})?{_SPACE}{_VALUE}))(?![\d\w])", re.IGNORECASE
)


class Reply(NamedTuple):
    """One reply, word for word. Only a complete answer, status ok, can rate, whatever another's text looks like."""

    text: str
    status: Status = "ok"


def spoken(text: str) -> str | None:
    """Return a reply after its thoughts (<think> ... </think>); None if it ends inside a thought."""
    visible = _CLOSED.split(text)[-1]
    return None if _OPENED.search(visible) else visible


def parse_rating(text: str, *, answer_prefix: str) -> int | None:
    """Return the last number that follows `answer_prefix` in the judge's own words; None unless it is 1, 2, 3, 4 or 5.

    The last, since a judge may try a rating out before it settles on one; after its thoughts, and none if it never
    came to an end of them. A range, a choice or a fraction not of 5 is not a rating. The question must not be part
    of `text`: it names the scale, and often gives the form of the answer.
    """
    mentions = (spoken(text) or "").split(answer_prefix)[1:]
    closer = _CLOSERS.get(answer_prefix[-1])
    given = [visible for visible in (_phrase(mention, closer) for mention in mentions) if re.search(r"\d", visible)]
    found = (_BRACKETED.fullmatch if closer else _OPEN.match)(given[-1]) if given else None
    if found is None:
        return None
    value = float(found[1])
    return int(value) if value in range(LOWEST, HIGHEST + 1) else None


def _phrase(mention: str, closer: str | None) -> str:
    """Return the content of the bracket that the prefix opens, or of the line that it begins."""
    return mention.partition(closer)[0] if closer else mention.lstrip().partition("\n")[0]


def aggregate_replies(replies: Sequence[Reply], *, answer_prefix: str, ppl: float | None) -> JudgeOutput:
    """Return the mean rating of the replies that give one, else why there is none; every reply is kept.

    A single reply is kept as it is; several as JSON {"votes": [...], "ratings": [...], "rated": n}, a vote without
    rating being null there.
    """
    ratings = [
        parse_rating(reply.text, answer_prefix=answer_prefix) if reply.status == "ok" else None for reply in replies
    ]
    given = [value for value in ratings if value is not None]
    texts = [reply.text for reply in replies]
    votes = {"votes": texts, "ratings": ratings, "rated": len(given)}
    raw = texts[0] if len(texts) == 1 else json.dumps(votes, ensure_ascii=False)
    if given:
        return JudgeOutput(sum(given) / len(given), ppl, "ok", raw)
    return JudgeOutput(None, ppl, max(map(_unrated, replies), key=("failed", "truncated", "too_long").index), raw)


def _unrated(reply: Reply) -> Status:
    """Return the status of a reply that gives no rating."""
    if reply.status != "ok":
        return reply.status
    return "truncated" if spoken(reply.text) is None else "failed"
