"""The base model of an experiment: trained from scratch, warm-started from a text model, or published by others."""

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import PreTrainedModel

from alignslm.config.models import LlamaScratchConfig, LmConfig
from alignslm.config.pretrained_lm import TwistInitConfig
from alignslm.device import resolve_device
from alignslm.lm.checkpoint import save_lm
from alignslm.lm.pretrained import fetch_checkpoint, import_lm, write_source
from alignslm.lm.probe import require_readable
from alignslm.lm.twist_init import twist_init
from alignslm.provenance import UnitContract
from alignslm.training.next_unit import new_model, scratch_vocabulary, train_whole
from alignslm.training.processes import is_main_process
from alignslm.training.trainer_setup import TrainingRun
from alignslm.units import UnitVocabulary


def make_base(
    config: LmConfig,
    utterances: Sequence[Sequence[int]],
    contract: UnitContract,
    *,
    seed: int,
    work: Path,
    folder: Path,
    device: str = "auto",
) -> TrainingRun:
    """Write the base model's checkpoint into `folder`; a published one is not trained: a run of 0 steps.

    `utterances` are training speech in units of `contract`; an interrupted run resumes from `work`. `device`: where to
    train, auto, cpu or cuda.
    """
    if not isinstance(config, LlamaScratchConfig | TwistInitConfig):
        if is_main_process():
            import_lm(config, contract, folder)
        return TrainingRun(0)
    vocabulary = scratch_vocabulary(contract.num_units)
    model = _initial(config, vocabulary, seed=seed, folder=folder)
    torch.nn.Module.to(model, resolve_device(device))
    run = train_whole(config, model, utterances, vocabulary, seed=seed, work=work)
    if is_main_process():
        if isinstance(config, TwistInitConfig):
            model.to(getattr(torch, config.dtype))
        save_lm(model, vocabulary, contract, folder)
    return run


def _initial(
    config: LlamaScratchConfig | TwistInitConfig, vocabulary: UnitVocabulary, *, seed: int, folder: Path
) -> PreTrainedModel:
    if isinstance(config, LlamaScratchConfig):
        return new_model(config, vocabulary, seed=seed)
    fetched = fetch_checkpoint(config.weights)
    if is_main_process():
        write_source(config.weights, fetched.identity, folder)
    model = twist_init(fetched.path, vocabulary, seed=seed)
    require_readable(model, vocabulary)
    return model
