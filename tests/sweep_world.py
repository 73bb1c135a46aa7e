"""A pipeline of seconds for sweeps: real configs, DVC, git and tables; the evaluation is shifted by `weights.ppl`.

A run fails at `weights.num_words` 9, and waits in its last stage while the file that $SWEEP_WAITS names exists.
"""

import os
import shutil
import sys
import time
from pathlib import Path

import polars as pl

from alignslm import tables
from alignslm.config.loading import load_experiment
from tests.micro import ROOT, copy_project, run, start_history

PIPELINE = """\
stages:
  check:
    cmd: python -m stages.world check
    params: [{params.yaml: }]
    outs: [artifacts/checked.txt]
  world:
    cmd: python -m stages.world world
    deps: [artifacts/checked.txt]
    params: [seeds.base]
    outs: [artifacts/world]
  judge:
    foreach: ['$JUDGE', '$HELDOUT']
    do:
      cmd: python -m stages.world judge ${item}
      deps: ["experiments/judge/${item}.yaml"]
      outs: ["artifacts/judges/${item}"]
  eval:
    cmd: python -m stages.world eval
    deps: [artifacts/world, artifacts/judges]
    params: [weights, judge, seeds.base]
    outs: [artifacts/eval, artifacts/samples, artifacts/mos, artifacts/prompts.parquet]
""".replace("$JUDGE", "${judge}").replace("$HELDOUT", "${heldout_judge}")
VARIABLES = {"PYTHONPATH": str(ROOT), "COLUMNS": "80"}


def make_world(root: Path) -> Path:
    """Make a git and DVC repository with a commit."""
    copy_project(root)
    (root / "dvc.yaml").write_text(PIPELINE)
    for module in (root / "stages").glob("[!_]*.py"):
        module.unlink()
    (root / "stages/world.py").write_text("from tests.sweep_world import main\n\nmain()\n")
    start_history(root)
    return root


def sweep(root: Path, *arguments: str, **options) -> str:
    return run(root, sys.executable, "-m", "alignslm", "sweep", *arguments, variables=VARIABLES, **options)


def shift(prompts: pl.Series, *, ppl: float, seed: int) -> pl.Series:
    """Return what r1's scores of each prompt are moved by."""
    place = prompts.rank("dense").cast(pl.Int64)
    return 0.2 * ppl + 0.1 * ppl * (place % 3) + 0.05 * seed * (place % 5)


def _eval(world: Path, artifacts: Path) -> None:
    params = load_experiment().params
    for name in ("eval", "samples", "mos", "prompts.parquet"):
        copy = shutil.copytree if (world / name).is_dir() else shutil.copy
        copy(world / name, artifacts / name)
    judged = tables.read(tables.CONTINUATION_METRICS, world / "eval/r1/judged.parquet")
    moved = pl.col("value") + shift(judged["prompt_id"], ppl=params.weights.ppl, seed=params.seeds.base)
    frame = judged.with_columns(value=pl.when(pl.col("metric") == "judge_score").then(moved).otherwise("value"))
    tables.write(frame, tables.CONTINUATION_METRICS, artifacts / "eval/r1/judged.parquet")
    if params.weights.num_words == 9:
        sys.exit("the ninth word is too much")


def main() -> None:
    """Run the stage of the command line, as `python -m stages.world` does."""
    stage, *arguments = sys.argv[1:]
    from tests.report_world import build

    artifacts = Path("artifacts")
    artifacts.mkdir(exist_ok=True)
    match stage:
        case "check":
            (artifacts / "checked.txt").write_text("valid\n")
        case "world":
            build(artifacts / "world")
        case "judge":
            (folder := artifacts / "judges" / arguments[0]).mkdir(parents=True)
            shutil.copy(f"experiments/judge/{arguments[0]}.yaml", folder)
        case "eval":
            while os.path.exists(os.environ.get("SWEEP_WAITS", "")):  # noqa: PTH110 no path is "", the current folder is
                time.sleep(0.1)
            _eval(artifacts / "world", artifacts)
