"""A unit language model on disk: a plain transformers folder plus the meaning of its token ids."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging as transformers_logging

from alignslm.device import resolve_device
from alignslm.lm.identity import recorded_model_id, weights_id, write_record
from alignslm.lm.sharding import shared_model
from alignslm.provenance import UnitContract
from alignslm.storage import filling, write_text
from alignslm.units import UnitVocabulary

transformers_logging.disable_progress_bar()  # a bar for every file of weights drowns the stage's own progress

VOCABULARY_FILE = "unit_vocabulary.json"
CONTRACT_FILE = "unit_contract.json"
ADAPTER_FOLDER = "adapter"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class CheckpointError(ValueError):
    """A checkpoint folder lacks what makes it a unit language model."""


@dataclass(frozen=True)
class UnitLm:
    """A causal language model over units. `model_id` is a hash of its weights: equal id, equal distribution."""

    model: PreTrainedModel
    vocabulary: UnitVocabulary
    contract: UnitContract
    model_id: str

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self.model.device


def silence_dropout(model: PreTrainedModel) -> None:
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
    """Write the model as a transformers folder with its unit vocabulary and unit contract beside it.

    The dtype of the weights is the checkpoint's. An adapter in the folder gets both files too: published alone, it
    would not say which unit a token id is.
    """
    with filling(folder) as partial:
        model.save_pretrained(partial)
    for place in (folder, folder / ADAPTER_FOLDER):
        if place.is_dir():
            write_text(place / VOCABULARY_FILE, vocabulary.model_dump_json(indent=1) + "\n")
            write_text(place / CONTRACT_FILE, contract.model_dump_json(indent=1) + "\n")
    write_record(folder, weights_id(model))


def load_lm(folder: Path, *, device: str, processes: int = 1) -> UnitLm:
    """Load a checkpoint folder in the dtype it was saved in, evaluation mode, dropout off.

    Where several `processes` are to share it, each holds a part of its frozen weights, see `shared_model`. Raises
    CheckpointError where the folder is missing, says nothing of its units or contradicts itself.
    """
    for name in ("config.json", VOCABULARY_FILE, CONTRACT_FILE):
        if not (folder / name).exists():
            raise CheckpointError(
                f"{folder} has no {name}, so it is no unit language model of this project. "
                "Make it with `dvc repro` or fetch it with `dvc pull`."
            )
    vocabulary = UnitVocabulary.model_validate_json((folder / VOCABULARY_FILE).read_text())
    contract = UnitContract.model_validate_json((folder / CONTRACT_FILE).read_text())
    dtype = _saved_dtype(folder)
    if processes > 1:
        model = shared_model(folder, dtype=dtype, processes=processes)
    else:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, local_files_only=True)
        model.eval().to(resolve_device(device))
    _require_agreement(model, vocabulary, folder)
    silence_dropout(model)
    return UnitLm(model, vocabulary, contract, recorded_model_id(folder) or weights_id(model))


def _saved_dtype(folder: Path) -> torch.dtype:
    """Return the dtype that config.json names: transformers' own choice has changed between its versions."""
    name = json.loads((folder / "config.json").read_text()).get("dtype")
    if name not in DTYPES:
        raise CheckpointError(
            f"{folder / 'config.json'} says dtype {name!r}, expected {' or '.join(DTYPES)}: it was not written here. "
            "Import the model as a choice of experiments/lm, which names its dtype."
        )
    return DTYPES[name]


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
