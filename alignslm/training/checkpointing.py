"""Checkpoints of a run under way: sealed once they are whole, and looked at before a killed run goes on from one."""

import json
import re
import shutil
from pathlib import Path

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from alignslm.provenance import tree_sha256
from alignslm.storage import filling, write_text
from alignslm.training.processes import is_main_process, wait_for_everyone

STATE = "trainer_state.json"  # the last file of a checkpoint that the trainer writes
STEPS = "steps"  # a folder of this name beside the checkpoints keeps the adapter of each, by its step


class ChecksumCheckpoints(TrainerCallback):
    """Writes the hash of every checkpoint beside it, and has the log up to date before: a checkpoint has no open sums.

    A run that is resumed would otherwise log the steps since its checkpoint, an uninterrupted one those since the
    last log.
    """

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Log wherever a checkpoint is saved."""
        del args, state
        control.should_log |= control.should_save

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Seal the checkpoint of this step."""
        del control
        wait_for_everyone()  # every process adds the state of its random numbers
        folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        if state.is_world_process_zero and folder.is_dir():
            for old in folder.parent.glob("sealed-*"):  # the trainer keeps one checkpoint
                old.unlink()
            write_text(_seal(folder), tree_sha256([folder]) + "\n")
            keep_adapter(folder)


def keep_adapter(checkpoint: Path) -> None:
    """Copy the adapter of a checkpoint, if adapters of this run are to be kept; once more does no harm."""
    if (steps := checkpoint.parent / STEPS).is_dir():
        with filling(steps / f"{int(checkpoint.name.removeprefix('checkpoint-')):06d}") as partial:
            for file in checkpoint.glob("adapter_*"):
                shutil.copyfile(file, partial / file.name)


def last_complete_checkpoint(work: Path) -> Path | None:
    """Return the last checkpoint from which training can go on, None if it starts anew.

    What is half written, truncated or altered is told and removed. A checkpoint killed after its last file and
    before its seal counts as whole.
    """
    found = [(int(match[1]), path) for path in work.glob("checkpoint-*") if (match := re.search(r"-(\d+)$", path.name))]
    for _, folder in sorted(found, reverse=True):
        if _is_whole(folder):
            return folder
        if is_main_process():
            print(f"{folder} is damaged or half written; training goes on from before it", flush=True)
            shutil.rmtree(folder, ignore_errors=True)
            _seal(folder).unlink(missing_ok=True)
    return None


def _seal(folder: Path) -> Path:
    return folder.with_name(f"sealed-{folder.name}.sha256")


def _is_whole(folder: Path) -> bool:
    try:
        json.loads((folder / STATE).read_text())
    except (FileNotFoundError, ValueError):
        return False
    seal = _seal(folder)
    return not seal.exists() or seal.read_text(errors="replace").strip() == tree_sha256([folder])
