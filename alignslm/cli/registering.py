"""How a function becomes a command: errors that are told end it with their message alone and status 1."""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeAlias

import typer

from alignslm.failures import told

Command: TypeAlias = Callable[..., None]


def commands_of(app: typer.Typer) -> Callable[[Command], Command]:
    """Return a decorator that adds functions to an app; `continue_` becomes `continue`, `export_zrc` `export-zrc`."""

    def command(function: Command) -> Command:
        """Add a function as a command of its own name."""

        @wraps(function)
        def run(*args: Any, **options: Any) -> None:
            """Call the function, and end with its message where it fails."""
            with told():
                function(*args, **options)

        return app.command(function.__name__.strip("_").replace("_", "-"))(run)

    return command
