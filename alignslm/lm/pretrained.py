"""Published unit language models: fetched, checked, and written as a checkpoint of this project."""

import json
from pathlib import Path

from alignslm.config.pretrained_lm import PublishedLm, TrainingUnits
from alignslm.config.sources import Source
from alignslm.fetching import Fetched, download
from alignslm.lm.checkpoint import CheckpointError, disable_dropout, save_lm
from alignslm.lm.formats import load_published
from alignslm.lm.probe import require_readable
from alignslm.provenance import ContractError, UnitContract
from alignslm.storage import write_text

SOURCE_FILE = "source.json"
_SETTINGS = ("config.json", "generation_config.json")
_SAFE = (*_SETTINGS, "*.safetensors", "*.safetensors.index.json")
_TORCH = (*_SETTINGS, "pytorch_model*.bin", "pytorch_model*.bin.index.json")


def import_lm(config: PublishedLm, contract: UnitContract, folder: Path) -> None:
    """Write a published model as a checkpoint into `folder`, with its origin in source.json.

    Raises ContractError if it was trained on other units than `contract`'s, CheckpointError if the fetched folder is
    not as configured, FetchError if it cannot be downloaded, UnsupportedModelError if continuations cannot be drawn.
    """
    check_unit_contract(config.units, contract, choice=config.kind)
    fetched = fetch_checkpoint(config.weights)
    model, vocabulary = load_published(config, fetched.path)
    disable_dropout(model)
    require_readable(model, vocabulary)
    save_lm(model, vocabulary, contract, folder)
    write_source(config.weights, fetched.identity, folder)


def check_unit_contract(trained_on: TrainingUnits, contract: UnitContract, *, choice: str) -> None:
    """Raise ContractError naming both sides if the model's units, as far as known, are not the encoder's."""
    if differing := trained_on.differing(contract, mine="for the model"):
        raise ContractError(
            f"the {choice} model was trained on other units than encoder {contract.encoder} "
            f"(revision {contract.revision}) gives ({'; '.join(differing)}). Choose the encoder it was trained with "
            "(`encoder` in params.yaml), or correct `units` in the model's file in experiments/lm."
        )


def fetch_checkpoint(source: Source) -> Fetched:
    """Return the folder of a transformers checkpoint; safetensors are preferred, else .bin is used."""
    fetched = download(source, patterns=_SAFE, pickled=_TORCH)
    folder = fetched.path
    if not (folder / "config.json").is_file():
        inside = sorted(path.parent.name for path in folder.glob("*/config.json"))
        hint = f" It contains {', '.join(inside)}: use that folder." if inside else ""
        raise CheckpointError(f"{folder} has no config.json, so it is not a transformers checkpoint.{hint}")
    return fetched


def write_source(source: Source, identity: str, folder: Path) -> None:
    """Record the origin of the weights: the source as configured, and its resolved identity."""
    content = {"source": source.model_dump(), "identity": identity}
    write_text(folder / SOURCE_FILE, json.dumps(content, indent=1) + "\n")
