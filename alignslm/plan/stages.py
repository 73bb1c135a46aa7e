"""The stages that a run would make: those that differ from dvc.lock, and all that read their outputs.

DVC decides in the same way, and also knows whether an output was altered since. This does not import DVC, and can plan
values that are not in params.yaml yet.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from alignslm.config.document import Plain, parse_document
from alignslm.integrity import identity_of, listing, lock_entries, tree_md5
from alignslm.pipeline import Stage, read_stages, sources, with_followers


def planned_stages(
    root: Path, *, params: str | None = None, stale: Collection[str] = ()
) -> tuple[list[Stage], list[Stage]]:
    """Return all stages, and those that would run. `params` stands in for the text of params.yaml.

    `stale` are inputs that the run will find changed, of folders outside the repository.

    Raises ConfigError, PipelineError, LockError.
    """
    stages, lock = read_stages(root, params=params), root / "dvc.lock"
    locked = lock_entries(lock) if lock.exists() else {}
    read = {} if params is None else {"params.yaml": _data(params)}
    again = with_followers(
        stages,
        lambda stage: (
            any(dep in stale for dep in stage.deps) or _is_changed(stage, locked, sources(stage, stages), root, read)
        ),
    )
    return stages, again


def _data(params: str) -> dict[str, Plain]:
    found = parse_document(params, "params.yaml")
    return {} if isinstance(found, list) else found.data


def _is_changed(
    stage: Stage,
    locked: Mapping[str, Mapping[str, Any]],
    above: list[Stage],
    root: Path,
    read: dict[str, dict[str, Plain]],
) -> bool:
    """Return whether command, values, outputs or inputs of a stage differ from dvc.lock."""
    entry = locked.get(stage.name)
    if entry is None or entry["cmd"] != stage.cmd or stage.values(root, read) != _values(entry, stage):
        return True
    if {out["path"] for out in entry.get("outs", ())} != set(stage.outs):
        return True
    made = {out["path"]: out for one in above for out in locked[one.name].get("outs", ())}
    deps = {dep["path"]: dep for dep in entry.get("deps", ())}
    return deps.keys() != set(stage.deps) or any(_differs(path, dep, made, root) for path, dep in deps.items())


def _values(entry: Mapping[str, Any], stage: Stage) -> dict[str, Plain]:
    recorded = entry.get("params", {})
    whole = {name for name in stage.params if name == Stage.file_of(name) and name not in stage.keys}
    return {
        f"{file}: {key}": value
        for file, values in recorded.items()
        for key, value in ([(file, values)] if file in whole else values.items())
    }


def _differs(path: str, dep: Mapping[str, Any], made: Mapping[str, Mapping[str, Any]], root: Path) -> bool:
    """Return whether an input changed: by the hash of the stage that makes it, else by its content."""
    if path in made:
        return identity_of(made[path])["md5"] != identity_of(dep)["md5"]
    if any(out.startswith(f"{path}/") or path.startswith(f"{out}/") for out in made):
        return False  # a folder of several outputs, each compared by its own readers
    place = root / path
    return not place.exists() or tree_md5(listing(place)) != identity_of(dep)["md5"]
