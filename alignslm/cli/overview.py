"""`alignslm stages`: the experiment as a picture, and its stages."""

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from pathlib import Path
from textwrap import fill

from rich.columns import Columns
from rich.console import RenderableType
from rich.text import Text
from rich.tree import Tree

from alignslm.cli.options import Root
from alignslm.cli.terminal import grid
from alignslm.config.experiment import BASE, Params
from alignslm.config.loading import load_experiment
from alignslm.pipeline import Stage, read_stages, sources, with_followers
from alignslm.terminal import Console

MARKS = {"done": ("✓", "green"), "changed": ("~", "yellow"), "to run": ("·", "dim")}
PREFERENCES = ("continuations", "speech", "transcripts", "scores", "pairs")
BLOCK = 78  # columns; a terminal of twice as many shows the stages side by side
NO_BREAK = "\N{NO-BREAK SPACE}"


def stages(root: Root = Path()) -> None:
    """Print what the experiment makes from what, and every stage of dvc.yaml with its inputs and outputs.

    Each is done (✓), changed (~: itself or something before it, so [bold]dvc repro[/] may run it again) or to run (·).
    """
    found, console = read_stages(root), Console(highlight=False)
    changed = changed_stages(root)
    state = states(found, changed or (), root)
    blocks = list(stage_list(found, state, width=min(console.width, BLOCK)))
    if console.width >= 2 * BLOCK + 2:
        console.print(Columns(blocks, padding=(0, 2), column_first=True))
    else:
        for block in blocks:
            console.print(block, soft_wrap=True)
    console.print(picture(load_experiment(root).params, state))
    counts = ", ".join(f"{list(state.values()).count(name)} {name} ({mark})" for name, (mark, _) in MARKS.items())
    console.print(f"\n{len(found)} stages: {counts}")
    if changed is None:
        console.print("`dvc status` failed, so changes are unknown: done means that the outputs exist.")


def changed_stages(root: Path) -> list[str] | None:
    """Return the stages that DVC would run again; None if it cannot say, for example during a run."""
    command = [sys.executable, "-m", "dvc", "status", "--json"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)  # noqa: S603 fixed words
    if done.returncode != 0:
        return None
    return [name for name, how in json.loads(done.stdout).items() if how != ["always changed"]]


def states(stages: list[Stage], changed: Iterable[str], root: Path) -> dict[str, str]:
    """Return a key of MARKS for each stage; `stages` are in running order."""
    known = set(changed)
    absent = {stage.name for stage in stages if not all((root / out).exists() for out in stage.outs)}
    again = with_followers(stages, lambda stage: stage.name in known | absent)
    return {
        stage.name: "to run" if stage.name in absent else "changed" if stage in again else "done" for stage in stages
    }


def picture(params: Params, state: Mapping[str, str]) -> RenderableType:
    """Return rows of models, data and systems; checkpoints are a tree with the preferences sampled from each."""
    judges = {f"{name} ({use})": name for name, use in ((params.judge, "training"), (params.heldout_judge, "held-out"))}
    return grid(
        ("", ""),
        [
            ("corpus", _chain(_marked(params.corpus, state, "corpus"), _marked("prompts", state, "prompts"))),
            ("encoder", _chain(_marked(params.encoder, state, "encoder"), _marked("units", state, "units"))),
            ("vocoder", _marked(params.vocoder, state, "vocoder")),
            ("ASR model", _marked(params.asr, state, "asr")),
            ("judges", _row(_marked(text, state, f"judge@{name}") for text, name in judges.items())),
            ("checkpoints", _checkpoint(BASE, params, state)),
            (
                "systems",
                _row(_marked(name, state, f"samples@{name}", f"eval@{name}") for name in params.ordered_systems),
            ),
            ("benchmarks", _row(_marked(name, state, f"benchmarks@{name}") for name in params.benchmarks)),
            ("report", _marked("reports/index.html", state, "mos", "report")),
        ],
        numbers=(),
        styles=("bold",),
    )


def _checkpoint(name: str, params: Params, state: Mapping[str, str]) -> Tree:
    """Return a checkpoint, the preferences sampled from it, and checkpoints trained from it on other data."""
    item, guard = params.checkpoints.get(name), params.guards.get(name)
    made_from = "guard" if guard else params.lm if item is None else f"{item.trainer}, from {item.init_from}"
    stage = f"guard@{name}" if guard else name if item is None else f"train@{name}"
    tree = Tree(_marked(f"{name} ({made_from})", state, stage))
    imported = params.imported_preferences if name == BASE else {}
    for pairs in [*(key for key, of in params.preferences.items() if of.sampled_from == name), *imported]:
        made_by = (f"{stage}@{pairs}" for stage in (*PREFERENCES, "imported_pairs"))
        branch = tree.add(_marked(f"{'imported ' if pairs in imported else ''}preferences {pairs}", state, *made_by))
        for trained_on, one in params.checkpoints.items():
            if one.pairs == pairs:
                branch.add(_checkpoint(trained_on, params, state))
        for reward in (key for key, one in params.reward_models.items() if one.preferences == pairs):
            branch.add(_marked(f"reward model {reward}", state, f"reward@{reward}"))
    for best in (key for key, one in params.best_of.items() if one.sampled_from == name):
        tree.add(_marked(f"best of {params.best_of[best].num_continuations} {best}", state, f"best_of@{best}"))
    for other, one in params.checkpoints.items():
        if one.pairs is None and one.init_from == name:
            tree.add(_checkpoint(other, params, state))
    for other, of in params.guards.items():
        if of.steps_of == name:
            tree.add(_checkpoint(other, params, state))
    return tree


def _marked(text: str, state: Mapping[str, str], *stages: str) -> Text:
    """Return a noun with the mark of its stages: changed if one is, else to run if one is."""
    found = {state[stage] for stage in stages if stage in state}
    mark, style = MARKS[next((name for name in ("changed", "to run") if name in found), "done")]
    return Text(f"{mark}{NO_BREAK}{text}".replace(" ", NO_BREAK), style=style)


def _row(nouns: Iterable[Text]) -> Text:
    return Text("  ").join(nouns)


def _chain(*nouns: Text) -> Text:
    return Text(" ─► ").join(nouns)


def stage_list(stages: list[Stage], state: Mapping[str, str], *, width: int) -> Iterator[Text]:
    """Yield a block per description: its stages with their sources and outputs, wrapped between names only."""
    for description, some in groupby(stages, key=lambda stage: stage.description):
        block = Text(f"{description}\n" if description else "", style="italic")
        for stage in some:
            block.append_text(_marked(stage.name, state, stage.name))
            before = grouped(sources(stage, stages), stages)
            for line in ([f"from {before}"] if before else []) + [*stage.outs]:
                block.append(f"\n{_wrapped(line, width)}", style="not italic")
            block.append("\n")
        yield block


def _wrapped(text: str, width: int) -> str:
    return fill(
        text, width, initial_indent="  ", subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
    )


def grouped(few: list[Stage], stages: list[Stage]) -> str:
    """Return stage names, the items of one `foreach` together: `pairs@r1,r2`, or `pairs@*` for all of several."""
    several = _items(stages)
    return ", ".join(
        name if items == [""] else f"{name}@{'*' if len(items) > 1 and items == several[name] else ','.join(items)}"
        for name, items in _items(few).items()
    )


def _items(stages: list[Stage]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for stage in stages:
        name, _, item = stage.name.partition("@")
        groups.setdefault(name, []).append(item)
    return groups
