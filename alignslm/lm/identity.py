"""The identity of a model's weights, computed once and kept beside them: reading 14 GB at every load is slow."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TypedDict

import torch
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from alignslm.storage import write_text

RECORD_FILE = "weights.json"
_BLOCK_BYTES = 1 << 16
_BLOCKS = 64


class FileRecord(TypedDict):
    """A file of weights: its size, and a hash of blocks spread evenly over it."""

    bytes: int
    sample: str


def weights_id(model: PreTrainedModel) -> str:
    """Return 16 hex digits that depend on every weight, its name and its dtype."""
    digest = hashlib.blake2b(digest_size=8)
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor  # all processes that share it call
        digest.update(whole.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def write_record(folder: Path, model_id: str) -> None:
    """Keep the identity of the weights in `folder`, with what is needed to see that they are still the same."""
    content = {"model_id": model_id, "files": _files(folder)}
    write_text(folder / RECORD_FILE, json.dumps(content, indent=1) + "\n")


def recorded_model_id(folder: Path) -> str | None:
    """Return the identity kept in `folder`; None where none is, or where the files of weights are not the same.

    The same: equal names and sizes, and an equal hash of 64 blocks of 64 KiB spread over each file. Training moves
    nearly every weight, so a model that was exchanged or trained further shows; one altered by hand in a few
    weights might not.
    """
    path = folder / RECORD_FILE
    if not path.exists():
        return None
    record = json.loads(path.read_text())
    return str(record["model_id"]) if record["files"] == _files(folder) else None


def _files(folder: Path) -> dict[str, FileRecord]:
    return {path.name: _file_record(path) for path in sorted(folder.glob("*.safetensors"))}


def _file_record(path: Path) -> FileRecord:
    digest = hashlib.blake2b(digest_size=16)
    for block in _blocks(path):
        digest.update(block)
    return FileRecord(bytes=path.stat().st_size, sample=digest.hexdigest())


def _blocks(path: Path) -> Iterator[bytes]:
    """Yield the whole of a small file, else the first block, the last, and others evenly between them."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        if size <= _BLOCKS * _BLOCK_BYTES:
            yield stream.read()
            return
        for number in range(_BLOCKS):
            stream.seek((size - _BLOCK_BYTES) * number // (_BLOCKS - 1))
            yield stream.read(_BLOCK_BYTES)
