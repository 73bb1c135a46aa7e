"""A unit language model on disk: a plain transformers folder plus the meaning of its token ids."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import torch
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from alignslm.device import resolve_device
from alignslm.integrity import reading
from alignslm.lm.sharding import load_sharded_model
from alignslm.loading import load_pretrained
from alignslm.provenance import UnitContract
from alignslm.storage import filling, write_text
from alignslm.units import UnitVocabulary

VOCABULARY_FILE = "unit_vocabulary.json"
CONTRACT_FILE = "unit_contract.json"
ADAPTER_FOLDER = "adapter"
RECORD_FILE = "weights.json"
_BLOCK_BYTES = 1 << 16
_BLOCKS = 64
DTYPES = ("float32", "bfloat16")


class CheckpointError(ValueError):
    """A checkpoint folder is not a unit language model, or contradicts itself."""


@dataclass(frozen=True)
class UnitLM:
    """A causal language model over units. `model_id` is a hash of its weights: equal id, equal distribution."""

    model: PreTrainedModel
    vocabulary: UnitVocabulary
    contract: UnitContract
    model_id: str

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return self.model.device


def disable_dropout(model: PreTrainedModel) -> None:
    """Set every dropout rate to zero, the functional ones in the config included.

    OPT drops out by `config.dropout` inside `functional.dropout`, which no walk over modules finds; with it on,
    DPO's reference log-probabilities are noise.
    """
    for name in ("dropout", "attention_dropout", "activation_dropout", "layerdrop", "resid_pdrop", "embd_pdrop"):
        if hasattr(model.config, name):
            setattr(model.config, name, 0.0)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        for name in ("dropout", "attention_dropout", "activation_dropout", "layerdrop"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)


def save_lm(model: PreTrainedModel, vocabulary: UnitVocabulary, contract: UnitContract, folder: Path) -> None:
    """Write the model as a transformers folder with its unit vocabulary and unit contract.

    The dtype of the weights is the checkpoint's. An adapter in the folder gets both files too, because an adapter that
    is published alone needs them to map token ids to units. Raises CheckpointError if a weight is not finite.
    """
    for name, weight in model.named_parameters():
        if not bool(weight.isfinite().all()):
            raise CheckpointError(
                f"{folder} is not written: weight {name} is not finite. If the model was trained here, lower the "
                "trainer's learning_rate; if it is published, download it again or choose another."
            )
    with filling(folder, sum(tensor.nbytes for tensor in model.state_dict().values())) as partial:
        model.save_pretrained(partial)
    for place in (folder, folder / ADAPTER_FOLDER):
        if place.is_dir():
            write_text(place / VOCABULARY_FILE, vocabulary.model_dump_json(indent=1) + "\n")
            write_text(place / CONTRACT_FILE, contract.model_dump_json(indent=1) + "\n")
    write_record(folder, weights_hash(model))


def load_lm(folder: Path, *, device: str, processes: int = 1, kind: type[Any] = AutoModelForCausalLM) -> UnitLM:
    """Load a checkpoint folder in the dtype it was saved in, evaluation mode, dropout off.

    If several `processes` share it, each has a part of its frozen weights, see `load_sharded_model`. `kind` is
    transformers' class. Raises CheckpointError if the folder is missing, says nothing of its units or contradicts
    itself.
    """
    for name in ("config.json", VOCABULARY_FILE, CONTRACT_FILE):
        if not (folder / name).exists():
            raise CheckpointError(
                f"{folder} is not a unit LM checkpoint: {name} is missing. "
                "Run `dvc repro` to create it or `dvc pull` to download it."
            )
    with reading(folder):
        vocabulary = UnitVocabulary.model_validate_json((folder / VOCABULARY_FILE).read_text())
        contract = UnitContract.model_validate_json((folder / CONTRACT_FILE).read_text())
        dtype = _saved_dtype(folder)
        if processes > 1:
            model = load_sharded_model(folder, dtype=dtype, processes=processes)
        else:
            model = load_pretrained(kind, folder, dtype=dtype)
            model.to(resolve_device(device))
        _require_agreement(model, vocabulary, folder)
        disable_dropout(model)
        return UnitLM(model, vocabulary, contract, recorded_model_id(folder) or weights_hash(model))


def _saved_dtype(folder: Path) -> str:
    path = folder / "config.json"
    name = json.loads(path.read_text()).get("dtype")
    if name not in DTYPES:
        raise CheckpointError(
            f"{path} has dtype {name!r}, expected {' or '.join(DTYPES)}: alignslm did not write it. "
            "Import the model with a config in experiments/lm, which sets its dtype."
        )
    return str(name)


def _require_agreement(model: PreTrainedModel, vocabulary: UnitVocabulary, folder: Path) -> None:
    if vocabulary.offset + vocabulary.num_units > model.config.vocab_size:
        raise CheckpointError(
            f"{folder}: {vocabulary.num_units} units from id {vocabulary.offset} do not fit "
            f"a vocabulary of {model.config.vocab_size} tokens"
        )
    offset = getattr(model.config, "offset", vocabulary.offset)
    if offset != vocabulary.offset:
        raise CheckpointError(
            f"{folder}: config.json has offset {offset}, {VOCABULARY_FILE} has {vocabulary.offset}; "
            "one of them belongs to another model. Make the folder again: `dvc repro`."
        )


class FileRecord(TypedDict):
    """A file of weights: its size, and a hash of blocks spread evenly over it."""

    bytes: int
    sample: str


def weights_hash(model: PreTrainedModel) -> str:
    """Return 16 hex digits that depend on every weight, its name and its dtype."""
    digest = hashlib.blake2b(digest_size=8)
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor  # all processes that share it call
        digest.update(whole.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def write_record(folder: Path, model_id: str) -> None:
    """Keep the identity of the weights in `folder`, and the data to verify that they are unchanged."""
    content = {"model_id": model_id, "files": _files(folder)}
    write_text(folder / RECORD_FILE, json.dumps(content, indent=1) + "\n")


def recorded_model_id(folder: Path) -> str | None:
    """Return the identity kept in `folder`; None if there is none, or if the weight files have changed.

    The same: equal names and sizes, and an equal hash of 64 blocks of 64 KiB spread over each file. Training moves
    nearly every weight, so a model that was exchanged or trained further is noticed; one with a few weights
    edited by hand might not be.
    """
    path = folder / RECORD_FILE
    if not path.exists():
        return None
    record = json.loads(path.read_text())
    return str(record["model_id"]) if record["files"] == _files(folder) else None


def _files(folder: Path) -> dict[str, FileRecord]:
    return {path.name: _file_record(path) for path in sorted(folder.glob("*.safetensors"))}


def _file_record(path: Path) -> FileRecord:
    digest = hashlib.blake2b(digest_size=16)
    for block in _blocks(path):
        digest.update(block)
    return FileRecord(bytes=path.stat().st_size, sample=digest.hexdigest())


def _blocks(path: Path) -> Iterator[bytes]:
    """Yield the whole of a small file, else the first block, the last, and others evenly between them."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        if size <= _BLOCKS * _BLOCK_BYTES:
            yield stream.read()
            return
        for number in range(_BLOCKS):
            stream.seek((size - _BLOCK_BYTES) * number // (_BLOCKS - 1))
            yield stream.read(_BLOCK_BYTES)
