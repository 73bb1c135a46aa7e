"""Every source that an experiment's configs name: where it is, whether it is pinned and present, and its size."""

import os
from pathlib import Path
from typing import NamedTuple

from alignslm.config.experiment import Experiment
from alignslm.config.sources import AnySource, FolderSource, HubSource, PackageSource, UrlSource, sources_in
from alignslm.fetching import is_cached

WEIGHTS = (".safetensors", ".bin", ".pt", ".h5", ".msgpack", ".onnx")
HUB_TIMEOUT_S = 5.0


class Download(NamedTuple):
    """One source. `num_bytes` is None if unknown; `fault` says why the Hub refuses it."""

    key: str
    source: AnySource
    pinned: bool
    present: bool
    num_bytes: int | None
    fault: str | None

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


def fetches_of(experiment: Experiment, *, ask_hub: bool) -> list[Download]:
    """Return every source once, under the first key that names it."""
    found: dict[str, Download] = {}
    choices: dict[str, object] = {key: getattr(experiment, key) for key in type(experiment).model_fields}
    for key, source in sources_in(choices, ""):
        if source.model_dump_json() not in found:
            found[source.model_dump_json()] = _fetch(key, source, ask_hub=ask_hub)
    return list(found.values())


def _fetch(key: str, source: AnySource, *, ask_hub: bool) -> Download:
    match source:
        case FolderSource():
            return _folder(key, source)
        case UrlSource():
            return Download(key, source, pinned=True, present=is_cached(source), num_bytes=None, fault=None)
        case HubSource():
            present = is_cached(source)
            num_bytes, fault = asked(source) if ask_hub and not present else (None, None)
            return Download(key, source, source.pinned, present, num_bytes, fault)
        case PackageSource():
            present = is_cached(source)
            num_bytes = sum(path.stat().st_size for _, path in source.files()) if present else None
            return Download(key, source, pinned=True, present=present, num_bytes=num_bytes, fault=None)


def _folder(key: str, source: FolderSource) -> Download:
    path, _ = source.expanded()
    present = path.exists()
    return Download(key, source, source.sha256 is not None, present, size_of(path) if present else None, fault=None)


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of all files below a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum((Path(where) / name).stat().st_size for where, _, names in os.walk(path) for name in names)


def asked(source: HubSource) -> tuple[int | None, str | None]:
    """Ask the Hub for the size of a repository: (bytes or None, why it cannot be read or None).

    If there are weights in safetensors, the same weights in other formats are not counted. An unreachable Hub is
    not a fault.
    """
    from huggingface_hub import HfApi, errors

    from alignslm.fetching.hub import refused

    try:
        info = HfApi().repo_info(
            source.repo,
            repo_type=source.repo_type,
            revision=source.revision,
            files_metadata=True,
            timeout=HUB_TIMEOUT_S,
        )
    except (errors.HTTPError, OSError) as error:
        fault = refused(error, source)
        return None, fault and f"the Hub repository {source.repo} {fault}"
    sizes = {file.rfilename: file.size or 0 for file in getattr(info, "siblings", None) or []}
    weights = [name for name in sizes if name.endswith(WEIGHTS)]
    wanted = [name for name in weights if name.endswith(".safetensors")] or weights
    return sum(size for name, size in sizes.items() if name in wanted or name not in weights), None
