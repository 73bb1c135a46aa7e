"""A unit language model on disk: a plain transformers folder plus the meaning of its token ids."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging as transformers_logging

from alignslm.provenance import UnitContract
from alignslm.units import UnitVocabulary

transformers_logging.disable_progress_bar()  # a bar for every file of weights drowns the stage's own progress

VOCABULARY_FILE = "unit_vocabulary.json"
CONTRACT_FILE = "unit_contract.json"


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


def _weights_id(model: PreTrainedModel) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


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
        elif isinstance(getattr(module, "dropout", None), float):
            setattr(module, "dropout", 0.0)  # noqa: B010 - torch types every attribute as a tensor or module


def save_lm(model: PreTrainedModel, vocabulary: UnitVocabulary, contract: UnitContract, folder: Path) -> None:
    """Write the model as a transformers folder with its unit vocabulary and unit contract beside it."""
    model.save_pretrained(folder)
    (folder / VOCABULARY_FILE).write_text(vocabulary.model_dump_json(indent=1) + "\n")
    (folder / CONTRACT_FILE).write_text(contract.model_dump_json(indent=1) + "\n")


def load_lm(folder: Path, *, device: str) -> UnitLm:
    """Load a checkpoint folder in fp32, evaluation mode, dropout off.

    Raises CheckpointError where the folder is missing or says nothing of its units.
    """
    for name in ("config.json", VOCABULARY_FILE, CONTRACT_FILE):
        if not (folder / name).exists():
            raise CheckpointError(
                f"{folder} has no {name}, so it is no unit language model of this project. "
                "Make it with `dvc repro` or fetch it with `dvc pull`."
            )
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    silence_dropout(model)
    model.eval().to(device)
    vocabulary = UnitVocabulary.model_validate_json((folder / VOCABULARY_FILE).read_text())
    if vocabulary.offset + vocabulary.num_units > model.config.vocab_size:
        raise CheckpointError(
            f"{folder}: {vocabulary.num_units} units from id {vocabulary.offset} do not fit "
            f"a vocabulary of {model.config.vocab_size} tokens"
        )
    contract = UnitContract.model_validate_json((folder / CONTRACT_FILE).read_text())
    return UnitLm(model, vocabulary, contract, _weights_id(model))


def resolve_device(name: str) -> str:
    """Turn `auto` into cuda where there is one, else cpu."""
    if name != "auto":
        return name
    return "cuda" if torch.cuda.is_available() else "cpu"
