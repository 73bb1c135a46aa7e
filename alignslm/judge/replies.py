"""The rating in a written reply, and one judgement from several replies."""

import json
import re
from collections.abc import Sequence
from typing import NamedTuple

from alignslm.judge import JudgeOutput

LOWEST, HIGHEST = 1, 5
_AFTER = r"[*_\s]*([\d.,/+-]*)"  # markdown may stand round the number
_NUMBER = re.compile(r"([+-]?\d+(?:\.\d+)?)(?:/5)?[.,]?")  # "4", "4.0", "4/5" or "4." but not "3-4"


class Reply(NamedTuple):
    """One answer, word for word. A refusal is an answer that rates nothing, whatever its text looks like."""

    text: str
    refused: bool = False


def parse_rating(text: str, *, answer_prefix: str) -> int | None:
    """Return the last number that follows `answer_prefix` in the judge's own words; None unless it is 1, 2, 3, 4 or 5.

    The last, since a judge may try a rating out before it settles on one. The question must not be part of `text`:
    it names the scale, and often gives the form of the answer.
    """
    found = [_NUMBER.fullmatch(shown) for shown in re.findall(re.escape(answer_prefix) + _AFTER, text) if shown]
    if not found or found[-1] is None:
        return None
    value = float(found[-1][1])
    return int(value) if value in range(LOWEST, HIGHEST + 1) else None


def aggregate_replies(replies: Sequence[Reply], *, answer_prefix: str, ppl: float | None) -> JudgeOutput:
    """Return the mean rating of the replies that give one, `failed` if none does; every reply is kept.

    A single reply is kept as it is; several as JSON {"votes": [...], "ratings": [...], "rated": n}, a vote without
    rating being null there.
    """
    ratings = [None if reply.refused else parse_rating(reply.text, answer_prefix=answer_prefix) for reply in replies]
    given = [value for value in ratings if value is not None]
    texts = [reply.text for reply in replies]
    votes = {"votes": texts, "ratings": ratings, "rated": len(given)}
    raw = texts[0] if len(texts) == 1 else json.dumps(votes, ensure_ascii=False)
    if not given:
        return JudgeOutput(None, ppl, "failed", raw)
    return JudgeOutput(sum(given) / len(given), ppl, "ok", raw)
