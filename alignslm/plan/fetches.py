"""Every source that the choices of an experiment name: where it is, whether it is pinned, present, and how large."""

import os
from pathlib import Path
from typing import NamedTuple

from alignslm.config.experiment import Experiment
from alignslm.config.sources import AnySource, FolderSource, HubSource, UrlSource, sources_in
from alignslm.fetching import FetchError, expanded, is_present

WEIGHTS = (".safetensors", ".bin", ".pt", ".h5", ".msgpack", ".onnx")
HUB_TIMEOUT_S = 5.0


class Fetch(NamedTuple):
    """One source. `num_bytes` is None where nobody could be asked; `fault` says why it cannot be had."""

    key: str
    source: AnySource
    pinned: bool
    present: bool
    num_bytes: int | None
    fault: str | None

    @property
    def name(self) -> str:
        """The repository, path or URL, as the choice writes it."""
        match self.source:
            case HubSource():
                return f"{self.source.repo}@{self.source.revision}"
            case FolderSource():
                return self.source.path
            case UrlSource():
                return self.source.url


def fetches_of(experiment: Experiment, *, ask_hub: bool) -> list[Fetch]:
    """Return every source once, under the first key that names it."""
    found: dict[str, Fetch] = {}
    choices: dict[str, object] = {key: getattr(experiment, key) for key in type(experiment).model_fields}
    for key, source in sources_in(choices, ""):
        if source.model_dump_json() not in found:
            found[source.model_dump_json()] = _fetch(key, source, ask_hub=ask_hub)
    return list(found.values())


def _fetch(key: str, source: AnySource, *, ask_hub: bool) -> Fetch:
    match source:
        case FolderSource():
            return _folder(key, source)
        case UrlSource():
            return Fetch(key, source, pinned=True, present=is_present(source), num_bytes=None, fault=None)
        case HubSource():
            present = is_present(source)
            num_bytes, fault = asked(source) if ask_hub and not present else (None, None)
            return Fetch(key, source, source.pinned, present, num_bytes, fault)


def _folder(key: str, source: FolderSource) -> Fetch:
    pinned = source.sha256 is not None
    try:
        path = expanded(source)
    except FetchError as error:
        return Fetch(key, source, pinned, present=False, num_bytes=None, fault=str(error))
    if not path.exists():
        return Fetch(key, source, pinned, present=False, num_bytes=None, fault=f"{path} does not exist")
    return Fetch(key, source, pinned, present=True, num_bytes=size_of(path), fault=None)


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of all files below a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum((Path(where) / name).stat().st_size for where, _, names in os.walk(path) for name in names)


def asked(source: HubSource) -> tuple[int | None, str | None]:
    """Ask the Hub for a repository's size: (bytes or None, why it may not be read or None).

    Weights of the format that is preferred, safetensors, count where there are any; the same weights in other formats
    do not. A Hub that cannot be reached knows nothing, which is no fault.
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
    except (errors.HTTPError, OSError) as error:  # type: ignore[attr-defined]
        fault = refused(error, source)
        return None, fault and f"the Hub repository {source.repo} {fault}"
    sizes = {file.rfilename: file.size or 0 for file in getattr(info, "siblings", None) or []}
    weights = [name for name in sizes if name.endswith(WEIGHTS)]
    wanted = [name for name in weights if name.endswith(".safetensors")] or weights
    return sum(size for name, size in sizes.items() if name in wanted or name not in weights), None
