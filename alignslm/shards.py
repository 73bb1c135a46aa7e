"""Resumable work: results become durable shard by shard, and a rerun of the same work takes up what is there.

The folder that holds finished shards is named by a hash of parameters, inputs and code, so a shard made under
anything else is never found. It is no artifact: DVC does not know it, and it goes when the stage has published.
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import polars as pl
from pydantic import BaseModel

from alignslm import tables
from alignslm.closure import science
from alignslm.progress import track
from alignslm.provenance import tree_sha256
from alignslm.storage import replacing, writing

WORK = Path(".work")
# What shards look like: plumbing to DVC, but not to a shard on disk.
FORM = [Path(__file__), Path(tables.__file__).parent]
Task = TypeVar("Task")


@contextmanager
def work_folder(stage: str, *, script: str, params: Mapping[str, object], inputs: Sequence[Path]) -> Iterator[Path]:
    """Give the folder for one stage run under these parameters, inputs and the science that `script` rests on.

    Publish inside the block: when it ends well the folder goes, and with it what runs under other parameters left
    behind; when it fails, the folder stays for the next run. One run of a stage works at a time; another waits for
    it. Under torchrun the processes share the folder, and the first one keeps it.
    """
    described = {k: v.model_dump(mode="json") if isinstance(v, BaseModel) else v for k, v in params.items()}
    code = tree_sha256([*science(Path(script).resolve()), *FORM])
    text = json.dumps([stage, described, tree_sha256(inputs), code], sort_keys=True)
    folder = WORK / stage / hashlib.sha256(text.encode()).hexdigest()[:16]
    if os.environ.get("RANK", "0") != "0":
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
        return
    with writing(folder):
        WORK.mkdir(exist_ok=True)
        lock = (WORK / f"{stage}.lock").open("a+")
    with lock:
        _wait_for(lock.fileno(), stage)
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        yield folder
        shutil.rmtree(folder.parent)


def _wait_for(lock: int, stage: str) -> None:
    """Take the lock, which the system gives back when this process ends, however it ends."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(lock, 20, 0).decode().strip()
        print(f"{stage}: process {holder} is at it in this workspace; waiting until it is done", flush=True)
        fcntl.flock(lock, fcntl.LOCK_EX)
    os.ftruncate(lock, 0)
    os.write(lock, f"{os.getpid()}\n".encode())


def _load(part: Path) -> pl.DataFrame | None:
    """Return a durable shard, or None where it is absent, half written, truncated or altered."""
    seal = part.with_suffix(".sha256")
    if not part.exists() or not seal.exists():
        return None
    if hashlib.sha256(part.read_bytes()).hexdigest() != seal.read_text(errors="replace").strip():
        return None
    return pl.read_parquet(part)


def _store(frame: pl.DataFrame, part: Path) -> None:
    with replacing(part) as partial:
        frame.write_parquet(partial)
        digest = hashlib.sha256(partial.read_bytes()).hexdigest()
    with replacing(part.with_suffix(".sha256")) as partial:
        partial.write_text(digest + "\n")


def map_tasks(
    tasks: Sequence[Task], function: Callable[[Task], pl.DataFrame], *, folder: Path, label: str
) -> Iterator[pl.DataFrame]:
    """Yield function(task) for every task in order, each made durable in `folder` before it is yielded.

    What `folder` holds already is not made again; how many shards those are is printed, and which were damaged.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    found = sum(1 for _ in folder.glob("part-*.sha256"))
    if found:
        print(f"{label}: {found} of {len(tasks)} shards kept from an interrupted run", flush=True)
    for number, task in enumerate(track(tasks, total=len(tasks), label=label)):
        part = folder / f"part-{number:05d}.parquet"
        frame = _load(part)
        if frame is None:
            if part.exists():
                print(f"{label}: shard {number + 1} of {len(tasks)} is damaged or half written; redone", flush=True)
            frame = function(task)
            _store(frame, part)
        yield frame


def map_shards(
    rows: pl.DataFrame,
    function: Callable[[pl.DataFrame], pl.DataFrame],
    *,
    folder: Path,
    shard_rows: int,
    label: str,
) -> Iterator[pl.DataFrame]:
    """Yield function(shard) for consecutive slices of `rows`; see `map_tasks`.

    `function` must treat rows independently: then neither shard size nor resuming changes a result.
    """
    # Another size would cut elsewhere: start beside, not on top.
    slices = list(rows.iter_slices(shard_rows))
    return map_tasks(slices, function, folder=folder / f"shards-of-{shard_rows}", label=label)


def map_table(
    table: tables.Table,
    path: Path,
    function: Callable[[pl.DataFrame], pl.DataFrame],
    *,
    folder: Path,
    shard_rows: int,
    label: str,
) -> Iterator[pl.DataFrame]:
    """Yield function(shard) for consecutive slices of a table on disk, one in memory at a time; see `map_shards`."""
    return map_tasks(
        tables.slices(path, shard_rows),
        lambda place: function(tables.read_slice(table, place)),
        folder=folder / f"shards-of-{shard_rows}",
        label=label,
    )
