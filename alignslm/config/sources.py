"""Where the weights of a published model come from: the Hub, a folder of this machine, or one file by its URL.

In YAML: `weights: {kind: hub, repo: facebook/hubert-base-ls960, revision: main}`.
"""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Literal, TypeAlias

from pydantic import Field

from alignslm.config.model import Config, HttpUrl

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="hex SHA-256 of the file's bytes")]
_COMMIT = re.compile(r"[0-9a-f]{40}")
_VARIABLE = re.compile(r"\$\{?(\w+)")


class HubSource(Config):
    """A repository of the Hugging Face Hub at a revision.

    A commit hash is the only revision that means the same files for ever. A branch or tag is resolved when the model
    is prepared, and the commit it stood for goes into the artifact.
    """

    repo_type: ClassVar[Literal["model", "dataset"]] = "model"

    kind: Literal["hub"]
    repo: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")]
    revision: Annotated[str, Field(min_length=1)]

    @property
    def pinned(self) -> bool:
        """Whether the revision is a commit hash."""
        return _COMMIT.fullmatch(self.revision) is not None


class FolderSource(Config):
    """A folder or a single file of this machine; `~` and `$VARIABLES` are expanded, its content is its identity.

    `sha256`, where given, must be that content's (of a folder: as `Fetched.identity` tells it); a file that may hold
    code is read only with it. `fetch` is only shown where the path does not exist, never executed.
    """

    kind: Literal["folder"]
    path: Annotated[str, Field(min_length=1)]
    sha256: Sha256 | None = None
    fetch: Annotated[str, Field(min_length=1, max_length=2000)] | None = Field(
        default=None, exclude=True, description="the shell command that puts the files at `path`; no artifact holds it"
    )

    def expanded(self) -> tuple[Path, str | None]:
        """Return the path with `~` and variables replaced, and the name of a variable that is not set, if any."""
        path = Path(os.path.expandvars(self.path)).expanduser()
        unset = _VARIABLE.search(str(path))
        return path, unset and unset[1]


class UrlSource(Config):
    """One file by its URL, used only if its bytes have the hash given; a `.zip` stands for the folder it holds."""

    kind: Literal["url"]
    url: HttpUrl
    sha256: Sha256


Source = Annotated[HubSource | FolderSource | UrlSource, Field(discriminator="kind")]
AnySource: TypeAlias = HubSource | FolderSource | UrlSource


def sources_in(value: object, key: str) -> Iterator[tuple[str, AnySource]]:
    """Yield (dotted key, source) for every source in a configuration, however deep."""
    if isinstance(value, HubSource | FolderSource | UrlSource):
        yield key, value
    elif isinstance(value, Config | Mapping):
        items = (
            value.items() if isinstance(value, Mapping) else ((n, getattr(value, n)) for n in type(value).model_fields)
        )
        for name, item in items:
            yield from sources_in(item, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield from sources_in(item, f"{key}.{number}")
