"""source.json: the networks that a folder of scores was made with."""

from pathlib import Path

from alignslm.config.model import Config
from alignslm.config.mos import MosConfig
from alignslm.integrity import read_json
from alignslm.mos import MosError
from alignslm.storage import write_text

FILE = "source.json"


class MosSource(Config):
    """A config and the identity of its files when it was prepared."""

    choice: MosConfig
    identity: str


def write_source(config: MosConfig, identity: str, folder: Path) -> None:
    """Write `folder`/source.json."""
    text = MosSource(choice=config, identity=identity).model_dump_json(indent=2)
    write_text(folder / FILE, text + "\n")


def read_identity(config: MosConfig, folder: Path) -> str:
    """Return the identity that was prepared. Raises DamagedError if nothing was, MosError for another config."""
    path = folder / FILE
    source = read_json(path, MosSource)
    if source.choice != config:
        raise MosError(f"{path} was prepared for {source.choice.kind} under other values. Run `dvc repro mos`.")
    return source.identity
