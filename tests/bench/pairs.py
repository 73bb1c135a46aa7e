"""How long the stage `pairs` takes and how much memory it needs, on simulated tables of any size."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from ruamel.yaml import YAML

from alignslm.artifacts import Artifacts
from alignslm.config.loading import load_experiment
from alignslm.storage import atomic_write, copy_file
from tests.bench import BenchError
from tests.bench.round_tables import Written, write_round


class PairsMeasured(NamedTuple):
    """One run of the stage in a process of its own; `peak_bytes` is that process's largest resident size."""

    written: Written
    write_s: float
    wall_s: float
    cpu_s: float
    peak_bytes: int
    pairs: int
    pair_bytes: int


def run(
    continuations: int, *, draws: int, seed: int, ranked: bool, root: Path, folder: Path | None = None
) -> PairsMeasured:
    """Simulate a round of `continuations`, run the real stage on it, measure, and delete everything.

    Selector, weights and the first round's thresholds are those of `root`'s params.yaml; `ranked` gives every metric a
    weight, so that ranks over the whole pool are needed. Files go below `folder`, or where temporary files go; about
    300 bytes a continuation are needed. Raises BenchError, StorageError.
    """
    experiment = load_experiment(root)
    name = next(iter(experiment.params.preferences))
    with tempfile.TemporaryDirectory(dir=folder, prefix="bench-pairs-") as place:
        work = Path(place)
        for file in ("params.yaml", "dvc.yaml", "code.yaml"):
            copy_file(root / file, work / file)
        shutil.copytree(root / "experiments", work / "experiments")
        if ranked:
            _weigh_everything(work / "params.yaml")
        began = time.monotonic()
        written = write_round(
            work / "artifacts",
            continuations=continuations,
            draws=draws,
            rules=experiment.params.preferences[name],
            seed=seed,
            name=name,
        )
        Artifacts(work / "artifacts").own_code(f"selector/{experiment.params.selector}").mkdir(parents=True)
        write_s = time.monotonic() - began
        wall_s, cpu_s, peak_bytes = _measure(root, work, name)
        return PairsMeasured(written, write_s, wall_s, cpu_s, peak_bytes, *_made(work / "artifacts", name, written))


def _weigh_everything(params: Path) -> None:
    yaml = YAML()
    content = yaml.load(params.read_text(encoding="utf-8"))
    content["weights"] = dict.fromkeys(content["weights"], 1.0)
    with atomic_write(params) as partial:
        yaml.dump(content, partial)


# Linux counts a parent's peak as its child's own where memory is shared until the child's program starts, so a small
# interpreter, not this large one, starts what is measured.
_TIMER = """
import json, os, subprocess, sys, time
began = time.monotonic()
child = subprocess.Popen(sys.argv[1:], stdout=sys.stderr)
_, status, usage = os.wait4(child.pid, 0)
code = os.waitstatus_to_exitcode(status)
print(json.dumps([code, time.monotonic() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss]))
"""


def _measure(root: Path, work: Path, name: str) -> tuple[float, float, int]:
    """Return wall seconds, processor seconds and peak bytes of the stage."""
    timer = subprocess.run(
        [sys.executable, "-c", _TIMER, sys.executable, "-m", "stages.pairs", name],
        cwd=work,
        env={**os.environ, "PYTHONPATH": str(root.resolve())},
        capture_output=True,
        text=True,
        check=True,
    )
    status, wall_s, cpu_s, peak = json.loads(timer.stdout)
    if status:
        raise BenchError(f"the stage pairs ended with status {status}: {timer.stderr.strip()}")
    return wall_s, cpu_s, peak * (1 if sys.platform == "darwin" else 1024)


def _made(artifacts: Path, name: str, written: Written) -> tuple[int, int]:
    """Return how many pairs were made and their bytes. Raises BenchError where prompts got lost."""
    account = json.loads((artifacts / "pair_counts" / f"{name}.json").read_text())
    splits = [account["train"], account["valid"]]
    prompts = sum(split["prompts"] for split in splits)
    if prompts != written.selectable:
        raise BenchError(f"{written.selectable} prompts were simulated, {prompts} are accounted for")
    size = (artifacts / "pairs" / f"{name}.parquet").stat().st_size
    return sum(split["pairs"] for split in splits), size


def format_result(measured: PairsMeasured) -> list[str]:
    """Return what was measured, a line a fact."""
    written, rate = measured.written, measured.written.continuations / measured.wall_s
    size = f"{written.continuations} continuations of {written.prompts} prompts, {written.num_bytes / 1e9:.2f} GB"
    made = f"{measured.pairs} pairs, {measured.pair_bytes / 1e9:.2f} GB"
    took = f"{measured.wall_s:.1f} s ({measured.cpu_s:.1f} s of processor, {rate:.0f} continuations/s)"
    return [
        f"simulated: {size}, in {measured.write_s:.1f} s",
        f"selected: {made}, in {took}, peak memory {measured.peak_bytes / 1e9:.2f} GB",
    ]
