"""One training run: what every trainer here shares (arguments, resuming, the log)."""

import contextlib
import json
import math
import os
import sys
import warnings
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch.distributed.tensor import DTensor
from transformers import (
    PreTrainedModel,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from alignslm.convnet import DivergedError
from alignslm.lm.sharding import ShardingError, is_sharded
from alignslm.progress import track
from alignslm.storage import reraise_disk_errors, write_text
from alignslm.training.checkpointing import ChecksumCheckpoints, keep_adapter, last_complete_checkpoint
from alignslm.training.pass_memory import explain_lack_of_memory
from alignslm.training.passes import ignores_right_padding, lean_passes, unadapted
from alignslm.training.processes import is_main_process, num_processes, wait_for_everyone
from alignslm.training_log import BestCheckpoint, LogRow, TrainingRun

# TRL 1.16 and PEFT 0.21 still ask by the name that transformers 5 gave up.
warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)

IGNORE_INDEX = -100  # label that transformers leaves out of the loss


class BatchError(ValueError):
    """A batch cannot be shared by the processes and passes asked for."""


def shared_arguments(work: Path, *, seed: int, device: torch.device) -> dict[str, Any]:
    """Return keyword arguments common to transformers' and TRL's argument classes.

    fp32 and no external reporting; training is on the kind of `device` that the model is on. Checkpoints go to `work`,
    from where a killed run resumes with the same data order. Results depend on the seed alone (`full_determinism` is
    left off: it would forbid CUDA kernels that a 7B model needs, and on a CPU everything used here is deterministic
    already).
    """
    return {
        "output_dir": str(work),
        "seed": seed,
        "data_seed": seed,
        "report_to": [],
        "use_cpu": device.type == "cpu",  # it would take a GPU that it sees
        "dataloader_pin_memory": device.type == "cuda",
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "logging_steps": 10,
        "logging_nan_inf_filter": False,  # it would log the average in place of a loss that is not a number
        "save_total_limit": 1,
    }


@contextlib.contextmanager
def use_math_attention(model: PreTrainedModel | PeftModel) -> Iterator[None]:
    """Let a model that is trained on a CPU compute attention by plain matrix products inside.

    The backward pass of torch's fused CPU kernel took 40 % of a training step of the embedded model.
    """
    before = model.config._attn_implementation  # noqa: SLF001 - has a setter with a public name, and no getter
    if model.device.type == "cpu":
        model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def batch_arguments(batch_size: int, micro_batch_size: int | None) -> dict[str, Any]:
    """Return how many rows a process holds at once, and how many such passes add up to one optimiser step.

    Under torchrun the processes share the batch. The last one of an epoch is then filled up with rows of its first
    (fewer than a pass of all processes), which this epoch has twice. Raises BatchError if a batch cannot be shared.
    """
    processes = num_processes()
    if batch_size % processes or (batch_size // processes) % (micro := micro_batch_size or batch_size // processes):
        raise BatchError(
            f"batch_size {batch_size} cannot be shared evenly by {processes} processes in passes of "
            f"{micro_batch_size or 'all'} rows. Change batch_size or micro_batch_size in the trainer's YAML, or the "
            "number of processes."
        )
    return {"per_device_train_batch_size": micro, "gradient_accumulation_steps": batch_size // processes // micro}


def run_arguments(work: Path, *, seed: int, device: torch.device, **options: Any) -> TrainingArguments:
    """Return transformers' arguments for a run of known length, saving five times on the way."""
    every = max(1, options["max_steps"] // 5)
    return TrainingArguments(**shared_arguments(work, seed=seed, device=device), save_steps=every, **options)


@contextlib.contextmanager
def block_hub_lookups() -> Iterator[None]:
    """Keep transformers from asking the Hub about a model that only exists here."""
    before = os.environ.get("HF_HUB_OFFLINE")
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["HF_HUB_OFFLINE"]
        else:
            os.environ["HF_HUB_OFFLINE"] = before


class StopDiverged(TrainerCallback):
    """Ends a run at the first figure or trained weight that is not finite, before it can be saved."""

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kw: object) -> None:
        """Look at the weights that this step changed."""
        del args, control
        if not isinstance(model := kw["model"], torch.nn.Module):
            raise TypeError("the trainer called back without a model")
        for name, weight in model.named_parameters():
            if weight.requires_grad and not bool(weight.isfinite().all()):
                raise _diverged(state.global_step, f"weight {name}")

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kw: object) -> None:
        """Look at the figures of training and validation."""
        del args, control
        figures = kw["logs"]
        for name, value in figures.items() if isinstance(figures, dict) else ():
            if isinstance(value, float) and not math.isfinite(value):
                raise _diverged(state.global_step, f"{name} = {value}")


def _diverged(step: int, what: str) -> DivergedError:
    return DivergedError(
        f"training diverged at step {step}: {what} is not a finite number. Lower learning_rate, or raise warmup_steps, "
        "and run the same command again."
    )


class StepProgress(TrainerCallback):
    """Shows optimiser steps with their rate and the time left, in place of the trainer's own lines."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.steps: Iterator[int] = iter(())

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Start counting, after the steps that a resumed run already has."""
        del args, control
        left = range(state.global_step, state.max_steps)
        self.steps = track(left, total=len(left), label=self.label)
        next(self.steps, None)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Count one step."""
        del args, state, control
        next(self.steps, None)


def allow_sharded_model(arguments: TrainingArguments, model: torch.nn.Module) -> None:
    """Let transformers make a trainer for a model whose weights processes share; `run_trainer` then saves all.

    It refuses to save more than weights of such a model, because an optimiser of shared weights would be saved in part
    only. Here the optimiser has the weights of an adapter, and every process holds all of it.
    """
    arguments.save_only_model = is_sharded(model)


def _save_all(trainer: Trainer) -> None:
    weights = trainer.model.named_parameters() if trainer.model is not None else ()
    if shared := [name for name, weight in weights if weight.requires_grad and isinstance(weight, DTensor)]:
        raise ShardingError(f"processes share {shared[0]}, which is trained: its optimiser cannot be saved")
    trainer.args.save_only_model = False


def run_trainer(trainer: Trainer, *, right_padded: bool = True) -> TrainingRun:
    """Train to the end, from the last whole checkpoint in the run's folder where there is one.

    On a GPU masks of rows that are `right_padded` are not read. Raises ShardingError if weights are trained of which
    processes hold parts, GpuMemoryError if a GPU cannot hold a pass.
    """
    if (model := trainer.model) is None:
        raise TypeError("the trainer has no model")
    masks = trainer.args.use_cpu or not right_padded or not ignores_right_padding(unadapted(model))
    folder = Path(str(trainer.args.output_dir))
    _save_all(trainer)
    trainer.remove_callback(PrinterCallback)
    if is_main_process():
        trainer.add_callback(StepProgress("training step"))
    trainer.add_callback(StopDiverged())
    trainer.add_callback(ChecksumCheckpoints())
    last = last_complete_checkpoint(folder)
    wait_for_everyone()  # nobody writes a checkpoint before all have found the last one
    if last and is_main_process():
        keep_adapter(last)  # it may have been killed between the two
        print(f"training goes on after step {last.name.removeprefix('checkpoint-')} of an interrupted run", flush=True)
    lean = lean_passes(model, autocast=trainer.args.bf16, masks=masks)
    with block_hub_lookups(), reraise_disk_errors(folder), explain_lack_of_memory(trainer.args), lean:
        trainer.train(resume_from_checkpoint=str(last) if last else None)
    rows = [
        LogRow(
            int(entry["step"]), {k: float(v) for k, v in entry.items() if isinstance(v, int | float) and k != "step"}
        )
        for entry in trainer.state.log_history
    ]
    return TrainingRun(trainer.state.global_step, rows)


TIMES = ("runtime", "per_second", "total_flos", "step_time")  # differ from run to run, and an artifact must not
RESTARTED = ("num_tokens", "train_loss")  # counted, or averaged, from where a killed run was taken up again


def write_log(run: TrainingRun, best: BestCheckpoint | None, path: Path) -> None:
    """Write the run's figures as JSON: steps, the kept checkpoint (null where the last one is kept), the log.

    Figures are sorted by name, as those are that a killed run's checkpoint held.
    """
    rows = [
        {
            "step": row.step,
            "figures": {k: v for k, v in sorted(row.figures.items()) if not any(t in k for t in (*TIMES, *RESTARTED))},
        }
        for row in run.log
    ]
    content = {
        "steps": run.steps,
        "best": asdict(best) if best else None,
        "change": asdict(run.change) if run.change else None,
        "log": rows,
    }
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")
    warn_if_worse(run, path.stem)


def warn_if_worse(run: TrainingRun, name: str) -> None:
    """Print on stderr if training made the model `name` worse than the one that it started from."""
    if run.change and run.change.worse:
        print(
            f"warning: {name} is WORSE than the model it was trained from: {run.change.figure} is "
            f"{run.change.end:.4g}, was {run.change.start:.4g}. It is kept; lower the trainer's learning_rate.",
            file=sys.stderr,
            flush=True,
        )
