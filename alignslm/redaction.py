"""Secrets kept out of all that is printed or written: messages, tracebacks, text files, cards, replies of servers."""

import json
import os
import re
from urllib.parse import quote, urlsplit

HIDDEN = "[redacted]"
MIN_SECRET = 8  # a shorter value, or one of letters only, may be a word of the text
_SECRET_NAME = re.compile(
    r"(^|_)(API)?(KEY|TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL)S?(_|$)|^OPENAI_(ORG|PROJECT)_ID$",
    re.IGNORECASE,
)
_LOOKS_SECRET = [
    (re.compile(pattern), rf"\g<1>{HIDDEN}")
    for pattern in (
        r"(://)[^/\s@]+(?=@)",
        r"(?i)([?&](?:api[-_]?key|key|(?:access_?)?token|sig|(?:x-amz-)?signature|password|secret)=)[^&\s\"'#]+",
        r"(?i)(\b(?:bearer|basic) )[\w.~+/=-]{16,}",
        r"()\b(?:sk|pk|rk|xai|nvapi|glpat|xox[abprs])-[\w-]{16,}",
        r"()\b(?:hf|gsk|r8|gh[pousr]|github_pat)_\w{16,}",
        r"()\b(?:AKIA|ASIA|AIza)[\w-]{16,}",
        r"()\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]{8,}",
    )
]
_EMBEDDED = re.compile(r"(data:[\w/+.-]+;base64,[A-Za-z0-9+/]+=*)")  # audio spells keys by chance
_named_secrets: set[str] = set()


def remember_secret(value: str) -> None:
    """Let `redact` hide a value that its variable's name does not give away, such as a judge's key."""
    _named_secrets.add(value)


def _secrets() -> set[str]:
    """Return the secrets of the environment: values of variables named so, and passwords in URLs."""
    found = set(_named_secrets)
    for name, value in os.environ.items():
        if _SECRET_NAME.search(name) and not value.startswith(("/", "~")):
            found.add(value.strip())
        if "://" in value and "@" in value:
            found.add(_password(value))
    return {value for value in found if len(value) >= MIN_SECRET and not value.isalpha()}


def _password(url: str) -> str:
    try:
        return urlsplit(url.strip()).password or ""
    except ValueError:  # no URL after all
        return ""


def redact(text: str) -> str:
    """Return a text with every secret of the environment, and all that looks like one, replaced by `HIDDEN`.

    Base64 data URLs stay as they are.
    """
    parts = _EMBEDDED.split(text)
    return "".join(part if place % 2 else _redacted(part) for place, part in enumerate(parts))


def _redacted(text: str) -> str:
    for secret in sorted(_secrets(), key=len, reverse=True):
        for form in (secret, json.dumps(secret)[1:-1], repr(secret)[1:-1], quote(secret, safe="")):
            text = text.replace(form, HIDDEN)
    for pattern, shown in _LOOKS_SECRET:
        text = pattern.sub(shown, text)
    return text
