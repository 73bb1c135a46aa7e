"""How many rows memory holds in one pass of training, where the configuration leaves that open."""

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import distributed
from transformers import PreTrainedConfig, PreTrainedModel

from alignslm.buckets import rounded
from alignslm.device import free_gpu_bytes
from alignslm.machine import host_memory
from alignslm.storage import write_text
from alignslm.training.passes import unadapted, width_step
from alignslm.training.processes import is_main_process, num_processes, wait_for_everyone

HIDDEN_STATES = 30  # numbers of hidden size that a layer keeps of a token for the way back; 25 were measured
ATTENTION = 3  # numbers that plain attention keeps of two positions: scores, shares, and a gradient
LOGIT_BYTES = 8  # logits and their gradient, in float32
HOST_SHARE = 0.5  # of this machine's memory, which other things need too
USABLE = 0.8  # share of free memory: adapter, its optimiser and what is lost between blocks need some
RECORD = "rows_per_pass.json"  # in a run's folder: for a run without `micro_batch_size`, the most rows that it takes


class GpuMemoryError(ValueError):
    """A pass of training needs more memory than its GPU has."""


def fit_to_memory(
    arguments: Any,
    model: torch.nn.Module,
    lengths: Sequence[int],
    *,
    micro_batch_size: int | None,
    sequences: int = 1,
    least: int = 1,
) -> int:
    """If `micro_batch_size` is None, let passes hold the rows that fit; on a GPU let rows be padded to few widths.

    `arguments` are transformers' or TRL's, and are changed; their `use_cpu` tells the device. `lengths` are those of
    the longest sequence of every row, in tokens; a row has `sequences` of them. Returns what widths are multiples of.
    """
    base, cpu = unadapted(model), arguments.use_cpu
    step = width_step(base.config, gpu=not cpu)
    if not cpu:
        arguments.pad_to_multiple_of = step  # TRL reads it, transformers does not
    if micro_batch_size is None:
        rows, length = arguments.per_device_train_batch_size, rounded(max(lengths), step)
        size = pass_bytes(base.config, sequences=sequences, length=length, itemsize=base.dtype.itemsize, plain=cpu)
        if cpu:  # by all of its memory, not by what is free: the same in every process and run
            taken = rows_that_fit(rows, size, HOST_SHARE * host_memory() / num_processes(), least=least)
        else:
            taken = choose_rows(rows, base, Path(arguments.output_dir), row_bytes=size, least=least)
        arguments.per_device_train_batch_size = arguments.per_device_eval_batch_size = taken
        arguments.gradient_accumulation_steps = rows // taken
    return step


def pass_bytes(config: PreTrainedConfig, *, sequences: int, length: int, itemsize: int, plain: bool = False) -> int:
    """Return an upper estimate of what a forward and backward pass over a row holds beside weights, in bytes.

    `itemsize` is that of the model's numbers; `length` is in tokens, padding included. `plain` attention keeps a number
    for every two positions of a head.
    """
    text = config.get_text_config()
    heads = getattr(text, "num_attention_heads", 0) if plain else 0  # a model of states alone has none
    numbers = HIDDEN_STATES * int(text.hidden_size) + ATTENTION * length * heads
    layers = numbers * itemsize * int(text.num_hidden_layers)
    return sequences * length * (layers + LOGIT_BYTES * int(text.vocab_size))


def rows_that_fit(rows: int, row_bytes: int, free: float, *, least: int = 1) -> int:
    """Return the largest divisor of `rows`, at least `least`, that fits in `free` bytes; the smallest if none does."""
    divisors = [count for count in range(max(1, least), rows + 1) if rows % count == 0]
    return max((count for count in divisors if count * row_bytes <= free), default=min(divisors, default=rows))


def choose_rows(rows: int, model: PreTrainedModel, work: Path, *, row_bytes: int, least: int) -> int:
    """Return how many of `rows` a GPU takes at a time: as many in every process, and in a resumed run as before."""
    record = work / RECORD
    if record.exists():
        found = rows_that_fit(rows, 1, json.loads(record.read_text())["rows"], least=least)
    else:
        found = rows_that_fit(rows, row_bytes, USABLE * free_bytes(model), least=least)
    wait_for_everyone()  # all have read it before it is written
    if num_processes() > 1:
        least_found = torch.tensor(found, device="cuda" if torch.cuda.is_available() else "cpu")
        distributed.all_reduce(least_found, distributed.ReduceOp.MIN)
        found = int(least_found)
    if is_main_process():
        work.mkdir(parents=True, exist_ok=True)
        write_text(record, json.dumps({"rows": found, "least": least}))
    return found


@contextlib.contextmanager
def explain_lack_of_memory(arguments: Any) -> Iterator[None]:
    """Raise GpuMemoryError, which says what helps, when a GPU's memory runs out inside.

    If the rows of a pass were chosen by `fit_to_memory`, half as many are noted for the next run.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        rows, record = arguments.per_device_train_batch_size, Path(arguments.output_dir) / RECORD
        least = json.loads(record.read_text())["least"] if record.exists() else 1
        fewer = max(least, rows // 2)
        told = f"a pass of {rows} {'row' if rows == 1 else 'rows'} needs more memory than the GPU has free ({error}). "
        if rows <= least:
            advice = "Take a GPU with more memory, fsdp: full_shard in execution.yaml, or shorter continuations."
        elif record.exists():
            write_text(record, json.dumps({"rows": fewer, "least": least}))
            advice = f"Run the same command again: it goes on with at most {fewer} at a time."
        else:
            advice = (
                f"Set micro_batch_size to {fewer} or less in the trainer's YAML; for a base model, lower batch_size."
            )
        raise GpuMemoryError(told + advice) from error


def free_bytes(model: PreTrainedModel) -> int:
    """Return the memory of this process's GPU that nothing has, once the weights of the model are on it."""
    to_come = sum(part.numel() * part.itemsize for part in model.parameters() if part.device.type != "cuda")
    return free_gpu_bytes() - to_come
