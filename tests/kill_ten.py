"""Ten stages killed with SIGKILL, each at a random moment, against a run that nothing disturbed.

    python -m tests.kill_ten [SEED] [FOLDER]      # some five minutes on two cores

Both repositories start from nothing, with caches of their own: equal bytes also show that deleting artifacts/ and
the DVC cache and running again gives the same tables.
"""

import hashlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.micro import ENVIRONMENT, edit, make_repository, run

KILLS = 10
SHARD_ROWS = 6  # enough shards that a killed stage has some to keep
UNKILLABLE_S = 0.2  # of a stage's start, in which its name is only being printed


def hashes(root: Path) -> dict[str, str]:
    """Return the SHA-256 of every artifact and of the report's figures, by path.

    What a killed process left half written has a hidden name and is no artifact; the next write of that file sweeps it.
    """
    files = [path for folder in ("artifacts", "reports") for path in sorted((root / folder).rglob("*"))]
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.is_file() and not path.name.endswith(".partial")
    }


def begin(root: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ("dvc", "repro"),
        cwd=root,
        env={**ENVIRONMENT, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def undisturbed(root: Path) -> dict[str, float]:
    """Run all stages and return how many seconds each took."""
    process = begin(root)
    began = [
        (found[1], time.monotonic())
        for line in process.stdout
        if (found := re.search(r"Running stage '([^']+)'", line))
    ]
    assert process.wait() == 0
    ends = [*(moment for _, moment in began[1:]), time.monotonic()]
    return {name: end - moment for (name, moment), end in zip(began, ends, strict=True)}


def run_until_killed(root: Path, wanted: dict[str, float]) -> str | None:
    """Run until a wanted stage has worked for its seconds, kill everything, and return the stage; None at the end."""
    process = begin(root)
    for line in process.stdout:
        if "kept from an interrupted run" in line or "training goes on" in line:
            print(f"    {line.strip()}", flush=True)
        found = re.search(r"Running stage '([^']+)'", line)
        if found and found[1] in wanted:
            time.sleep(UNKILLABLE_S + wanted[found[1]])
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return found[1]
    assert process.wait() == 0, "a run that was not killed failed"
    return None


def main(seed: int, folder: Path) -> list[str]:
    """Return the artifacts that differ."""
    rng, calm, killed = random.Random(seed), folder / "calm", folder / "killed"
    make_repository(calm)
    edit(calm / "experiments/execution.yaml", {"shard_rows": SHARD_ROWS})
    shutil.copytree(calm, killed)  # the same commit: the report names it
    seconds = undisturbed(calm)
    print(f"undisturbed: {len(seconds)} stages, {sum(seconds.values()):.0f} s", flush=True)
    chosen = rng.sample(sorted(seconds), KILLS)
    wanted = {name: rng.uniform(0, seconds[name]) for name in chosen}
    while name := run_until_killed(killed, wanted):
        print(f"killed {name} after {wanted.pop(name):.1f} of {seconds[name]:.1f} s", flush=True)
    assert not wanted, f"never seen: {wanted}"
    mine, theirs = hashes(killed), hashes(calm)
    assert "up to date" in run(killed, "dvc", "status")
    return sorted(path for path in mine.keys() | theirs.keys() if mine.get(path) != theirs.get(path))


if __name__ == "__main__":
    given = sys.argv[1:]
    differing = main(int(given[0]) if given else 0, Path(given[1] if given[1:] else tempfile.mkdtemp()))
    print("\n".join(differing) or "every artifact is equal, byte for byte")
    raise SystemExit(bool(differing))
