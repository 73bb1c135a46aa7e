"""The base model of an experiment: trained from scratch, warm-started from a text model, or published by others."""

from collections.abc import Sequence
from pathlib import Path

import torch

from alignslm.config.models import LlamaScratch, LmConfig
from alignslm.config.pretrained_lm import WarmStart
from alignslm.lm.checkpoint import save_lm
from alignslm.provenance import UnitContract
from alignslm.training.next_unit import scratch_vocabulary, train_base, train_whole
from alignslm.training.processes import is_first
from alignslm.training.run import TrainingRun


def make_base(
    config: LmConfig,
    utterances: Sequence[Sequence[int]],
    contract: UnitContract,
    *,
    seed: int,
    work: Path,
    folder: Path,
) -> TrainingRun:
    """Write the base model's checkpoint into `folder`; a published one is not trained: a run of 0 steps.

    `utterances` are training speech in units of `contract`; a run that was cut off resumes from `work`.
    """
    match config:
        case LlamaScratch():
            vocabulary = scratch_vocabulary(contract.num_units)
            model, run = train_base(config, utterances, vocabulary, seed=seed, work=work)
            if is_first():
                save_lm(model, vocabulary, contract, folder)
            return run
        case WarmStart():
            return _warm_start(config, utterances, contract, seed=seed, work=work, folder=folder)
        case _:
            from alignslm.lm.pretrained import import_lm

            if is_first():
                import_lm(config, contract, folder)
            return TrainingRun(0)


def _warm_start(
    config: WarmStart,
    utterances: Sequence[Sequence[int]],
    contract: UnitContract,
    *,
    seed: int,
    work: Path,
    folder: Path,
) -> TrainingRun:
    from alignslm.lm.pretrained import fetch_checkpoint, write_source
    from alignslm.lm.warm_start import warm_started

    vocabulary = scratch_vocabulary(contract.num_units)
    fetched = fetch_checkpoint(config.weights)
    model = warm_started(fetched.path, vocabulary, seed=seed)
    run = train_whole(config, model, utterances, vocabulary, seed=seed, work=work)
    if is_first():
        model.to(getattr(torch, config.dtype))
        save_lm(model, vocabulary, contract, folder)
        write_source(config.weights, fetched.identity, folder)
    return run
