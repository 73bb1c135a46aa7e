"""Where models lie: speech models of the experiment, and checkpoints by name, folder or repository of the Hub."""

import re
from pathlib import Path

from alignslm.config.sources import HubSource
from alignslm.fetching import obtain
from alignslm.play.prompt import PlayError

HUB_ID = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>\S+))?")
FILES = ("*.json", "*.safetensors")
SPEECH = ("encoder", "vocoder", "asr")


def speech_folders(root: Path) -> dict[str, Path]:
    """Return where encoder, vocoder and recogniser of the experiment lie. PlayError where one was not made yet."""
    folders = {name: root / "artifacts" / name for name in SPEECH}
    absent = [str(folder) for folder in folders.values() if not folder.is_dir()]
    if absent:
        raise PlayError(
            f"{' and '.join(absent)} not there: speech cannot become units and units not speech. Make them with "
            "`dvc repro`, or fetch them with `dvc pull`; another experiment's folder is named with --root."
        )
    return folders


def checkpoints(root: Path) -> list[str]:
    """Return the names of the experiment's checkpoints that lie there, the base model first."""
    found = sorted(path.parent.name for path in (root / "artifacts" / "checkpoints").glob("[!.]*/config.json"))
    return sorted(found, key=lambda name: name != "base")


def checkpoint_folder(model: str, root: Path) -> Path:
    """Return where a model's checkpoint lies, fetched from the Hub where it is no folder of this machine.

    `model` is the name of a checkpoint below root/artifacts, a folder, or `owner/name` with or without `@revision`.
    Raises PlayError where it is none of these, FetchError where the Hub does not give it.
    """
    own = root / "artifacts" / "checkpoints" / model
    if "/" not in model and own.is_dir():
        return own
    if found := folder_or_repository(model):
        return found
    there = ", ".join(checkpoints(root)) or "none"
    raise PlayError(
        f"no checkpoint {model!r} below {own.parent} (there: {there}). Make it with `dvc repro`, fetch it with "
        "`dvc pull`, or name a folder or a repository of the Hub (owner/name)."
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
    return obtain(source, patterns=FILES).path
