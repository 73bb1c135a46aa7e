"""Sources that an experiment's configs name: location, revision, size, and the command that downloads them."""

import os
import shlex
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from alignslm.config.experiment import Experiment
from alignslm.config.sources import AnySource, FolderSource, HubSource, PackageSource, UrlSource, sources_in
from alignslm.fetching import is_cached

WEIGHTS = (".safetensors", ".bin", ".pt", ".h5", ".msgpack", ".onnx")
LOOKED_FOR = ("*.json", "*.safetensors")  # a run does not fetch the same weights in other formats
TIMEOUT_S = 5.0  # of one question
ASKING_S = 15.0  # of all of them: DNS lookup has no timeout of its own
HUB = "the Hub"


class UnreachableError(Exception):
    """A server did not answer; the message says why."""


class Answer(NamedTuple):
    """A server's answer: bytes, why it refuses access, and suffixes of files with the same weights in other formats."""

    num_bytes: int | None = None
    fault: str | None = None
    spare: tuple[str, ...] = ()


class Download(NamedTuple):
    """One source, and what its server says of it."""

    key: str
    source: AnySource
    pinned: bool
    present: bool
    num_bytes: int | None = None
    fault: str | None = None
    spare: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The repository, path or URL, as the config has it."""
        match self.source:
            case HubSource():
                return f"{self.source.repo}@{self.source.revision}"
            case FolderSource():
                return self.source.path
            case UrlSource():
                return self.source.url
            case PackageSource():
                return ", ".join(f"{name}=={version}" for name, version in self.source.packages.items())

    @property
    def command(self) -> str | None:
        """The shell command that fetches it ahead of the run, to where stages look for it and verify it."""
        match self.source:
            case HubSource(repo=repo, revision=revision, repo_type=kind):
                typed = "" if kind == "model" else f" --repo-type {kind}"
                spare = "".join(f" --exclude '*{ending}'" for ending in self.spare)
                return f"hf download {repo}{typed} --revision {revision}{spare}"
            case UrlSource(url=url):
                from alignslm.fetching.url import beside, place_of

                part = shlex.quote(str(beside(place_of(self.source), "part")))
                return f"curl -fL -C - --create-dirs -o {part} {shlex.quote(url)}"
            case PackageSource():
                return self.source.install
        return None


def fetches_of(experiment: Experiment, *, ask: bool) -> tuple[list[Download], dict[str, str]]:
    """Return every source once, under the first key that names it; and of servers that did not answer, why not."""
    found: dict[str, tuple[str, AnySource]] = {}
    choices: dict[str, object] = {key: getattr(experiment, key) for key in type(experiment).model_fields}
    for key, source in sources_in(choices, ""):
        found.setdefault(source.model_dump_json(), (key, source))
    here = [(key, source, is_here(source)) for key, source in found.values()]
    wanted = [source for _, source, present in here if not present and isinstance(source, HubSource | UrlSource)]
    sizes, unreachable = answers(wanted) if ask else ({}, {})
    return [_download(key, source, sizes, present=present) for key, source, present in here], unreachable


def is_here(source: AnySource) -> bool:
    """Tell whether a source need not be fetched."""
    return source.expanded()[0].exists() if isinstance(source, FolderSource) else is_cached(source, patterns=LOOKED_FOR)


def _download(key: str, source: AnySource, sizes: dict[str, Answer], *, present: bool) -> Download:
    if isinstance(source, FolderSource):
        num_bytes = size_of(source.expanded()[0]) if present else None
        return Download(key, source, source.sha256 is not None, present, num_bytes)
    if isinstance(source, PackageSource):
        num_bytes = sum(path.stat().st_size for _, path in source.files()) if present else None
        return Download(key, source, pinned=True, present=present, num_bytes=num_bytes)
    pinned = not isinstance(source, HubSource) or source.pinned
    return Download(key, source, pinned, present, *sizes.get(source.model_dump_json(), Answer()))


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of all files below a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum((Path(where) / name).stat().st_size for where, _, names in os.walk(path) for name in names)


def server_of(source: AnySource) -> str | None:
    """Return the server of a source, if there is one."""
    match source:
        case UrlSource(url=url):
            return urlsplit(url).netloc
        case HubSource():
            return HUB
    return None


def answers(
    sources: Sequence[HubSource | UrlSource],
) -> tuple[dict[str, Answer], dict[str, str]]:
    """Ask for sizes: answers by source as JSON, and of each server that did not answer, why not."""
    found: dict[str, Answer] = {}
    unreachable: dict[str, str] = {}
    asking = [HUB]

    def ask() -> None:
        for source in sources:
            asking[0] = server_of(source) or HUB
            if asking[0] not in unreachable:
                try:
                    found[source.model_dump_json()] = asked(source)
                except UnreachableError as error:
                    unreachable[asking[0]] = str(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(ASKING_S)
    late = {asking[0]: f"no answer within {ASKING_S:.0f} s"} if thread.is_alive() else {}
    return dict(found), {**unreachable, **late}


def asked(source: HubSource | UrlSource) -> Answer:
    """Ask for the size of a source. Raises UnreachableError.

    If a repository has weights in safetensors, the same weights in other formats are not counted.
    """
    return _asked_by_url(source) if isinstance(source, UrlSource) else _asked_of_hub(source)


def _asked_by_url(source: UrlSource) -> Answer:
    request = urllib.request.Request(source.url, method="HEAD")  # noqa: S310 (http by config)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310
            return Answer(int(answer.headers.get("Content-Length") or 0) or None)
    except urllib.error.HTTPError as error:
        return Answer(fault=f"{source.url}: the server answers {error.code} ({error.reason}); check the URL")
    except OSError as error:
        raise UnreachableError(_reason(error)) from error


def _asked_of_hub(source: HubSource) -> Answer:
    from huggingface_hub import HfApi, errors

    from alignslm.fetching.hub import refused

    try:
        info = HfApi().repo_info(
            source.repo,
            repo_type=source.repo_type,
            revision=source.revision,
            files_metadata=True,
            timeout=TIMEOUT_S,
        )
    except (errors.HTTPError, OSError) as error:
        if (fault := refused(error, source)) is None:
            raise UnreachableError(_reason(error)) from error
        return Answer(fault=f"the Hub repository {source.repo} {fault}")
    sizes = {file.rfilename: file.size or 0 for file in getattr(info, "siblings", None) or []}
    weights = [name for name in sizes if name.endswith(WEIGHTS)]
    wanted = [name for name in weights if name.endswith(".safetensors")] or weights
    spare = sorted({Path(name).suffix for name in weights} - {Path(name).suffix for name in wanted})
    return Answer(
        sum(size for name, size in sizes.items() if name in wanted or name not in weights), None, tuple(spare)
    )


def _reason(error: BaseException) -> str:
    causes = list(_causes(error))
    if any(isinstance(cause, socket.gaierror) for cause in causes):
        return "its name cannot be resolved: no network?"
    if any(isinstance(cause, TimeoutError) for cause in causes):
        return f"no answer within {TIMEOUT_S:.0f} s"
    status = getattr(getattr(error, "response", None), "status_code", None)
    return f"it answers {status}" if status else str(error).partition("\n")[0].rstrip(".")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        if isinstance(reason := getattr(error, "reason", None), BaseException):
            yield reason
        error = error.__cause__ or error.__context__
