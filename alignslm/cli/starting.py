"""`alignslm init`: a repository for an experiment of one's own."""

import subprocess
from pathlib import Path
from typing import Annotated

import typer

from alignslm.config.presets import apply_preset, list_presets
from alignslm.template.installed import TemplateError, begin
from alignslm.terminal import Console


def init(
    folder: Annotated[Path, typer.Argument(help="The folder to create; it must not exist, or be empty.")],
    *,
    preset: Annotated[str | None, typer.Option("--preset", "-p", help="Start with this preset.")] = None,
) -> None:
    """Create a git and DVC repository for an experiment of your own.

    [bold]alignslm init my-experiment[/]

    [bold]alignslm init my-experiment --preset slam[/]
    """
    begin(folder)
    if preset:
        if preset not in list_presets(folder):
            raise TemplateError(f"{preset} is not a preset; {folder} is the default. `alignslm preset` lists them.")
        apply_preset(preset, folder)
    git = [("init", "--quiet"), ("add", "--all"), ("commit", "--quiet", "--message", f"alignslm init {folder.name}")]
    committed = all(_git(folder, *arguments) for arguments in git)
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"{folder} is an experiment: params.yaml says which, dvc.yaml how.")
    if not committed:
        console.print("git could not commit it (see above): mend that, then `git init && git add --all && git commit`.")
    console.print(f"Next: cd {folder} && alignslm check && dvc repro")


def _git(folder: Path, *arguments: str) -> bool:
    try:
        return subprocess.run(["git", *arguments], cwd=folder, check=False).returncode == 0  # noqa: S603, S607
    except FileNotFoundError:
        return False
