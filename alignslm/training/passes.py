"""What a pass of training reads: rows of like lengths and of few widths, without casts and masks to no effect."""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from accelerate.data_loader import SeedableRandomSampler
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch.utils.data import Sampler
from transformers import PreTrainedConfig, PreTrainedModel, TrainingArguments

from alignslm.model_cache import keeps_states

WIDTHS = 32  # on a GPU, rows are padded to multiples of this: attention is planned anew for every shape


def width_step(config: PreTrainedConfig, *, gpu: bool) -> int:
    """Return what widths are multiples of; the longest row that the model may read stays one. 1: no rounding."""
    return math.gcd(WIDTHS, getattr(config, "max_position_embeddings", None) or WIDTHS) if gpu else 1


def unadapted(model: torch.nn.Module | None) -> PreTrainedModel:
    """Return transformers' model, which an adapter may be on. Raises TypeError if it is no such model."""
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    if not isinstance(base, PreTrainedModel):
        raise TypeError(f"this is a {type(base).__name__}, expected a model of transformers")
    return base


def ignores_right_padding(model: PreTrainedModel) -> bool:
    """Return whether padding after a row's last unit changes nothing that counts, though no mask tells of it.

    So it is where every position reads those before it. A state takes padding in, and the loss that balances
    experts counts it.
    """
    return not keeps_states(model) and not hasattr(model.config.get_text_config(), "output_router_logits")


@contextlib.contextmanager
def lean_passes(model: torch.nn.Module, *, autocast: bool, masks: bool) -> Iterator[None]:
    """Let a model's passes do nothing twice: under `autocast`, PEFT's casts; unless `masks`, reading of masks.

    PEFT casts what an adapted layer reads to the adapter's float32, and autocast casts it back to the same bits.
    Calls of the model below the adapter, as sampling makes them without autocast, are left alone.
    """
    layers: list[Any] = [part for part in model.modules() if isinstance(part, BaseTunerLayer)] if autocast else []

    def before(_model: torch.nn.Module, args: Any, given: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        for layer in layers:
            layer.cast_input_dtype_enabled = False
        return args, given if masks else given | {"attention_mask": None}

    def after(*_: object) -> None:
        for layer in layers:
            layer.cast_input_dtype_enabled = True

    if masks and not layers:
        yield
        return
    hooks = [
        model.register_forward_pre_hook(before, with_kwargs=True),
        model.register_forward_hook(after, always_call=True),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class StepOrder(Sampler[int]):
    """The rows of an epoch as they are `drawn`, but of each optimiser step the longest first.

    A step has the same rows as without, and its passes less padding. The order follows from seed and epoch alone, so a
    resumed run finds it again. Rows that fill up the last pass of several processes are the first ones drawn.
    """

    def __init__(self, drawn: SeedableRandomSampler, lengths: Sequence[int], arguments: TrainingArguments) -> None:
        self.drawn, self.lengths = drawn, lengths
        together = arguments.train_batch_size * arguments.world_size
        self.filled = together if arguments.world_size > 1 else 1
        self.step = together * arguments.gradient_accumulation_steps

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that is drawn next."""
        self.drawn.set_epoch(epoch)

    def __len__(self) -> int:
        return math.ceil(len(self.lengths) / self.filled) * self.filled

    def __iter__(self) -> Iterator[int]:
        drawn = list(self.drawn)
        order = [drawn[at % len(drawn)] for at in range(len(self))]
        for start in range(0, len(order), self.step):
            yield from sorted(order[start : start + self.step], key=lambda row: -self.lengths[row])


def sort_steps(loader: Any, arguments: TrainingArguments, lengths: Callable[[], Sequence[int]]) -> Any:
    """Let accelerate's loader of training rows draw in a StepOrder, where a step has several passes; return it."""
    if arguments.gradient_accumulation_steps > 1:
        loader.set_sampler(StepOrder(loader.get_sampler(), lengths(), arguments))
    return loader
