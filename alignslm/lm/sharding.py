"""A frozen model with weights sharded over several processes (FSDP2, torch's `fully_shard`).

Each has a shard of every weight; a layer is gathered before it computes and freed afterwards.
"""

from pathlib import Path

import torch
from torch import distributed
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.distributed.configuration_utils import DistributedConfig

from alignslm.loading import load_pretrained


class ShardingError(ValueError):
    """An architecture with layers that processes cannot share."""


def load_sharded_model(folder: Path, *, dtype: str, processes: int) -> PreTrainedModel:
    """Load a checkpoint so that each of `processes` reads its shard of every weight; all weights are frozen.

    All processes call it at the same time, and compute with it equally often: every layer is gathered from all.
    Raises ShardingError if the model would be gathered as a whole.
    """
    config = DistributedConfig(fsdp_size=processes)
    model: PreTrainedModel = load_pretrained(AutoModelForCausalLM, folder, dtype=dtype, distributed_config=config)
    if not _shares_layers(model):
        raise ShardingError(
            f"{folder}: transformers cannot share the layers of a {model.config.model_type} model among processes, "
            "each would gather it whole. Set fsdp: none in experiments/execution.yaml."
        )
    # PEFT takes a model with a size of tensor parallelism, 1 included, for one whose adapter has to be gathered, and
    # gathers all that the model has, in every process and at every checkpoint.
    model._tp_size = None  # noqa: SLF001
    # Frozen before anything is gathered. An adapter freezes what it finds, and would miss the parts of weights that
    # happen to be gathered then.
    model.requires_grad_(False)
    # The tensors that weights are gathered into are made in the first pass, and kept. Made in inference mode, which
    # likelihoods are computed in, none could be trained through.
    with torch.no_grad():
        model(torch.zeros((1, 1), dtype=torch.long, device=model.device))
    for module in model.modules():
        if isinstance(module, FSDPModule):  # embedding and head would stay gathered
            module.reshard()
    if distributed.get_rank() == 0:
        held, total = num_local_parameters(model)
        print(f"{folder}: {processes} processes share its {total} parameters, the first holds {held}", flush=True)
    return model


def _shares_layers(model: PreTrainedModel) -> bool:
    stacks = [module for module in model.modules() if isinstance(module, torch.nn.ModuleList)]
    return any(isinstance(layer, FSDPModule) for stack in stacks for layer in stack)


def is_sharded(model: torch.nn.Module) -> bool:
    """Return whether the weights of a model are sharded."""
    return any(isinstance(weight, DTensor) for weight in model.parameters())


def num_local_parameters(model: torch.nn.Module) -> tuple[int, int]:
    """Return how many parameters are in this process, and how many the model has."""
    weights = [(w.to_local() if isinstance(w, DTensor) else w, w) for w in model.parameters()]
    return sum(part.numel() for part, _ in weights), sum(whole.numel() for _, whole in weights)
