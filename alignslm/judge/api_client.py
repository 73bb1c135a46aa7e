"""One request to an OpenAI-compatible server, repeated if the server was busy, failed or sent an invalid reply."""

import random
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import anyio
import httpx2
from anyio.from_thread import BlockingPortal, start_blocking_portal
from pydantic import JsonValue

from alignslm.config.llm_judges import OpenAIJudgeConfig
from alignslm.judge.api_reply import Attempt, Failed, Refused, Unanswered, count_tokens, read_body, read_reply, words_of
from alignslm.judge.reply_store import Answer, LedgerEntry, ReplyStore
from alignslm.redaction import redact

FIRST_WAIT_S = 0.5
MAX_BACKOFF_S = 30.0
MAX_RETRY_AFTER_S = 300.0  # a server that asks for a longer pause is an error
MAX_BYTES = 1 << 24  # of one reply


class JudgeAPIError(ValueError):
    """A server cannot be asked: unreachable, no valid key, no such model, out of quota, or failing for too long."""


class _Received(NamedTuple):
    status: int
    retry_after: str | None
    text: str


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
        self.config, self.store = config, store
        self.stop = threading.Event()
        self._headers = {"Accept": "application/json"}
        if key:
            self._headers[config.api_key_header] = f"Bearer {key}" if config.api_key_header == "Authorization" else key

    @contextmanager
    def connected(self) -> Iterator[None]:
        """Keep connections open; requests are sent inside, from any thread."""
        try:
            client = httpx2.AsyncClient(
                headers=self._headers, params=self.config.extra_query, timeout=None, limits=httpx2.Limits()
            )
        except (ValueError, ImportError, OSError) as error:
            raise JudgeAPIError(
                f"the proxy or certificates that the environment names (HTTPS_PROXY, SSL_CERT_FILE, ...) cannot be "
                f"used: {error}. Correct or unset them."
            ) from error
        with start_blocking_portal() as portal, portal.wrap_async_context_manager(client):
            self._portal: BlockingPortal = portal
            self._client = client
            yield

    def ask(self, question: str, vote: int, *, probe: bool = False) -> Answer | Unanswered | None:
        """Return the answer, then in the store too; words without an answer; or None after a stop.

        Raises JudgeAPIError, BudgetError, and stops every other question then. As a `probe`, whatever the server
        refuses is a wrong setup.
        """
        try:
            return self._persist(question, vote, probe=probe)
        except BaseException:
            self.stop.set()
            raise

    def _persist(self, question: str, vote: int, *, probe: bool) -> Answer | Unanswered | None:
        key = self.store.key(question, vote)
        last: Unanswered | Failed = Failed("")
        for number in range(self.config.max_attempts):
            if self.stop.wait(self._wait_s(number, last)):
                return None
            attempt = self._attempt(key, question, vote)
            if isinstance(attempt, Answer):
                self.store.put(key, attempt)
                return attempt
            if isinstance(attempt, Refused):
                raise self._stopped(attempt)
            last = attempt
            if isinstance(last, Unanswered) and not last.again:
                if probe and last.error:
                    raise self._stopped(Refused(last.error, last.text))
                return last
        if isinstance(last, Unanswered):
            return last
        raise JudgeAPIError(
            f"{self.config.base_url} failed {self.config.max_attempts} times in a row on one question, at last with: "
            f"{last.why}{self._way()}. Every answer so far is kept: run the same command again when the server is "
            "well, or raise max_attempts or timeout_s, or lower concurrency, in the judge's file."
        )

    @staticmethod
    def _wait_s(number: int, last: Unanswered | Failed) -> float:
        """Return the pause before attempt 0, 1, ...; the first needs none."""
        if number == 0:
            return 0.0
        ordered = last.retry_after_s if isinstance(last, Failed) else None
        return max(backoff_s(number, random.random()), ordered or 0.0)

    def _attempt(self, key: str, question: str, vote: int) -> Attempt:
        """Send once, counted in budget and ledger however it ends."""
        self.store.reserve()
        outcome, tokens = "interrupted", (0, 0)
        try:
            received = self._send(question, vote)
            if isinstance(received, _Received):
                tokens = count_tokens(read_body(received.text))
            attempt = self._read(received) if isinstance(received, _Received) else received
            outcome = type(attempt).__name__.lower()
            return attempt
        finally:
            self.store.record(
                LedgerEntry(key=key, outcome=outcome, prompt_tokens=tokens[0], completion_tokens=tokens[1])
            )

    def _read(self, received: _Received) -> Attempt:
        attempt = read_reply(received.status, received.text)
        if not isinstance(attempt, Failed):
            return attempt
        wait_s = retry_after_s(received.retry_after, datetime.now(UTC))
        if wait_s is not None and wait_s > MAX_RETRY_AFTER_S:
            return Refused(received.status, f"{attempt.why}: it asks to wait {wait_s:.0f} s")
        return Failed(attempt.why, wait_s)

    def _send(self, question: str, vote: int) -> _Received | Failed:
        try:
            return self._portal.call(self._exchange, self.config.fields(question, vote))
        except TimeoutError:
            return Failed(f"no complete reply within {self.config.timeout_s:g} s (timeout_s)")
        except httpx2.ProxyError as error:
            raise JudgeAPIError(
                f"{self.config.base_url} was not reached{self._way()}: {redact(str(error))}. Correct the proxy's "
                "variable, or name the server in NO_PROXY."
            ) from error
        except httpx2.TransportError as error:
            return Failed(f"no connection ({redact(str(error.__cause__ or error))})")

    async def _exchange(self, body: dict[str, JsonValue]) -> _Received:
        """Post one question. Raises TimeoutError if the whole reply takes longer than `timeout_s`."""
        url = self.config.base_url.rstrip("/") + "/chat/completions"
        with anyio.fail_after(self.config.timeout_s):
            async with self._client.stream("POST", url, json=body) as response:
                found = b""
                async for part in response.aiter_bytes():
                    found += part
                    if len(found) > MAX_BYTES:
                        break
        text = redact(found[:MAX_BYTES].decode(errors="replace"))
        return _Received(response.status_code, response.headers.get("retry-after"), text)

    def _way(self) -> str:
        """Return the proxy of the server, if any."""
        parts = urlsplit(self.config.base_url)
        proxies = getproxies()
        proxy = proxies.get(parts.scheme) or proxies.get("all")
        if not proxy or proxy_bypass(parts.hostname or ""):
            return ""
        return f" through the proxy {urlsplit(proxy).netloc.rpartition('@')[2] or proxy}"

    def _stopped(self, refused: Refused) -> JudgeAPIError:
        return JudgeAPIError(
            f"{self.config.base_url} answered {self.config.model!r}{self._way()} with status {refused.status}: "
            f"{words_of(refused.why, read_body(refused.why))}. No further request was sent; all replies are kept. "
            f"What to do: {self._hint(refused)}."
        )

    def _hint(self, refused: Refused) -> str:
        named = self.config.api_key_env or "api_key_env in the judge's file (null: no key is sent)"
        match refused.status:
            case HTTPStatus.UNAUTHORIZED | HTTPStatus.FORBIDDEN:
                return f"check {named}"
            case HTTPStatus.NOT_FOUND:
                return "check base_url and model in the judge's file"
            case HTTPStatus.PAYMENT_REQUIRED | HTTPStatus.TOO_MANY_REQUESTS:
                return "the account has no quota left; add some, or wait"
            case status if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
                return "set base_url to where the server redirects"
            case HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
                return "check the user and password in the proxy's variable"
        sent = {"temperature": "decoding.temperature", self.config.seed_field: "decoding.seed"}
        cures = [f"set {key}: null" for field, key in sent.items() if re.search(rf"\b{field}\b", refused.why)]
        cures += [f"correct extra_body.{field}" for field in self.config.extra_body if field in refused.why]
        if "max_completion_tokens" in refused.why:
            cures.append("set max_tokens_field: max_completion_tokens")
        return f"{' and '.join(cures) or 'correct the field it names'} in the judge's file"
