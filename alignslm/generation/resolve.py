"""Paths of models: the experiment's speech models, and checkpoints by name, folder or Hub repository."""

import re
from pathlib import Path

from alignslm.artifacts import Artifacts
from alignslm.config.sources import HubSource
from alignslm.fetching import download
from alignslm.generation.prompt import PlayError

HUB_ID = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>\S+))?")
FILES = ("*.json", "*.safetensors")
SPEECH = ("encoder", "vocoder", "asr")


def speech_folders(root: Path) -> dict[str, Path]:
    """Return the folders of the experiment's encoder, vocoder and ASR model. PlayError if one is missing."""
    folders = {name: root / "artifacts" / name for name in SPEECH}
    absent = [str(folder) for folder in folders.values() if not folder.is_dir()]
    if absent:
        raise PlayError(
            f"missing: {', '.join(absent)}, which convert between speech and units. Run `dvc repro` to create them or "
            "`dvc pull` to download them, or choose another experiment with --root."
        )
    return folders


def checkpoints(root: Path) -> list[str]:
    """Return the names of the experiment's checkpoints, the base model first."""
    found = sorted(path.parent.name for path in Artifacts(root / "artifacts").checkpoints.glob("[!.]*/config.json"))
    return sorted(found, key=lambda name: name != "base")


def checkpoint_folder(model: str, root: Path) -> Path:
    """Return the folder of a checkpoint, downloaded from the Hub if it is not on this machine.

    `model` is the name of a checkpoint of the experiment, a folder, or `owner/name`, optionally with `@revision`.
    Raises PlayError if it is none of these, FetchError if the Hub refuses it.
    """
    own = Artifacts(root / "artifacts").checkpoint(model)
    if "/" not in model and own.is_dir():
        return own
    if found := folder_or_repository(model):
        return found
    there = ", ".join(checkpoints(root)) or "none"
    raise PlayError(
        f"no checkpoint {model!r} in {own.parent} (existing: {there}). Run `dvc repro` or `dvc pull`, or name a "
        "folder or a Hub repository (owner/name)."
    )


def folder_or_repository(name: str) -> Path | None:
    """Return a folder of this machine, or that of a Hub repository (`owner/name`, fetched); None if it is neither."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    match = HUB_ID.fullmatch(name)
    if match is None:
        return None
    source = HubSource(kind="hub", repo=match["repo"], revision=match["revision"] or "main")
    return download(source, patterns=FILES).path
