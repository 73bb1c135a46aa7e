"""Training a reward model of units on preference pairs through TRL (arXiv 2203.02155, eq. 1)."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel
from trl import RewardConfig, RewardTrainer

from alignslm.config.models import RewardTrainerConfig
from alignslm.lm.checkpoint import UnitLM
from alignslm.lm.reward import token_ids, unit_rewards
from alignslm.training.adapter import lora_config
from alignslm.training.pair_rows import side_of
from alignslm.training.pass_memory import fit_to_memory
from alignslm.training.passes import sort_steps
from alignslm.training.preference import (
    SaveBestAdapter,
    offline_arguments,
    require_pairs,
    reward_figures,
    tell_evaluation,
    train_and_keep_best,
    unit_tokenizer,
)
from alignslm.training.trainer_setup import BestCheckpoint, TrainingRun

Batch = dict[str, torch.Tensor]


class UnitRewardTrainer(RewardTrainer):
    """TRL's reward trainer on rows that are token ids; the loss is that of a whole step, whatever micro-batches are."""

    def __init__(self, *, figures: Callable[[], dict[str, float]], **options: Any) -> None:
        super().__init__(**options)
        self.figures = figures

    def _prepare_dataset(self, dataset: Any, *_: object) -> Any:
        return dataset

    def get_train_dataloader(self) -> Any:
        """Return the batches of an epoch."""
        return sort_steps(super().get_train_dataloader(), self.args, lambda: _lengths(self.train_dataset))

    def _get_num_items_in_batch(self, batch_samples: Sequence[Batch], device: torch.device) -> Any:
        """Return how many pairs all micro-batches of an optimiser step have together."""
        pairs = torch.tensor([sum(len(batch["input_ids"]) for batch in batch_samples) / 2], device=device)
        return self.accelerator.gather(pairs).sum()

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: Batch,
        return_outputs: bool = False,  # noqa: FBT001, FBT002 - the trainer's own signature
        num_items_in_batch: Any = None,
    ) -> Any:
        """Return the micro-batch's part of the loss per pair of the whole step; TRL averages micro-batches."""
        del return_outputs
        share = len(inputs["input_ids"]) / 2 / float(num_items_in_batch)
        # The trainer divides by micro-batches, and averages over processes.
        share *= self.current_gradient_accumulation_steps * self.accelerator.num_processes
        return super().compute_loss(model, inputs) * share

    def evaluate(self, *_: object, **__: object) -> dict[str, float]:
        """Log the figures of the validation pairs."""
        if self.model is not None:
            self.model.eval()
        return tell_evaluation(self, self.figures())

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log the loss; TRL's other figures are means of micro-batches, not of pairs."""
        self._metrics = {mode: defaultdict(list) for mode in self._metrics}
        super().log(logs, start_time)


def _lengths(rows: Dataset) -> list[int]:
    return [max(map(len, sides)) for sides in zip(rows["chosen_ids"], rows["rejected_ids"], strict=True)]


def reward_rows(lm: UnitLM, pairs: pl.DataFrame) -> Dataset:
    """Return the columns that TRL's collator reads. Raises TooLongError."""
    return Dataset.from_dict({f"{side}_ids": token_ids(lm, side_of(pairs, side)) for side in ("chosen", "rejected")})


def validation_figures(lm: UnitLM, pairs: pl.DataFrame, *, batch_size: int) -> Callable[[], dict[str, float]]:
    """Return a function of the model as it is when called: its loss and its rewards of pairs, averaged over pairs."""

    def figures() -> dict[str, float]:
        chosen, rejected = (
            unit_rewards(lm, side_of(pairs, side), batch_size=batch_size) for side in ("chosen", "rejected")
        )
        return {
            "loss": float(np.logaddexp(0, rejected - chosen).mean()),
            **reward_figures(chosen, rejected),
        }

    return figures


def reward_lora(config: RewardTrainerConfig, lm: UnitLM) -> LoraConfig:
    """Return the adapter's configuration; the head is trained as it is."""
    found = lora_config(config.lora, lm.model.config)
    found.task_type, found.modules_to_save = "SEQ_CLS", ["score"]
    return found


def train_reward(
    config: RewardTrainerConfig, lm: UnitLM, pairs: pl.DataFrame, *, seed: int, batch_size: int, work: Path
) -> tuple[PeftModel, TrainingRun, BestCheckpoint]:
    """Train adapter and head on the `train` pairs, keep the best on the `valid` pairs. Resumes from `work`.

    `lm` has a head of zeros. Raises TooFewPairsError as preference training does.
    """
    train, valid = require_pairs(pairs, config.min_pairs)
    options = offline_arguments(
        config, num_rows=len(train), warmup_steps=config.warmup_steps, seed=seed, work=work, device=lm.device
    )
    arguments = RewardConfig(**options, center_rewards_coefficient=config.center_rewards or None)
    rows = reward_rows(lm, train)
    fit_to_memory(arguments, lm.model, _lengths(rows), micro_batch_size=config.micro_batch_size, sequences=2)
    best = SaveBestAdapter(work / "best", num_pairs=len(valid))
    trainer = UnitRewardTrainer(
        figures=validation_figures(lm, valid, batch_size=batch_size),
        model=lm.model,
        args=arguments,
        train_dataset=rows,
        eval_dataset=[],
        processing_class=unit_tokenizer(lm.vocabulary, vocabulary_size=lm.model.config.vocab_size),
        peft_config=reward_lora(config, lm),
        callbacks=[best],
    )
    return train_and_keep_best(trainer, lm, best)
