"""Resumable work: results are saved shard by shard, and a rerun of the same work reuses them.

The folder of finished shards is named by a hash of parameters, inputs and code, so a shard made with
others is never found. It is not an artifact: DVC does not know it, and it is removed when the stage has finished.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import polars as pl
from pydantic import BaseModel

from alignslm import tables
from alignslm.code import hash_of
from alignslm.engine import Pool
from alignslm.locks import WORK
from alignslm.progress import track
from alignslm.provenance import file_sha256, tree_sha256
from alignslm.storage import atomic_write, reraise_disk_errors, write_text

# What shards look like: plumbing to DVC, but not to a shard on disk.
FORM = [Path(__file__), Path(tables.__file__).parent]
Task = TypeVar("Task")


@contextmanager
def work_folder(stage: str, *, script: str, params: Mapping[str, object], inputs: Mapping[str, str]) -> Iterator[Path]:
    """Yield the folder of one stage run with these parameters, inputs (hashes by path) and the science of `script`.

    Publish inside the block: when it ends well the folder goes, and with it what runs under other parameters left
    behind; when it fails, the folder stays for the next run. One run of a stage works at a time (`progress.stage`).
    Under torchrun the processes share the folder, and the first one keeps it.
    """
    described = {k: v.model_dump(mode="json") if isinstance(v, BaseModel) else v for k, v in params.items()}
    code = [hash_of(Path(script)), tree_sha256(FORM)]
    text = json.dumps([stage, described, dict(inputs), code], sort_keys=True)
    folder = WORK / stage / hashlib.sha256(text.encode()).hexdigest()[:16]
    with reraise_disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    yield folder
    if os.environ.get("RANK", "0") == "0":
        shutil.rmtree(folder.parent)


def _is_whole(part: Path) -> bool:
    """Return whether a complete shard exists: not partial, truncated or altered."""
    seal = part.with_suffix(".sha256")
    if not part.exists() or not seal.exists():
        return False
    return file_sha256(part) == seal.read_text(errors="replace").strip()


def _store(frame: pl.DataFrame, part: Path) -> None:
    with atomic_write(part) as partial:
        frame.write_parquet(partial)
        digest = hashlib.sha256(partial.read_bytes()).hexdigest()
    write_text(part.with_suffix(".sha256"), digest + "\n")


def map_tasks(
    tasks: Sequence[Task],
    function: Callable[[Task], pl.DataFrame],
    *,
    folder: Path,
    label: str,
    pool: Pool | None = None,
) -> Iterator[pl.DataFrame]:
    """Yield function(task) for every task in order, each made durable in `folder` before it is yielded.

    Shards in `folder` are not made again; their number is printed, and which were damaged. The
    others are computed here, or by the workers of `pool`, to which `function` then travels (`alignslm.engine.work`). A
    shard is durable as soon as it is finished, and waits on disk, not in memory, for those before it.
    """
    with reraise_disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    parts = [folder / f"part-{number:05d}.parquet" for number in range(len(tasks))]
    missing = _missing(parts, label)
    todo = ((number, tasks[number]) for number in missing)
    made = pool.run(function, todo, label=label) if pool else ((number, function(task)) for number, task in todo)
    finished = track(made, total=len(missing), label=label)
    waiting = set(missing)
    for number, part in enumerate(parts):
        frame = None
        while number in waiting:
            done, frame = next(finished)
            _store(frame, parts[done])
            waiting.remove(done)
        yield pl.read_parquet(part) if frame is None else frame
    next(finished, None)  # lets the workers go


def _missing(parts: Sequence[Path], label: str) -> list[int]:
    """Return the numbers of shards to be made; tell how many are kept, and which are damaged."""
    missing = [number for number, part in enumerate(parts) if not _is_whole(part)]
    if len(missing) < len(parts):
        print(f"{label}: {len(parts) - len(missing)} of {len(parts)} shards kept from an interrupted run", flush=True)
    for number in missing:
        if parts[number].exists():
            print(
                f"{label}: shard {number + 1} of {len(parts)} is damaged or incomplete; computed again",
                flush=True,
            )
    return missing


def map_shards(
    rows: pl.DataFrame,
    function: Callable[[pl.DataFrame], pl.DataFrame],
    *,
    folder: Path,
    shard_size: int,
    label: str,
    pool: Pool | None = None,
) -> Iterator[pl.DataFrame]:
    """Yield function(shard) for consecutive slices of `rows`; see `map_tasks`.

    `function` must treat rows independently: then neither shard size nor resuming changes a result.
    """
    # Another size would cut elsewhere, so it has its own folder.
    slices = list(rows.iter_slices(shard_size))
    return map_tasks(slices, function, folder=folder / f"shards-of-{shard_size}", label=label, pool=pool)


def map_table(
    table: tables.Table,
    path: Path,
    function: Callable[[pl.DataFrame], pl.DataFrame],
    *,
    folder: Path,
    shard_size: int,
    label: str,
    pool: Pool | None = None,
) -> Iterator[pl.DataFrame]:
    """Yield function(shard) for consecutive slices of a table on disk, one a worker in memory; see `map_shards`."""
    return map_tasks(
        tables.slices(path, shard_size),
        _SliceReader(table, function),
        folder=folder / f"shards-of-{shard_size}",
        label=label,
        pool=pool,
    )


@dataclass(frozen=True)
class _SliceReader:
    """Reads a slice in the process that uses it: rows of audio need not be sent."""

    table: tables.Table
    function: Callable[[pl.DataFrame], pl.DataFrame]

    def __call__(self, place: tables.Slice) -> pl.DataFrame:
        return self.function(tables.read_slice(self.table, place))
