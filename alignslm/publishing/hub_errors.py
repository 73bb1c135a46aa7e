"""Meanings of the Hub's errors, and what to do. None of them changes artifacts or the repository."""

from collections.abc import Iterator
from http import HTTPStatus

from huggingface_hub import errors

AGAIN = "Then run the same command again: it resumes, and nothing is visible until the push is complete."
SETTINGS = "https://huggingface.co/settings/tokens"
_FULL = ("storage", "quota", "limit reached", "upgrade")
_MEANINGS: dict[int, str] = {
    HTTPStatus.UNAUTHORIZED: ": the token is not valid, or has expired. Set HF_TOKEN to one with write access "
    f"({SETTINGS}).",
    HTTPStatus.FORBIDDEN: ": the token has no write access there. Is {owner!r} your account or organization? Give the "
    f"token write access ({SETTINGS}), or choose another owner.",
    HTTPStatus.NOT_FOUND: ": it was deleted, or the token cannot see it. Check name and access.",
    HTTPStatus.CONFLICT: ": it exists, but the token cannot see it. Use its owner's token, or another name.",
    HTTPStatus.PRECONDITION_FAILED: ": there was another commit in the meantime.",
    HTTPStatus.TOO_MANY_REQUESTS: ": too many requests. Wait as long as it asks.",
}
_ERROR_FROM = 500  # status codes from here on are the server's fault


def explain_hub_error(error: BaseException, repo: str, repo_type: str) -> str:
    """Return one message: repository, cause, cure."""
    answered = next((found for found in _causes(error) if isinstance(found, errors.HfHubHTTPError)), None)
    cause = _answer(answered, repo) if answered is not None else _silence(error)
    return f"the {repo_type} repository {repo} was not published: {cause} {AGAIN}"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and its causes: the client's threads wrap errors."""
    while error is not None:
        yield error
        error = error.__cause__


def _answer(error: errors.HfHubHTTPError, repo: str) -> str:
    """Explain the server's answer."""
    status, owner = error.response.status_code, repo.partition("/")[0]
    words = " ".join((error.server_message or "").split())
    answer = f"the Hub answers {status}" + (f" ({words})" if words else "")
    full = status != HTTPStatus.TOO_MANY_REQUESTS and any(word in answer.lower() for word in _FULL)
    if full or status == HTTPStatus.PAYMENT_REQUIRED:
        return f"{answer}. Make room in {owner}'s storage, or choose another owner."
    if status >= _ERROR_FROM:
        return f"{answer}: the Hub has a problem (https://status.huggingface.co). Wait."
    return answer + _MEANINGS.get(status, ".").format(owner=owner)


def _silence(error: BaseException) -> str:
    """Explain an error without an answer: no network, a broken connection, or data that the Hub does not accept."""
    *_, first = _causes(error)
    if isinstance(error, errors.OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set. Unset it."
    if isinstance(first, ValueError):
        return f"{_first_line(first)}."
    what = f"{type(first).__name__}: {_first_line(first)}"
    return f"the Hub cannot be reached, or the connection was lost ({what}). Check the network."


def _first_line(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".")[:300]
