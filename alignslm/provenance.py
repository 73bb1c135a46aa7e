"""Identity: content ids, per-row seeds, file hashes and the unit contract."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from alignslm.config.model import Config, Positive, PositiveCount


class ContractError(ValueError):
    """Two artifacts made of units were made under different unit contracts."""


class UnitContract(Config):
    """The meaning of unit numbers. It is in the metadata of every table and checkpoint made of units.

    Two artifacts may be used together only if their contracts are equal: the same integer under another
    codebook is another sound, and nothing downstream would notice.
    """

    encoder: str
    revision: str
    sample_rate_hz: PositiveCount
    frame_rate_hz: Positive
    layer: int | None
    padding: str
    codebook_sha256: str
    num_units: PositiveCount
    deduplicated: bool

    def require(self, other: "UnitContract", *, mine: str, theirs: str) -> None:
        """Raise ContractError naming both sides and every differing field, unless the contracts are equal."""
        differing = [
            f"{field}: {getattr(self, field)!r} in {mine}, {getattr(other, field)!r} in {theirs}"
            for field in type(self).model_fields
            if getattr(self, field) != getattr(other, field)
        ]
        if differing:
            raise ContractError(
                f"{mine} and {theirs} were made under different unit contracts ({'; '.join(differing)}). "
                "Remake one of them with the other's encoder: `dvc repro` does so when both come from this graph."
            )


def content_id(*parts: object) -> str:
    """Return 16 hex digits that depend only on the parts' values, never on row order or process."""
    return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=8).hexdigest()


def row_seed(seed: int, stage: str, row_id: str) -> int:
    """Return a 63-bit seed for one row, so sharding, batching and resuming cannot change its randomness."""
    digest = hashlib.blake2b(f"{seed}\0{stage}\0{row_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def file_sha256(path: Path) -> str:
    """Return the hex SHA-256 of a file's bytes, read in 1 MiB blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def tree_sha256(paths: Iterable[Path]) -> str:
    """Return one hash for files and folders: relative names and contents, caches left out."""
    digest = hashlib.sha256()
    for path in sorted(paths):
        files = sorted(f for f in path.rglob("*") if f.is_file()) if path.is_dir() else [path]
        for file in files:
            if "__pycache__" not in file.parts:
                digest.update(f"{path.name}/{file.relative_to(path)}\0{file_sha256(file)}\0".encode())
    return digest.hexdigest()
