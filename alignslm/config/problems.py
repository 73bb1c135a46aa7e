"""Problems of parameter files: where, what was found, and what to write instead."""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from alignslm.redaction import redact


@dataclass(frozen=True, order=True)
class ConfigProblem:
    """One problem. `line` counts from 1 and is None for the whole file; `key` is dotted."""

    file: str
    line: int | None
    key: str
    message: str

    def __str__(self) -> str:
        """Return `file:line: key: message`, the form editors jump to."""
        where = self.file if self.line is None else f"{self.file}:{self.line}"
        return ": ".join(part for part in (where, self.key, self.message) if part)


class ConfigError(ValueError):
    """Parameter files are at fault; the message lists every fault of every file, one a line."""

    def __init__(self, faults: Iterable[ConfigProblem]) -> None:
        """Sort by file and line and drop repetitions (two keys may choose the same file)."""
        self.faults = tuple(sorted(set(faults), key=lambda fault: (fault.file, fault.line or 0, fault.key)))
        super().__init__("\n".join(str(fault) for fault in self.faults))


def closest_match(name: str, known: Iterable[str]) -> str | None:
    """Return the known name most similar to `name`, or None if none is similar enough."""
    matches = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.6)
    return matches[0] if matches else None


def suggestion(name: str, known: Sequence[str], *, label: str = "known", always_list: bool = True) -> str:
    """Return "; did you mean 'x'?" and the list of known names, as far as they help."""
    guess = closest_match(name, known)
    hint = "" if guess is None else f"; did you mean {guess!r}?"
    if guess is not None and not always_list:
        return hint
    listed = f"{label}: {', '.join(known) or 'none'}"
    return f"{hint} {listed}" if hint else f"; {listed}"


def found(value: object) -> str:
    """Return a value as YAML reads it, with its type if that may surprise."""
    match value:
        case None:
            return "nothing (null)"
        case bool():
            return f"{str(value).lower()} (true or false)"
        case str():
            return f"{redact(value)[:60]!r} (text)"
        case dict():
            return "a mapping"
        case list():
            return "a list"
        case _:
            return str(value)
