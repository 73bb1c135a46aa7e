"""Resumable work: results become durable shard by shard, and a rerun of the same work takes up what is there.

The folder that holds finished shards is named by a hash of parameters, inputs and code, so a shard made under
anything else is never found. It is no artifact: DVC does not know it, and it goes when the stage has published.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import polars as pl
from pydantic import BaseModel

from alignslm.progress import track
from alignslm.provenance import tree_sha256

WORK = Path(".work")
PACKAGE = Path(__file__).parent


def work_folder(stage: str, *, params: Mapping[str, BaseModel | int | str], inputs: list[Path]) -> Path:
    """Return (and make) the folder for one stage run under these parameters, inputs and this package's code."""
    described = {k: v.model_dump(mode="json") if isinstance(v, BaseModel) else v for k, v in params.items()}
    text = json.dumps([stage, described, tree_sha256(inputs), tree_sha256([PACKAGE])], sort_keys=True)
    folder = WORK / stage / hashlib.sha256(text.encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def discard(folder: Path) -> None:
    """Remove a finished stage's work folder, and what earlier interrupted runs of the stage left beside it."""
    shutil.rmtree(folder.parent, ignore_errors=True)


def _load(part: Path) -> pl.DataFrame | None:
    """Return a durable shard, or None where it is absent, half written, truncated or altered."""
    seal = part.with_suffix(".sha256")
    if not part.exists() or not seal.exists():
        return None
    if hashlib.sha256(part.read_bytes()).hexdigest() != seal.read_text().strip():
        return None
    return pl.read_parquet(part)


def _store(frame: pl.DataFrame, part: Path) -> None:
    partial = part.with_suffix(f".{os.getpid()}.partial")
    frame.write_parquet(partial)
    digest = hashlib.sha256(partial.read_bytes()).hexdigest()
    partial.replace(part)
    seal = part.with_suffix(f".{os.getpid()}.seal")
    seal.write_text(digest + "\n")
    seal.replace(part.with_suffix(".sha256"))


def map_shards(
    rows: pl.DataFrame,
    function: Callable[[pl.DataFrame], pl.DataFrame],
    *,
    folder: Path,
    shard_rows: int,
    label: str,
) -> Iterator[pl.DataFrame]:
    """Yield function(shard) for consecutive slices of `rows`, each made durable before it is yielded.

    `function` must treat rows independently: then neither shard size nor resuming changes a result.
    """
    folder = folder / f"shards-of-{shard_rows}"  # another size would cut elsewhere: start beside, not on top
    folder.mkdir(parents=True, exist_ok=True)
    starts = range(0, len(rows), shard_rows)
    for number, start in enumerate(track(starts, total=len(starts), label=label)):
        part = folder / f"part-{number:05d}.parquet"
        frame = _load(part)
        if frame is None:
            frame = function(rows.slice(start, shard_rows))
            _store(frame, part)
        else:
            print(f"{label}: shard {number + 1} of {len(starts)} kept from an interrupted run", flush=True)
        yield frame
