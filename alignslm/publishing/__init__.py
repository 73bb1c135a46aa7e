"""A round's model and preference pairs as Hugging Face Hub repositories, and the receipt of a push.

    packages = packages_of(experiment, "r2", Path(), work)    # what would be pushed, and where
    receipt = publish(experiment, "r2", Path())               # pushes it

Both are in `alignslm.publishing.pushing`. This module imports nothing heavy: if publishing is off, nothing else runs.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from alignslm.config.model import Config, Count
from alignslm.storage import write_text


class PublishError(ValueError):
    """Publishing failed: not allowed, unreachable, not our repository, or unsuitable content."""


class PushedFile(Config):
    """A file in the repository."""

    sha256: str
    num_bytes: Count


class PushRecord(Config):
    """One repository after a push: the commit of its main branch, and the files that were pushed."""

    repo: str
    repo_type: Literal["model", "dataset"]
    endpoint: str
    private: bool
    commit: str
    tag: str
    files: dict[str, PushedFile]


class Receipt(Config):
    """The outcome for a round: `pushed` by kind of repository, empty if nothing was pushed."""

    round: str
    status: Literal["pushed", "not published"]
    reason: str | None
    pushed: dict[Literal["model", "dataset"], PushRecord]


def unpublished(name: str, chosen: Sequence[str]) -> Receipt:
    """Return the receipt of a round that is not published; `chosen` are the published rounds."""
    reason = (
        f"only {', '.join(chosen)} is published (`rounds` in the config in experiments/publish that params.yaml names)"
        if chosen
        else "publishing is off: `publish: none` in params.yaml"
    )
    return Receipt(round=name, status="not published", reason=reason, pushed={})


def write_receipt(receipt: Receipt, path: Path) -> None:
    """Write the receipt as JSON; it contains no secret and no time."""
    write_text(path, receipt.model_dump_json(indent=1) + "\n")
