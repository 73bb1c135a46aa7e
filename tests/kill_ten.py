"""Ten stages killed with SIGKILL, each at a random moment, against a run that nothing disturbed.

    python -m tests.kill_ten [SEED] [FOLDER]      # some four minutes of one core

Both repositories start from nothing, with caches of their own: equal bytes also show that deleting artifacts/ and
the DVC cache and running again gives the same tables. After every kill the whole shards on disk are counted; the next
run has to say that it kept as many.
"""

import contextlib
import ctypes
import hashlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Self

from alignslm.provenance import file_sha256
from tests.micro import ENVIRONMENT, WARM, changed, edit, make_repository, run

KILLS = 10
SHARD_ROWS = 4  # enough shards that a killed stage has some to keep
LIMIT_S = 900.0  # of one `dvc repro`, which takes a tenth of it where the machine has nothing else to do
LOOK_S = 0.005
_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
# What every kind of stage needs, and no more of it: no other system, whose evaluation is the round's over again.
SMALLER = {
    "params.yaml": {
        "systems": {"r1": {"source": "checkpoints/r1"}},
        "prompts": {
            "train": 16,
            "valid": 6,
            "dev": 1,
            "test": 6,
            "cut_at": "sentence",
            "max_duration_s": 4.0,
            "min_units": 10,
        },
    },
    "experiments/corpus/storyworld.yaml": {"stories": {"train": 26, "valid": 8, "dev": 1, "test": 8}},
    "experiments/benchmark/toy-storycloze.yaml": {"stories": 2, "num_hard_stories": 2},
    "experiments/execution.yaml": {"shard_size": SHARD_ROWS},
}


class Moment(NamedTuple):
    """When a stage is killed: so many seconds after it began, or when so many of its shards are durable."""

    seconds: float | None
    shards: int | None

    def __str__(self) -> str:
        return f"after {self.seconds:.1f} s" if self.shards is None else f"at shard {self.shards}"


class Stage(NamedTuple):
    """What an undisturbed run showed of a stage: how long it took, and the most shards that were seen on disk."""

    seconds: float
    shards: int


class Repro:
    """A `dvc repro` of which one knows which stage runs, and for how long."""

    def __init__(self, root: Path) -> None:
        self.root, self.lines = root, list[str]()
        self.began = self.stage_began = time.monotonic()
        self.stage: str | None = None
        self.process = subprocess.Popen(
            (*WARM, "dvc", "repro"),
            cwd=root,
            env={**ENVIRONMENT, "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        for line in self.process.stdout:
            self.lines.append(line.rstrip())
            if found := re.search(r"Running stage '([^']+)'", line):
                self.stage_began, self.stage = time.monotonic(), found[1]

    def watch(self, look: Callable[["Repro"], bool]) -> bool:
        """Look again and again; return True as soon as `look` does, False when all stages are done."""
        while self.process.poll() is None:
            if look(self):
                return True
            if time.monotonic() - self.began > LIMIT_S:
                raise AssertionError(f"no end after {LIMIT_S:.0f} s:\n" + "\n".join(self.lines[-30:]))
            time.sleep(LOOK_S)
        self.reader.join()
        assert self.process.returncode == 0, "a run that was not killed failed:\n" + "\n".join(self.lines[-30:])
        return False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Leave nothing running, whatever happened."""
        if self.process.poll() is None:
            self.kill()

    def kill(self) -> None:
        """Kill DVC, the process that forks, the stage and its processes, and wait until the last of them is dead."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        give_up = time.monotonic() + 20
        while living(self.process.pid):
            assert time.monotonic() < give_up
            time.sleep(LOOK_S)
        with contextlib.suppress(ChildProcessError):  # until no child of the group is left
            while True:
                os.waitpid(-self.process.pid, 0)
        self.reader.join()


def adopt_orphans() -> None:
    """Make this process the parent of those whose own is killed: DVC takes a dead one that nobody buried for a living.

    An init process buries them elsewhere; the first process of a container need not be one.
    """
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def living(group: int) -> bool:
    """Tell whether a process of this group lives."""
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, member_of = status.read_text().rpartition(")")[2].split()[:3]
        except OSError:  # gone meanwhile
            continue
        if int(member_of) == group and state != "Z":
            return True
    return False


def seals(root: Path) -> list[Path]:
    """Return the seals of durable shards, while folders come and go."""
    found = [Path(folder, name) for folder, _, names in os.walk(root / ".work") for name in names]
    return [path for path in found if path.match("part-*.sha256")]


def whole_shards(root: Path) -> int:
    """Count the shards whose content is what their seal says."""
    parts = [(seal, seal.with_suffix(".parquet")) for seal in seals(root)]
    return sum(part.exists() and file_sha256(part) == seal.read_text().strip() for seal, part in parts)


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


def undisturbed(root: Path) -> dict[str, Stage]:
    """Run all stages and return what was seen of each, in their order."""
    seen: dict[str, Stage] = {}

    def look(running: Repro) -> bool:
        if name := running.stage:
            before = seen.get(name, Stage(0.0, 0))
            seen[name] = Stage(time.monotonic() - running.stage_began, max(before.shards, len(seals(root))))
        return False

    with Repro(root) as running:
        running.watch(look)
    return seen


def choose(stages: dict[str, Stage], rng: random.Random, kills: int) -> dict[str, Moment]:
    """Choose stages to be killed, and their moments: half when some shards are durable, half after some time."""
    *names, _ = stages  # after the last one nothing would be left to be killed, were it quicker this time
    sharded = [name for name in names if stages[name].shards > 2]
    by_shards = {name: Moment(None, rng.randrange(1, stages[name].shards)) for name in rng.sample(sharded, kills // 2)}
    others = rng.sample([name for name in names if name not in by_shards], kills - kills // 2)
    return by_shards | {name: Moment(rng.uniform(0, stages[name].seconds), None) for name in others}


def run_until_killed(root: Path, wanted: dict[str, Moment]) -> tuple[Repro, str | None]:
    """Run until a wanted stage has come to its moment, and kill everything.

    Returns the run and the stage, None at the pipeline's end. A stage that ends before its moment is killed when the
    next one has begun: that is a moment too.
    """
    met: list[str] = []

    def look(running: Repro) -> bool:
        if running.stage in wanted and running.stage not in met:
            met.append(running.stage)
        if not met:
            return False
        seconds, shards = wanted[met[0]]
        late = seconds is not None and time.monotonic() - running.stage_began >= seconds
        enough = shards is not None and len(seals(root)) >= shards
        return running.stage != met[0] or late or enough

    with Repro(root) as running:
        killed = running.watch(look)
    return running, met[0] if killed else None


def kept(running: Repro) -> int:
    """Add up the shards that a run says it kept, and print its words."""
    told = [line for line in running.lines if re.search("kept from an interrupted|half written|goes on", line)]
    print("".join(f"    {line}\n" for line in told), end="", flush=True)
    assert not any("running in this workspace" in line for line in running.lines), "a killed stage lived on"
    return sum(int(found[1]) for line in told if (found := re.search(r": (\d+) of \d+ shards kept", line)))


def disturbed(root: Path, wanted: dict[str, Moment]) -> None:
    """Run and kill until every wanted stage was killed, then to the end; hold each run to what it found on disk."""
    on_disk, total, by_shards = 0, 0, sum(moment.shards is not None for moment in wanted.values())
    while True:
        running, name = run_until_killed(root, wanted)
        said = kept(running)
        # A run that was killed before it came to its shards has said nothing, and they are still there.
        assert said == on_disk or (name and said == 0 and whole_shards(root) == on_disk), (said, on_disk)
        total += said
        if name is None:
            break
        on_disk = whole_shards(root)
        where = "" if running.stage == name else f", which had ended, in {running.stage}"
        print(f"killed {name} {wanted.pop(name)}{where}: {on_disk} shards durable", flush=True)
        if "'./dvc.lock' validation failed" in run(root, "dvc", "status", check=False):
            (root / "dvc.lock").unlink()  # what docs/daily.md says to do
            print("    DVC was writing its lock file, which is deleted", flush=True)
    assert not wanted, f"never seen: {wanted}"
    assert total >= by_shards, "hardly a shard was kept"


def main(seed: int, folder: Path, kills: int = KILLS) -> list[str]:
    """Kill so many stages, return the artifacts that differ."""
    adopt_orphans()
    calm, killed = folder / "calm", folder / "killed"
    make_repository(calm)
    for name, changes in SMALLER.items():
        edit(calm / name, changes)
    run(calm, "git", "commit", "-q", "-a", "-m", "smaller")
    shutil.copytree(calm, killed)  # the same commit: the report names it
    stages = undisturbed(calm)
    print(f"undisturbed: {len(stages)} stages, {sum(stage.seconds for stage in stages.values()):.0f} s", flush=True)
    disturbed(killed, choose(stages, random.Random(seed), kills))
    mine, theirs = hashes(killed), hashes(calm)
    assert changed(killed) == {}
    return sorted(path for path in mine.keys() | theirs.keys() if mine.get(path) != theirs.get(path))


if __name__ == "__main__":
    given = sys.argv[1:]
    differing = main(int(given[0]) if given else 0, Path(given[1] if given[1:] else tempfile.mkdtemp()))
    print("\n".join(differing) or "every artifact is equal, byte for byte")
    raise SystemExit(bool(differing))
