"""Train a checkpoint from another one, on preference pairs or on the corpus's own speech, and merge its adapter."""

from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from alignslm import tables
from alignslm.config.arithmetic import warn_emulated
from alignslm.config.curriculum import UNITS
from alignslm.config.experiment import preference_trainer
from alignslm.config.loading import load_execution
from alignslm.config.models import NextUnitTrainerConfig
from alignslm.lm.checkpoint import UnitLM, load_lm, save_lm
from alignslm.lm.positions import named_rows
from alignslm.training.adapter import save_adapter_and_merge, unshard_base
from alignslm.training.next_unit import continue_training
from alignslm.training.preference import train_preferences
from alignslm.training.processes import is_main_process, start_processes, wait_for_everyone
from alignslm.training.trainer_setup import BestCheckpoint, TrainingRun, write_log
from stages.run import Run, requested_name, start

if TYPE_CHECKING:
    from peft import PeftModel


def _on_speech(run: Run, lm: UnitLM, encoded: pl.DataFrame, work: Path) -> tuple["PeftModel", TrainingRun, None]:
    trainer = run.experiment.checkpoints[run.name]
    assert isinstance(trainer, NextUnitTrainerConfig)  # noqa: S101 - the configuration was checked for it
    seed = run.params.seeds.training
    return *continue_training(trainer, lm, encoded["units"].to_list(), seed=seed, work=work), None


def _on_pairs(run: Run, lm: UnitLM, pairs: pl.DataFrame, work: Path) -> tuple["PeftModel", TrainingRun, BestCheckpoint]:
    return train_preferences(
        preference_trainer(run.experiment, run.name),
        lm,
        pairs,
        warmup_steps=run.params.checkpoints[run.name].warmup_steps or 0,
        seed=run.params.seeds.training,
        batch_size=run.execution.batch_size,
        work=work,
    )


def main(name: str) -> None:
    """Train one checkpoint."""
    if start_processes("stages.train", [name], processes=load_execution().num_processes):
        return
    with start(__file__, name) as run, run.work() as work:
        warn_emulated(run.experiment, run.execution, "checkpoints")
        noun, artifacts = run.params.checkpoints[name], run.artifacts
        source, parent = artifacts.named(noun.train_on), artifacts.checkpoint(noun.init_from)
        table, train = (tables.ENCODED, _on_speech) if noun.train_on == UNITS else (tables.PAIRS, _on_pairs)
        rows = tables.read(table, source)
        if noun.train_on == UNITS:
            rows = rows.filter(pl.col("split") == "train")
        lm = load_lm(parent, device=run.execution.device, processes=run.execution.processes_sharing)
        contract = tables.contract_of(table, source)
        lm.contract.require(contract, mine=str(parent), theirs=str(source))
        wait_for_everyone()  # the first process has the folder for itself
        with named_rows(rows["utterance_id" if noun.train_on == UNITS else "pair_id"]):
            model, made, best = train(run, lm, rows, work)
        if is_main_process():
            folder = artifacts.checkpoint(name)
            merged = save_adapter_and_merge(unshard_base(model, parent), folder / "adapter")
            save_lm(merged, lm.vocabulary, lm.contract if noun.train_on == UNITS else contract, folder)
            write_log(made, best, artifacts.training(name))
        if best:
            run.log.log_metrics(
                {"best_step": best.step, "accuracy": best.reward_accuracy, "margin": best.reward_margin}
            )
        run.log.rows(inputs={"utterances" if best is None else "pairs": len(rows)}, outputs={"steps": made.steps})


if __name__ == "__main__":
    main(requested_name())
