"""What the Hub's refusals mean, and what to do about each. All of them leave artifacts and repository as they were."""

from collections.abc import Iterator
from http import HTTPStatus

from huggingface_hub import errors

AGAIN = (
    "Then run the same command again: what was sent already is not sent twice, and nothing shows until all is there."
)
SETTINGS = "https://huggingface.co/settings/tokens"
_FULL = ("storage", "quota", "limit reached", "upgrade")
_MEANINGS: dict[int, str] = {
    HTTPStatus.UNAUTHORIZED: ": the token is not valid, or has expired. Set HF_TOKEN to one that may write "
    f"({SETTINGS}).",
    HTTPStatus.FORBIDDEN: ": the token may not write there. Is {owner!r} your account, or an organisation that lets "
    f"you? Give the token the right to write ({SETTINGS}), or name another owner.",
    HTTPStatus.NOT_FOUND: ": it went away meanwhile, or the token may not see it. Check name and rights.",
    HTTPStatus.CONFLICT: ": it exists, but the token may not see it. Use its owner's token, or another name.",
    HTTPStatus.PRECONDITION_FAILED: ": somebody else committed meanwhile.",
    HTTPStatus.TOO_MANY_REQUESTS: ": too many requests. Wait as long as it asks.",
}
_ERROR_FROM = 500  # status codes from here on are the server's fault


def explain_hub_error(error: BaseException, repo: str, repo_type: str) -> str:
    """Return one message: which repository, what was refused, what to do."""
    answered = next((found for found in _causes(error) if isinstance(found, errors.HfHubHTTPError)), None)
    told = _answer(answered, repo) if answered is not None else _silence(error)
    return f"the {repo_type} repository {repo} was not published: {told} {AGAIN}"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and what it came from: the client's threads wrap what went wrong in them."""
    while error is not None:
        yield error
        error = error.__cause__


def _answer(error: errors.HfHubHTTPError, repo: str) -> str:
    """Explain what the server said."""
    status, owner = error.response.status_code, repo.partition("/")[0]
    words = " ".join((error.server_message or "").split())
    said = f"the Hub answers {status}" + (f" ({words})" if words else "")
    full = status != HTTPStatus.TOO_MANY_REQUESTS and any(word in said.lower() for word in _FULL)
    if full or status == HTTPStatus.PAYMENT_REQUIRED:
        return f"{said}. Make room in {owner}'s storage, or name another owner."
    if status >= _ERROR_FROM:
        return f"{said}: the Hub is in trouble (https://status.huggingface.co). Wait."
    return said + _MEANINGS.get(status, ".").format(owner=owner)


def _silence(error: BaseException) -> str:
    """Explain an error to which no server answered: no network, a broken connection, or data the Hub does not take."""
    *_, first = _causes(error)
    if isinstance(error, errors.OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set. Unset it."
    if isinstance(first, ValueError):
        return f"{_first_line(first)}."
    what = f"{type(first).__name__}: {_first_line(first)}"
    return f"the Hub cannot be reached, or the connection broke ({what}). Check the network."


def _first_line(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".")[:300]
