"""KTO (arXiv 2402.01306) through TRL: learning from single continuations, each desirable or undesirable.

A continuation's reward, beta times what its log-probability rose by since training began, is compared with a reference
point: the divergence of the policy, estimated from prompts with each other's continuations. TRL estimates it anew for
every micro-batch; here it is that of the whole optimiser step, so that neither micro-batches nor processes change
results. The continuations of a step are rotated by one among its prompts, which fixes the order of rows: it is drawn
once, from the seed.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from datasets import Dataset
from peft import PeftModel
from trl import KTOConfig, KTOTrainer

from alignslm.config.models import PreferenceTrainerConfig
from alignslm.lm.checkpoint import UnitLM
from alignslm.lm.likelihood import continuation_nats
from alignslm.pairs.labels import DESIRABLE, UNDESIRABLE, unpaired
from alignslm.training.adapter import lora_config
from alignslm.training.pair_rows import require_positions, row_lengths, side_of
from alignslm.training.pass_memory import fit_to_memory
from alignslm.training.preference import (
    SaveBestAdapter,
    TooFewPairsError,
    offline_arguments,
    reward_figures,
    tell_evaluation,
    train_and_keep_best,
    train_preferences,
    unit_tokenizer,
)
from alignslm.training.trainer_setup import BatchError, BestCheckpoint, TrainingRun, allow_sharded_model

Batch = dict[str, torch.Tensor]


def class_weights(desirable: int, undesirable: int, balance: float) -> dict[str, float]:
    """Return TRL's weights of the two classes of a training set (paper, eq. 8: `balance` in [1, 4/3]).

    All desirable rows together weigh `balance` times all undesirable ones, and no class less than 1 a row.
    """
    ratio = balance * undesirable / desirable
    return {"desirable_weight": max(1.0, ratio), "undesirable_weight": max(1.0, 1 / ratio)}


def mismatched(rows: pl.DataFrame, size: int) -> pl.DataFrame:
    """Return the rows with the units of others: of every `size` rows, each has those of the one before it.

    The first has those of the last; a last batch of one row, those of the row before.
    """
    at = np.arange(len(rows))
    first = at // size * size
    other = np.where(at == first, np.minimum(first + size, len(rows)) - 1, at - 1)
    other[-1] = min(other[-1], len(rows) - 2)
    return rows.with_columns(rows.select("units", "finish_reason")[other])


def kto_rows(lm: UnitLM, rows: pl.DataFrame, *, size: int, batch_size: int) -> Dataset:
    """Return the columns that TRL's collator reads, in the order of `rows`, of which `size` are an optimiser step."""
    encode, others = lm.vocabulary.encode, mismatched(rows, size)
    ids = {"prompt_ids": [encode(units, bos=True) for units in rows["prompt_units"]]}
    for name, frame in (("completion_ids", rows), ("KL_completion_ids", others)):
        drawn = frame.select("units", "finish_reason").iter_rows()
        ids[name] = [encode(units, bos=False, eos=finish == "eos") for units, finish in drawn]
    require_positions(lm, ids)
    logps = {
        "ref_logps": continuation_nats(lm, rows, batch_size=batch_size),
        "ref_KL_logps": continuation_nats(lm, others, batch_size=batch_size),
    }
    return Dataset.from_dict({**ids, **logps, "label": (rows["label"] == DESIRABLE).to_list()})


class UnitKTOTrainer(KTOTrainer):
    """TRL's KTO trainer on rows that are token ids with reference log-probabilities already."""

    def __init__(self, *, figures: Callable[[], dict[str, float]], **options: Any) -> None:
        super().__init__(**options)
        self.figures, self.precompute_ref_logps = figures, True
        self.divergence = torch.zeros(())

    def _prepare_dataset(self, dataset: Dataset, *_: object) -> Dataset:
        return dataset

    def _get_num_items_in_batch(self, batch_samples: Sequence[Batch], device: torch.device) -> Any:
        """Estimate the step's divergence (never below zero), and return how many rows the step has."""
        rises = torch.zeros(2, dtype=torch.float64, device=device)
        for batch in map(self._prepare_inputs, batch_samples):
            with self.compute_loss_context_manager():
                rise = super()._compute_kl_logps(self.model, batch) - batch["ref_KL_logps"]
            rises += torch.stack([rise.double().sum(), torch.tensor(len(rise), device=device)])
        total, rows = self.accelerator.gather(rises.unsqueeze(0)).sum(dim=0)
        self.divergence = (total / rows).clamp(min=0).float()
        return rows

    def _compute_kl_logps(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """Return what TRL averages, and lessens by the zeros of `compute_loss`, to get the divergence."""
        del model
        return self.divergence.expand(len(batch["label"]))

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: Batch,
        return_outputs: bool = False,  # noqa: FBT001, FBT002 - the trainer's own signature
        num_items_in_batch: Any = None,
    ) -> Any:
        """Return the micro-batch's part of the loss per row of the whole step, which TRL averages per micro-batch."""
        del return_outputs
        loss = super().compute_loss(model, {**inputs, "ref_KL_logps": torch.zeros_like(inputs["ref_KL_logps"])})
        share = len(inputs["label"]) / float(num_items_in_batch)
        # The trainer divides by micro-batches, and averages over processes.
        return loss * share * self.current_gradient_accumulation_steps * self.accelerator.num_processes

    def evaluate(self, *_: object, **__: object) -> dict[str, float]:
        """Log the figures of the validation rows and pairs. Every process computes them all."""
        if self.model is not None:
            self.model.eval()
        return tell_evaluation(self, self.figures())

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log the divergence beside the loss. TRL's other figures are means of micro-batches, not of rows."""
        self._metrics = {
            mode: defaultdict(list, {name: values for name, values in found.items() if name == "kl"})
            for mode, found in self._metrics.items()
        }
        super().log(logs, start_time)


def validation_figures(
    lm: UnitLM, rows: pl.DataFrame, pairs: pl.DataFrame, arguments: KTOConfig, *, batch_size: int
) -> Callable[[], dict[str, float]]:
    """Return a function of the model as it is when called: its loss on labeled rows, its rewards of pairs.

    Pairs are what the kept checkpoint is chosen by, as with every other loss. `lm` is the start here.
    """
    read = [rows, mismatched(rows, len(rows)), side_of(pairs, "chosen"), side_of(pairs, "rejected")]
    start = [continuation_nats(lm, frame, batch_size=batch_size) for frame in read]
    desirable = (rows["label"] == DESIRABLE).to_numpy()
    weights = np.where(desirable, arguments.desirable_weight, arguments.undesirable_weight)

    def figures() -> dict[str, float]:
        now = [continuation_nats(lm, frame, batch_size=batch_size) for frame in read]
        rises, others, chosen, rejected = (
            arguments.beta * (after - before) for after, before in zip(now, start, strict=True)
        )
        lead = np.where(desirable, 1, -1) * (rises - max(0.0, others.mean()))
        return {
            "loss": float((weights / (1 + np.exp(lead))).mean()),
            **reward_figures(chosen, rejected),
            "logps/chosen": float(now[2].mean()),
            "logps/rejected": float(now[3].mean()),
        }

    return figures


def kto_arguments(
    config: PreferenceTrainerConfig,
    labels: pl.Series,
    *,
    warmup_steps: int,
    seed: int,
    work: Path,
    device: torch.device,
) -> KTOConfig:
    """Return TRL's arguments for this configuration, the labels of the training rows, and the device."""
    balance, weight = config.class_balance or 1.0, config.loss_weights["kto"]
    desirable = len(labels.filter(labels == DESIRABLE))
    weights = class_weights(desirable, len(labels) - desirable, balance)
    arguments = offline_arguments(
        config, num_rows=len(labels), warmup_steps=warmup_steps, seed=seed, work=work, device=device
    )
    arguments |= {name: weight * each for name, each in weights.items()}
    if arguments["per_device_train_batch_size"] < 2:
        raise BatchError(
            f"batch_size {config.batch_size} leaves a process one continuation at a time, and KTO needs another to "
            "compare it with. Raise batch_size in the trainer's YAML, or lower the number of processes."
        )
    return KTOConfig(**arguments, beta=config.beta)


def train_offline(
    config: PreferenceTrainerConfig,
    lm: UnitLM,
    pairs: pl.DataFrame,
    *,
    labeled: pl.DataFrame | None = None,
    warmup_steps: int,
    seed: int,
    batch_size: int,
    work: Path,
) -> tuple[PeftModel, TrainingRun, BestCheckpoint]:
    """Train an adapter on pairs, or by KTO on `labeled` continuations, which default to the sides of the pairs.

    Raises TooFewPairsError below `config.min_pairs` rows, without a row of each label or without a validation pair.
    """
    if not config.unpaired:
        return train_preferences(
            config, lm, pairs, warmup_steps=warmup_steps, seed=seed, batch_size=batch_size, work=work
        )
    rows = unpaired(pairs) if labeled is None else labeled
    train, valid = (rows.filter(pl.col("split") == split) for split in ("train", "valid"))
    compared = pairs.filter(pl.col("split") == "valid")
    _require_rows(train["label"], num_pairs=len(compared), least=config.min_pairs)
    train = train[np.random.default_rng(seed).permutation(len(train))]
    arguments = kto_arguments(config, train["label"], warmup_steps=warmup_steps, seed=seed, work=work, device=lm.device)
    allow_sharded_model(arguments, lm.model)
    learnt = kto_rows(lm, train, size=config.batch_size, batch_size=batch_size)
    lengths = row_lengths(*(learnt[f"{part}_ids"] for part in ("prompt", "completion", "KL_completion")))
    fit_to_memory(arguments, lm.model, lengths, micro_batch_size=config.micro_batch_size, least=2)
    best = SaveBestAdapter(work / "best", num_pairs=len(compared))
    trainer = UnitKTOTrainer(
        figures=validation_figures(lm, valid, compared, arguments, batch_size=batch_size),
        model=lm.model,
        args=arguments,
        train_dataset=learnt,
        eval_dataset=[],
        processing_class=unit_tokenizer(lm.vocabulary, vocabulary_size=lm.model.config.vocab_size),
        peft_config=lora_config(config.lora, lm.model.config),
        callbacks=[best],
    )
    return train_and_keep_best(trainer, lm, best)


def _require_rows(labels: pl.Series, *, num_pairs: int, least: int) -> None:
    desirable, undesirable = ((labels == label).sum() for label in (DESIRABLE, UNDESIRABLE))
    if min(desirable, undesirable, num_pairs) < 1 or len(labels) < least:
        raise TooFewPairsError(
            f"{desirable} desirable and {undesirable} undesirable training continuations, {num_pairs} validation "
            f"pairs; KTO wants at least 1 of each, and {least} continuations (min_pairs). Change the "
            "thresholds (preferences.*.min_chosen_score, max_rejected_score), draw for more prompts "
            "(prompts.train, prompts.valid), or lower the trainer's min_pairs."
        )
