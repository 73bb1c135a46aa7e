"""A round's model and preference pairs as repositories of the Hugging Face Hub, and the receipt of what was pushed.

    packages = packages_of(experiment, "r2", Path(), work)    # what would be pushed, and where to
    receipt = publish(experiment, "r2", Path())               # pushes it

Both are in `alignslm.publishing.pushing`. This module imports nothing heavy: where publishing is off, it is all that
runs.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from alignslm.config.model import Config, Count
from alignslm.storage import write_text


class PublishError(ValueError):
    """Something cannot be published: refused, unreachable, not ours, or not fit to leave this machine."""


class PushedFile(Config):
    """A file as it stands in the repository."""

    sha256: str
    num_bytes: Count


class PushRecord(Config):
    """One repository after a push: the commit that its branch main was then, and the files that the push made."""

    repo: str
    repo_type: Literal["model", "dataset"]
    endpoint: str
    private: bool
    commit: str
    tag: str
    files: dict[str, PushedFile]


class Receipt(Config):
    """What became of a round: `pushed` by kind of repository, empty where nothing left this machine."""

    round: str
    status: Literal["pushed", "not published"]
    reason: str | None
    pushed: dict[Literal["model", "dataset"], PushRecord]


def unpublished(name: str, chosen: Sequence[str]) -> Receipt:
    """Return the receipt of a round that stays here; `chosen` are the rounds that do not."""
    reason = (
        f"only {', '.join(chosen)} is published (`rounds` of the file in experiments/publish that params.yaml names)"
        if chosen
        else "publishing is off: `publish: none` in params.yaml"
    )
    return Receipt(round=name, status="not published", reason=reason, pushed={})


def write_receipt(receipt: Receipt, path: Path) -> None:
    """Write the receipt as JSON; it holds no secret and no time."""
    write_text(path, receipt.model_dump_json(indent=1) + "\n")
