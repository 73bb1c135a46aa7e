"""The lineage of a round: its part of dvc.lock, its parameter files, and the state of the code."""

import hashlib
import io
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import NamedTuple

from ruamel.yaml import YAML

from alignslm.config.execution import Execution
from alignslm.config.experiment import Experiment
from alignslm.integrity import identity_of, lock_entries
from alignslm.publishing import PublishError
from alignslm.report.run_info import git

PACKAGES = ("alignslm", "torch", "transformers", "trl", "peft")
CODE = ("alignslm", "stages", "dvc.yaml")
# Not machine-specific: addresses stay private, and the machine must not change what is pushed.
EXECUTION = Execution(
    device="auto",
    engine="local",
    ray_address="auto",
    replicas="auto",
    num_workers=2,
    batch_size=16,
    shard_size=500,
    batch_invariant=False,
    num_processes=1,
    fsdp="none",
)
PARAMETERS = "experiment"  # folder in the repository


class Lineage(NamedTuple):
    """The origin of a round. `commit` is None outside a git repository; `changed` are uncommitted code files.

    `lock` is the part of dvc.lock for the round's checkpoint, its evaluation and all they depend on: equal text means
    equal artifacts, independent of what else the workspace has made since.
    """

    lock: bytes
    commit: str | None
    changed: tuple[str, ...]
    packages: dict[str, str]

    @property
    def lock_sha256(self) -> str:
        """The hash of experiment/dvc.lock in the repository."""
        return hashlib.sha256(self.lock).hexdigest()

    @property
    def experiment_id(self) -> str:
        """Eight hex digits, equal for equal parameters, data and code."""
        return self.lock_sha256[:8]


def lineage_of(root: Path, wanted: Sequence[str]) -> Lineage:
    """Return the lineage of the artifacts at the paths `wanted`. PublishError if dvc.lock lacks one."""
    changed = git(root, "status", "--porcelain", "--untracked-files=all", "--", *CODE) or ""
    return Lineage(
        lock=lock_slice(root / "dvc.lock", wanted),
        commit=git(root, "rev-parse", "HEAD"),
        changed=tuple(sorted(line[2:].strip() for line in changed.splitlines())),
        packages={name: version(name) for name in PACKAGES},
    )


def lock_slice(lock: Path, wanted: Sequence[str]) -> bytes:
    """Return the entries of a dvc.lock that made `wanted` and their inputs, as YAML text.

    Of files and folders only path and hash, so that `dvc push` changes nothing, whatever the remote keeps.
    """
    if not lock.is_file():
        raise PublishError(f"{lock} does not exist, so the lineage of the artifacts is unknown. Run `dvc repro`.")
    entries = lock_entries(lock)
    makers = {out["path"]: name for name, entry in entries.items() for out in entry.get("outs", ())}
    needed: set[str] = set()
    paths = list(wanted)
    while paths:
        found = _maker(paths.pop(), makers)
        if found and found not in needed:
            needed.add(found)
            paths += [dep["path"] for dep in entries[found].get("deps", ())]
    if absent := [path for path in wanted if _maker(path, makers) is None]:
        raise PublishError(f"{lock} has no entry for {', '.join(absent)}. Run `dvc repro`.")
    for entry, part in product((entries[name] for name in needed), ("deps", "outs")):
        if part in entry:
            entry[part] = [identity_of(item) for item in entry[part]]
    stream = io.BytesIO()
    YAML(typ="safe", pure=True).dump(
        {"schema": "2.0", "stages": {name: entries[name] for name in sorted(needed)}}, stream
    )
    return stream.getvalue()


def _maker(path: str, makers: Mapping[str, str]) -> str | None:
    """Return the stage with an output that is or contains the path."""
    return next((makers[place] for place in (path, *map(str, Path(path).parents)) if place in makers), None)


def parameter_files(experiment: Experiment, root: Path) -> dict[str, Path | bytes]:
    """Return params.yaml and every config it names, by their names in the repository, so that readers can rerun it.

    This copy of params.yaml publishes nothing: it would try to write to this repository.
    """
    params = re.sub(r"(?m)^publish:[^#\n]*", "publish: none", (root / "params.yaml").read_text(encoding="utf-8"))
    files: dict[str, Path | bytes] = {
        f"{PARAMETERS}/params.yaml": params.encode(),
        f"{PARAMETERS}/experiments/publish/none.yaml": b"kind: none\n",
        f"{PARAMETERS}/experiments/execution.yaml": EXECUTION.model_dump_json(indent=1).encode() + b"\n",
    }
    for choice in experiment.choices():
        if choice.key != "publish":
            files[f"{PARAMETERS}/{choice.file.as_posix()}"] = root / choice.file
    for judge in (experiment.judge, experiment.heldout_judge):
        if rubric := getattr(judge, "rubric", None):
            name = f"experiments/rubric/{rubric}.txt"
            files[f"{PARAMETERS}/{name}"] = root / name
    return files
