"""`alignslm upgrade`: say what newer code will rerun, then record it in code.yaml."""

from pathlib import Path
from typing import Annotated

import typer

from alignslm import __version__, code
from alignslm.cli.options import Root
from alignslm.cli.overview import grouped
from alignslm.cli.times import clock
from alignslm.config.document import read_document
from alignslm.config.yaml_edit import insert_key
from alignslm.integrity import lock_entries
from alignslm.pipeline import read_stages, with_followers
from alignslm.storage import write_text
from alignslm.template.installed import previous_version, renew
from alignslm.terminal import Console
from alignslm.times import stage_seconds

LATER_MAPPINGS = ("guards", "reward_models", "best_of")
OUTCOMES = {
    "added": "new, added",
    "replaced": "replaced by the newer one; you had not edited it",
    "removed": "no longer needed, removed; you had not edited it",
    "edited": "you edited it, so it stays; a newer one exists. Difference from yours to the newer one:",
}


def upgrade(
    root: Root = Path(),
    *,
    keep: Annotated[bool, typer.Option("--keep", help="Keep results made under the recorded code.")] = False,
) -> None:
    """Print what newer code will rerun and what that costs, and record the code in code.yaml.

    Needed after an upgrade of alignslm and after a change of stages/: a stage stops if its code is not the recorded
    code. Files of [bold]alignslm init[/] that you never edited are replaced by newer ones; for those you edited, the
    difference is shown. It runs no stage itself; [bold]dvc repro[/] does.

    [bold]alignslm upgrade[/]

    [bold]alignslm upgrade --keep[/]           nothing reruns; code.yaml records that old results are kept
    """
    console = Console(highlight=False, soft_wrap=True)
    before = previous_version(root)
    for change in renew(root):
        console.print(f"{change.path}: {OUTCOMES[change.kind]}")
        console.print(change.difference, end="", markup=False)
    for key in _add_missing(root / "params.yaml"):
        console.print(f"params.yaml: `{key}: {{}}` added, there are none yet")
    known, now = code.recorded(root), code.current(root)
    changed = sorted(name for name, value in now.items() if not known.stands(name, value))
    if not changed and known.hashes.keys() == now.keys():
        console.print(f"{code.FILE} is up to date")
        return
    cost = "results are kept, nothing will rerun" if keep else _cost(root, changed)
    versions = f" (alignslm {before} to {__version__})" if before not in {None, __version__} else ""
    message = f"since {code.FILE}: {_named(changed)} changed{versions}; {cost}"
    console.print(message if known.hashes else f"{code.FILE}: the code of {len(now)} stage scripts is recorded")
    hashes = {
        name: known.hashes.get(name, value) if keep or name not in changed else value for name, value in now.items()
    }
    code.write(root, hashes, {name: value for name, value in now.items() if value != hashes[name]})


def _add_missing(path: Path) -> list[str]:
    """Add the mappings that experiments of an earlier version do not have; they are empty where nothing is wanted."""
    document = read_document(path)
    if isinstance(document, list) or not isinstance(document.data, dict):  # its faults are told when it is used
        return []
    missing = [key for key in LATER_MAPPINGS if key not in document.data]
    text = path.read_text(encoding="utf-8")
    for key in missing:
        text = insert_key(text, (key,), {})
    if missing:
        write_text(path, text)
    return missing


def _named(scripts: list[str]) -> str:
    return f"{', '.join(scripts[:-1])} and {scripts[-1]}" if scripts[1:] else scripts[0] if scripts else "nothing"


def _cost(root: Path, changed: list[str]) -> str:
    """Return which of the stages that have run will run again, in how much time as far as that was measured."""
    stages, made = read_stages(root), _made(root)
    reached = with_followers(stages, lambda stage: bool({*changed} & {*stage.code}))
    again = [stage for stage in reached if stage.name in made]
    if not again:
        return "no stage that depends on it has run yet"
    measured = stage_seconds(root)
    seconds = [measured[stage.name] for stage in again if stage.name in measured]
    cost = f", some {clock(sum(seconds))} as measured" if seconds else ""
    cost += f" ({len(again) - len(seconds)} not measured)" if len(seconds) < len(again) else ""
    return f"{len(again)} of {len(stages)} stages will rerun{cost}: {grouped(again, stages)}"


def _made(root: Path) -> set[str]:
    """Return the names of stages that dvc.lock says have run."""
    path = root / "dvc.lock"
    return set(lock_entries(path)) if path.exists() else set()
