"""Train a checkpoint from another one, on preference pairs, on speech or online, and merge its adapter."""

import shutil
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from alignslm import integrity, tables
from alignslm.asr import load_asr
from alignslm.config.arithmetic import warn_emulated
from alignslm.config.curriculum import PAIRS, REWARDS, SCORES, UNITS
from alignslm.config.experiment import preference_trainer
from alignslm.config.feedback import ThresholdSelector
from alignslm.config.loading import load_execution, load_experiment
from alignslm.config.models import NextUnitTrainerConfig, OnlineTrainerConfig, PreferenceTrainerConfig
from alignslm.judge import load_judge
from alignslm.lm.checkpoint import UnitLM, load_lm, save_lm
from alignslm.lm.positions import named_rows
from alignslm.online.rollouts import Listeners, RolloutStore, UnitRewards
from alignslm.pairs.labels import label_continuations, labeled_continuations
from alignslm.pairs.streaming import Sources
from alignslm.prompts import fill_missing_texts
from alignslm.storage import filling
from alignslm.training.adapter import save_adapter_and_merge, sort_targets, unshard_base
from alignslm.training.checkpointing import STEPS
from alignslm.training.kto import train_offline
from alignslm.training.next_unit import continue_training
from alignslm.training.processes import (
    ProcessesError,
    is_main_process,
    start_processes,
    wait_for_everyone,
)
from alignslm.training.trainer_setup import BestCheckpoint, TrainingRun, write_log
from alignslm.user_errors import report_user_errors
from alignslm.vocoder import load_vocoder
from stages.judging import max_unscored
from stages.names import requested_name
from stages.run import Run, start

if TYPE_CHECKING:
    from peft import PeftModel


@dataclass(frozen=True)
class _Learning:
    """What a checkpoint may learn from: the table with its units and its key, and how it is trained on it."""

    table: tables.Table
    noun: str
    train: "Callable[[Run, UnitLM, pl.DataFrame, Path], tuple[PeftModel, TrainingRun, BestCheckpoint | None]]"


def _on_speech(run: Run, lm: UnitLM, encoded: pl.DataFrame, work: Path) -> tuple["PeftModel", TrainingRun, None]:
    trainer = run.experiment.checkpoints[run.name]
    assert isinstance(trainer, NextUnitTrainerConfig)  # noqa: S101 - the configuration was checked for it
    seed = run.params.seeds.training
    return *continue_training(trainer, lm, encoded["units"].to_list(), seed=seed, work=work), None


def _on_pairs(run: Run, lm: UnitLM, pairs: pl.DataFrame, work: Path) -> tuple["PeftModel", TrainingRun, BestCheckpoint]:
    return train_offline(
        preference_trainer(run.experiment, run.name),
        lm,
        pairs,
        labeled=_labeled(run, sources) if (sources := _labels_from(run)) else None,
        warmup_steps=run.params.checkpoints[run.name].warmup_steps or 0,
        seed=run.params.seeds.training,
        batch_size=run.execution.batch_size,
        work=work,
    )


def _labels_from(run: Run) -> Sources | None:
    """Return the tables by which continuations are labeled; None where only pairs, or no pairs, are learnt from."""
    name, trainer, made = run.params.checkpoints[run.name].pairs, run.experiment.checkpoints[run.name], run.artifacts
    if name not in run.params.preferences or not (isinstance(trainer, PreferenceTrainerConfig) and trainer.unpaired):
        return None
    return Sources(made.table("scores", name), made.table("continuations", name), made.prompts)


def _labeled(run: Run, sources: Sources) -> pl.DataFrame:
    """Return the continuations to learn from by their labels, and write the table of all labels."""
    params, selector = run.params, run.experiment.selector
    assert isinstance(selector, ThresholdSelector)  # noqa: S101 - the configuration was checked for it
    rules = params.preferences[sources.scores.stem]
    labels = label_continuations(sources, weights=params.weights, selector=selector, rules=rules)
    if is_main_process():
        tables.write(labels, tables.LABELS, run.artifacts.labels(run.name))
    run.log.log_metrics(dict(labels.filter(split="train")["label"].value_counts(sort=True).iter_rows()))
    return labeled_continuations(labels, sources)


def _online(run: Run, lm: UnitLM, prompts: pl.DataFrame, work: Path) -> tuple["PeftModel", TrainingRun, None]:
    from alignslm.online.grpo import train_online  # TRL's GRPO takes seconds to import

    trainer, artifacts, seed = run.experiment.checkpoints[run.name], run.artifacts, run.params.seeds.training
    assert isinstance(trainer, OnlineTrainerConfig)  # noqa: S101 - the configuration was checked for it
    noun, penalty = run.params.checkpoints[run.name], trainer.repeated_text_penalty
    reward = _listeners(run, penalty) if noun.rewards is None else _unit_rewards(run, noun.rewards, penalty)
    if noun.rewards is None:
        texts = fill_missing_texts(prompts, tables.read(tables.TRANSCRIPTS, artifacts.prompt_transcripts))
        prompts = texts.filter(pl.col("prompt_text").is_not_null())
    known = tables.read(
        tables.SCORES if noun.rewards is None else tables.UNIT_REWARDS, artifacts.named(noun.train_on), ["prompt_id"]
    )
    store = RolloutStore(
        trainer,
        prompts.join(known, on="prompt_id", how="semi"),
        reward,
        name=run.name,
        seed=seed,
        folder=run.sampling_folder(work) / "rollouts",
        batch_size=run.execution.batch_size,
        batch_invariant=run.execution.batch_invariant,
    )
    trained = train_online(trainer, lm, store, seed=seed, work=work)
    if is_main_process():
        store.write(artifacts.rollouts(run.name), tables.contract_of(tables.PROMPTS, artifacts.prompts))
    return *trained, None


def _unit_rewards(run: Run, name: str, penalty: float) -> UnitRewards:
    from alignslm.lm.reward import load_reward

    place, rows = (tables.PROMPTS, run.artifacts.prompts), run.execution.rows_at_once
    return UnitRewards(run.unit_model(load_reward, run.artifacts.reward_model(name), units_of=place), rows, penalty)


def _listeners(run: Run, penalty: float) -> Listeners:
    artifacts, choice, judge = run.artifacts, run.params.judge, run.experiment.judge
    return Listeners(
        vocoder=run.unit_model(
            load_vocoder, run.experiment.vocoder, artifacts.vocoder, units_of=(tables.PROMPTS, artifacts.prompts)
        ),
        asr=run.model(load_asr, run.experiment.asr, artifacts.asr),
        judge=run.model(load_judge, judge, artifacts.judge(choice)),
        judge_name=choice,
        max_unscored=max_unscored(judge),
        auto_bleu=run.params.auto_bleu,
        shard_size=run.execution.shard_size,
        penalty=penalty,
    )


LEARNING = {
    UNITS: _Learning(tables.ENCODED, "utterances", _on_speech),
    PAIRS: _Learning(tables.PAIRS, "pairs", _on_pairs),
    SCORES: _Learning(tables.PROMPTS, "prompts", _online),
    REWARDS: _Learning(tables.PROMPTS, "prompts", _online),
}


def _require_whole_model(name: str) -> None:
    """Raise ProcessesError where processes that train online are to share one model: the first samples from it."""
    fsdp = load_execution().fsdp
    if fsdp != "none" and isinstance(load_experiment().checkpoints.get(name), OnlineTrainerConfig):
        raise ProcessesError(
            f"checkpoints.{name} is trained online, and samples from a whole model, but fsdp is {fsdp} in "
            "experiments/execution.yaml. Set it to none for this checkpoint: results do not change."
        )


def _also_read(run: Run) -> dict[str, str]:
    """Return what identifies inputs that dvc.yaml does not name: pairs or scores follow from them. Raises DamagedError.

    Labels are read from what pairs were made of, a rollout reads what scores or rewards were made of.
    """
    noun, artifacts = run.params.checkpoints[run.name], run.artifacts
    if sources := _labels_from(run):
        rules = (run.params.weights, run.experiment.selector, run.params.preferences[sources.scores.stem])
        return {"rules": repr(rules), **{str(path): integrity.require_intact(path) for path in sources}}
    if not noun.online:
        return {}
    again = [artifacts.prompts]
    if noun.rewards is None:
        again += [artifacts.prompt_transcripts, artifacts.vocoder, artifacts.asr, artifacts.judge(run.params.judge)]
    else:
        again += [artifacts.reward_model(noun.rewards)]
    return {str(path): integrity.require_intact(path) for path in again}


def _save_steps(kept: Path, folder: Path) -> None:
    """Move the adapters of saved steps into a checkpoint's folder."""
    with filling(folder) as partial:
        shutil.copytree(kept, partial, dirs_exist_ok=True)
        for config in partial.glob("*/adapter_config.json"):
            sort_targets(config)


def main(name: str) -> None:
    """Train one checkpoint."""
    with report_user_errors():
        _require_whole_model(name)
    if start_processes("stages.train", [name], processes=load_execution().num_processes):
        return
    with start(__file__, name) as run, run.work(**_also_read(run)) as work:
        warn_emulated(run.experiment, run.execution, "checkpoints")
        noun, artifacts = run.params.checkpoints[name], run.artifacts
        learning = next(learning for kind, learning in LEARNING.items() if noun.train_on.startswith(kind))
        source = artifacts.prompts if noun.online else artifacts.named(noun.train_on)
        parent = artifacts.checkpoint(noun.init_from)
        rows = tables.read(learning.table, source)
        if noun.pairs is None:
            rows = rows.filter(pl.col("split") == "train")
        lm = load_lm(parent, device=run.execution.device, processes=run.execution.processes_sharing)
        contract = tables.contract_of(learning.table, source)
        lm.contract.require(contract, mine=str(parent), theirs=str(source))
        if noun.keep_steps:
            (work / STEPS).mkdir(exist_ok=True)
        wait_for_everyone()  # the first process has the folder for itself
        with nullcontext() if noun.online else named_rows(rows[learning.table.key[0]]):
            model, made, best = learning.train(run, lm, rows, work)
        if is_main_process():
            folder = artifacts.checkpoint(name)
            merged = save_adapter_and_merge(unshard_base(model, parent), folder / "adapter")
            save_lm(merged, lm.vocabulary, lm.contract if noun.train_on == UNITS else contract, folder)
            if noun.keep_steps:
                _save_steps(work / STEPS, folder / STEPS)
            write_log(made, best, artifacts.training(name))
        if best:
            run.log.log_metrics(
                {"best_step": best.step, "accuracy": best.reward_accuracy, "margin": best.reward_margin}
            )
        run.log.rows(inputs={learning.noun: len(rows)}, outputs={"steps": made.steps})


if __name__ == "__main__":
    main(requested_name())
