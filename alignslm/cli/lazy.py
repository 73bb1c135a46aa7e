"""Commands that are imported when they run, so that help and quick commands do not wait for libraries."""

import ast
import inspect
import re
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup

from alignslm.user_errors import report_user_errors


class LazyGroup(TyperGroup):
    """A group of commands that are functions elsewhere: `module:function` by panel of the help and by name.

    A subclass sets `panels`. Help reads the first line of each function's docstring from its source, so it imports
    none of them. Errors of alignslm end any command with their message and status 1.
    """

    panels: ClassVar[Mapping[str, Mapping[str, str]]]

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.commands = {name: TyperCommand(name) for commands in self.panels.values() for name in commands}

    def get_command(self, _: Any, name: str) -> TyperCommand | None:
        """Return what help shows of a command, or None if there is no such command."""
        for panel, commands in self.panels.items():
            if name in commands:
                return TyperCommand(name, help=_summary(commands[name]), rich_help_panel=panel)
        return None

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Return the command that the arguments name, imported, and the arguments after its name."""
        name, found, rest = super().resolve_command(ctx, args)
        paths = {each: path for commands in self.panels.values() for each, path in commands.items()}
        return name, found and _load(str(name), paths[str(name)]), rest

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        with report_user_errors():
            return super().invoke(ctx)


def _summary(path: str) -> str:
    """Return the first line of a function's docstring, or of its module's if the name is a group of commands."""
    module, _, name = path.partition(":")
    spec = find_spec(module)
    tree = ast.parse(Path(str(spec and spec.origin)).read_text(encoding="utf-8"))
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name]
    return (ast.get_docstring(functions[0] if functions else tree) or "").partition("\n")[0]


def _load(name: str, path: str) -> Any:
    """Return the command of a function, or the group that a Typer app is."""
    module, _, attribute = path.partition(":")
    found = getattr(import_module(module), attribute)
    if isinstance(found, typer.Typer):
        for command in found.registered_commands:
            command.help = _flowing(command.callback)
        return typer.main.get_command(found)
    app = typer.Typer(rich_markup_mode="rich", add_completion=False)
    app.command(name, help=_flowing(found))(found)
    return typer.main.get_command(app)


def _flowing(function: object) -> str:
    """Return a docstring with one line per paragraph: Typer would keep its line ends, and wrap each line again."""
    return re.sub(r"(?<!\n)\n(?!\n)", " ", inspect.getdoc(function) or "")
