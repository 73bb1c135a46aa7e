"""`alignslm export-zrc`: a model's item scores as a submission to ZeroSpeech's sLM21 benchmark."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alignslm.artifacts import Artifacts
from alignslm.cli.options import Root, System
from alignslm.config.benchmarks import Sblimp, Swuggy
from alignslm.config.experiment import Experiment
from alignslm.config.loading import load_experiment
from alignslm.terminal import Console

if TYPE_CHECKING:
    from alignslm.benchmarks.submission import Part, Task

ITEM_COLUMNS = ["item_id", "pair_id", "voice", "polarity"]


def export_zrc(
    model: System,
    folder: Annotated[Path, typer.Argument(help="Where to write the submission.")],
    root: Root = Path(),
    *,
    meta: Annotated[
        Path | None, typer.Option(help="A completed meta.yaml; without one, a template is written.")
    ] = None,
) -> None:
    """Write a system's sWUGGY and sBLIMP scores as a submission to ZeroSpeech's sLM21 benchmark, and check it.

    [bold]alignslm export-zrc r1 submission[/]
    """
    from alignslm.benchmarks.submission import write_submission

    parts = _parts(load_experiment(root), model, root / "artifacts")
    lacking = write_submission(folder, parts, meta=meta, year=datetime.now(UTC).year)
    console = Console(soft_wrap=True, highlight=False)
    for part in parts:
        console.print(f"{folder / part.task / part.split}.txt: {len(part.items)} scores of {model}")
    for problem in lacking:
        console.print(f"to be completed: {problem}")
    tasks, splits = sorted({part.task for part in parts}), sorted({part.split for part in parts})
    console.print(f"score it: zrc benchmarks:run sLM21 {folder} -s {' '.join(splits)} -t {' '.join(tasks)}")


def _parts(experiment: Experiment, model: str, artifacts: Path) -> list[Part]:
    """Return each official sLM21 benchmark of the experiment with the system's scores."""
    from alignslm import tables
    from alignslm.benchmarks import BenchmarkError
    from alignslm.benchmarks.submission import Part

    scores = tables.read(tables.ITEM_SCORES, Artifacts(artifacts).item_scores(model))
    parts: dict[tuple[str, str], Part] = {}
    for name, config in experiment.benchmarks.items():
        if not isinstance(config, Swuggy | Sblimp):
            continue
        task: Task = "lexical" if isinstance(config, Swuggy) else "syntactic"
        if (task, config.split) in parts:
            raise BenchmarkError(f"benchmarks.{name} is a second {task}/{config.split}; keep one of the two")
        items = tables.read(tables.ITEMS, Artifacts(artifacts).benchmark(name), ITEM_COLUMNS)
        parts[task, config.split] = Part(task, config.split, items, scores.filter(benchmark=name))
    if not parts:
        raise BenchmarkError(
            "the experiment scores neither sWUGGY nor sBLIMP as released. Add them to benchmarks in params.yaml, "
            "such as `swuggy: swuggy`, and run `dvc repro`."
        )
    return list(parts.values())
