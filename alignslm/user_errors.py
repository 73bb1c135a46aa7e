"""Which errors are printed as a message for users, and which are bugs that keep their traceback; no secrets."""

import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from alignslm.redaction import redact
from alignslm.storage import disk_error, refusal

MAX_SHOWN = 8  # problems of one kind that a message spells out


def is_user_error(error: BaseException) -> bool:
    """Return whether an error's class is defined in alignslm (TableError, ContractError, ConfigError, ...).

    Such a class is meant for users: its message says what was found, where, and what to do. Every other
    error, including a plain ValueError of this package, is a bug.
    """
    return type(error).__module__.partition(".")[0] == "alignslm"


@contextmanager
def report_user_errors() -> Iterator[None]:
    """End the program with status 1 and only the message, in red on a terminal, for errors meant for users.

    The same for disk errors in a library or the system. Any other traceback is printed without secrets.
    """
    try:
        yield
    except Exception as error:
        if is_user_error(error):
            text = str(error)
        elif number := disk_error(error):
            text = refusal(Path(str(getattr(error, "filename", None) or ".")), number)
        else:
            sys.excepthook = _print_traceback
            raise
        print_error(text)
        raise SystemExit(1) from None


class Problem(NamedTuple):
    """One file, row, pair or speaker that is wrong. Problems of one `kind` are listed together."""

    kind: str
    where: str


def format_problems(problems: Sequence[Problem]) -> list[str]:
    """Return one line per kind, sorted, with the number of problems and the first `SHOWN` places."""
    lines = []
    for kind in sorted({problem.kind for problem in problems}):
        places = sorted(problem.where for problem in problems if problem.kind == kind)
        more = f" ... and {len(places) - MAX_SHOWN} more" if len(places) > MAX_SHOWN else ""
        lines.append(f"  {kind} ({len(places)}): {', '.join(places[:MAX_SHOWN])}{more}")
    return lines


def _print_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    print(redact("".join(traceback.format_exception(kind, error, trace))), end="", file=sys.stderr)


def print_error(message: str) -> None:
    """Print a message on stderr without secrets, in red on a terminal."""
    from rich.text import Text

    from alignslm.terminal import Console

    Console(file=sys.stderr, soft_wrap=True, highlight=False).print(Text(redact(message), style="red"))
