"""Which errors are told to the reader as a message, and which are bugs that keep their traceback."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


def is_told(error: BaseException) -> bool:
    """Tell whether an error's class is defined in alignslm (TableError, ContractError, ConfigError, ...).

    Such a class is written for the reader: its message says what was found, where, and what to do. Every other
    error, a plain ValueError of this package included, is a broken promise inside the code.
    """
    return type(error).__module__.partition(".")[0] == "alignslm"


@contextmanager
def told() -> Iterator[None]:
    """End the program with status 1 and the message alone, in red on a terminal, for errors that are told."""
    try:
        yield
    except Exception as error:
        if not is_told(error):
            raise
        tell(str(error))
        raise SystemExit(1) from None


def tell(message: str) -> None:
    """Print a message on stderr, in red on a terminal."""
    from rich.console import Console
    from rich.text import Text

    Console(file=sys.stderr, soft_wrap=True, highlight=False).print(Text(message, style="red"))
