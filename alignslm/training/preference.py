"""Preference optimisation through TRL (paper, section 3: DPO with LoRA against the frozen model).

TRL is imported here only. Its trainer tokenises text; ours are unit ids, so two of its hooks are overridden:
`_prepare_dataset` (the rows are token ids already) and `_precompute_ref_logps` (the reference log-probabilities
were computed by `reference_log_probs`, once, and travel with the rows). Both are private: the minor version of TRL
is pinned, and a test compares loss and rewards with a hand computation.
"""

import contextlib
import functools
import json
import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from datasets import Dataset
from peft import PeftModel
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import (
    PreTrainedTokenizerFast,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from trl import DPOConfig, DPOTrainer, KTOTrainer, RewardTrainer

from alignslm.config.models import PreferenceTrainerConfig, RewardTrainerConfig
from alignslm.lm.checkpoint import UnitLM
from alignslm.storage import filling, write_text
from alignslm.training.adapter import lora_config
from alignslm.training.packing import reading_packed, require_packable
from alignslm.training.pair_rows import WEIGHT, free_references, keep_weights, preference_rows, row_lengths, weighted
from alignslm.training.pass_memory import fit_to_memory
from alignslm.training.passes import sort_steps
from alignslm.training.processes import is_main_process, wait_for_everyone
from alignslm.training.trainer_setup import (
    IGNORE_INDEX,
    BestCheckpoint,
    TrainingRun,
    allow_sharded_model,
    batch_arguments,
    run_trainer,
    shared_arguments,
    use_math_attention,
)
from alignslm.training_log import Change
from alignslm.units import UnitVocabulary


class TooFewPairsError(ValueError):
    """The pairs table has too few pairs to train or to select a checkpoint on."""


def unit_tokenizer(vocabulary: UnitVocabulary, *, vocabulary_size: int) -> PreTrainedTokenizerFast:
    """Return a tokenizer with one word per token id, units as `<u0>`...: what TRL wants beside the ids it is given."""
    words = {f"<t{i}>": i for i in range(vocabulary_size)}
    units = range(vocabulary.offset, vocabulary.offset + vocabulary.num_units)
    words = {(f"<u{i - vocabulary.offset}>" if i in units else word): i for word, i in words.items()}
    names = {i: word for word, i in words.items()}
    eos = vocabulary.eos_id if vocabulary.eos_id is not None else vocabulary.pad_id
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(words, unk_token=names[vocabulary.pad_id])),
        pad_token=names[vocabulary.pad_id],
        eos_token=names[eos],
    )


def uses_rejected(losses: Collection[str]) -> bool:
    """Return whether any loss reads rejected sides and references: all do but `sft`."""
    return set(losses) != {"sft"}


class UnitPreferenceTrainer(DPOTrainer):
    """TRL's DPO trainer on rows that are token ids with reference log-probabilities already.

    They are announced when TRL has made its trainer: asked to compute them, it would first hash every weight for a
    cache of its own, which takes minutes at 7B and fails on sharded weights.
    """

    def __init__(self, *, config: PreferenceTrainerConfig, **options: Any) -> None:
        super().__init__(**options)
        self.config, self.precompute_ref_logps = config, True
        self.valid_pairs = list(options["eval_dataset"])
        if config.margin_weights:
            self.data_collator, self.use_weighting = keep_weights(self.data_collator), True
            self.loss_types = [loss for loss in self.loss_types if loss != "sft"]

    def _prepare_dataset(self, dataset: Dataset, *_: object) -> Dataset:
        return dataset

    def _precompute_ref_logps(self, dataset: Dataset, *_: object) -> Dataset:
        return dataset

    def get_train_dataloader(self) -> Any:
        """Return the batches of an epoch."""
        return sort_steps(super().get_train_dataloader(), self.args, lambda: _lengths(self.train_dataset))

    def _get_num_items_in_batch(self, batch_samples: Sequence[dict[str, torch.Tensor]], device: torch.device) -> Any:
        """Return how many pairs, and how many chosen units, all micro-batches of an optimiser step have together."""
        return self.accelerator.gather(_sizes(batch_samples).to(device).unsqueeze(0)).sum(dim=0)

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,  # noqa: FBT001, FBT002 - the trainer's own signature
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Return the micro-batch's part of the loss per pair of the whole step (per chosen unit: `sft`).

        TRL averages a micro-batch, and the trainer averages micro-batches, which need not be of one size. Rejected
        sides are left out of training steps whose only loss is `sft`: TRL reads them and uses none.
        """
        del return_outputs
        share = torch.ones(2, dtype=torch.float64)
        if isinstance(num_items_in_batch, torch.Tensor):
            share = _sizes([inputs]) / num_items_in_batch.cpu()
            # The trainer divides by micro-batches, and averages over processes.
            share *= self.current_gradient_accumulation_steps * self.accelerator.num_processes
        per_pair, per_unit = share.tolist()
        weights: dict[str, float] = {
            loss: weight * (per_unit if loss == "sft" else per_pair)
            for loss, weight in self.config.loss_weights.items()
        }
        if model.training and not uses_rejected(weights):
            return weights["sft"] * _likelihood_loss(model, inputs)
        self._metrics["train" if model.training else "eval"]["pairs"].append(len(inputs["input_ids"]) / 2)
        if not self.config.reference_free:
            return self._weighted_loss(model, inputs, weights)
        free = inputs | free_references(self.config, inputs["completion_mask"])
        if model.training:
            return self._weighted_loss(model, free, weights)
        self._weighted_loss(model, inputs, weights)  # figures tell what changed since the start, for any objective
        recorded, self._metrics = self._metrics, {"eval": defaultdict(list)}
        loss = self._weighted_loss(model, free, weights)
        self._metrics = recorded
        return loss

    def _weighted_loss(
        self, model: torch.nn.Module, inputs: dict[str, torch.Tensor], weights: dict[str, float]
    ) -> torch.Tensor:
        """Return TRL's losses by their weights; `margin_weights` multiply those of pairs, and not `sft`."""
        self.loss_weights = [weights[loss] for loss in self.loss_types]
        with contextlib.ExitStack() as reading:
            if self.config.pack_pairs:
                multiple_of = getattr(self.args, "pad_to_multiple_of", None) or 1
                reading.enter_context(reading_packed(self._trained(), inputs, multiple_of=multiple_of))
            if not self.config.margin_weights:
                return super().compute_loss(model, inputs)
            reading.enter_context(weighted(model, inputs[WEIGHT]))
            loss = super().compute_loss(model, {name: part for name, part in inputs.items() if name != WEIGHT})
        return loss + weights["sft"] * _likelihood_loss(model, inputs) if "sft" in weights else loss

    def evaluate(self, *_: object, **__: object) -> dict[str, float]:
        """Score all validation pairs; figures are averages over pairs. Every process scores them all."""
        pairs, rows, model = self.valid_pairs, self.args.per_device_eval_batch_size, self._trained()
        collate: Any = self.data_collator
        batches = [collate(pairs[start : start + rows]) for start in range(0, len(pairs), rows)]
        whole, loss = _sizes(batches) * self.accelerator.num_processes, 0.0
        self.current_gradient_accumulation_steps = 1
        model.eval()
        with torch.no_grad(), self.compute_loss_context_manager():
            for batch in batches:
                loss += float(self.compute_loss(model, self._prepare_inputs(batch), num_items_in_batch=whole))
        return tell_evaluation(self, {"loss": loss})

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log TRL's figures of pairs, averaged over pairs: TRL averages batches. Its figures of units are dropped."""
        mode = "train" if self._trained().training else "eval"
        figures = self._metrics[mode]
        pairs = figures.pop("pairs", [])
        means = {
            name: [math.fsum(map(math.prod, zip(values, pairs, strict=True))) / math.fsum(pairs)]
            for name, values in figures.items()
            if name.startswith(("rewards/", "logps/"))
        }
        self._metrics[mode] = defaultdict(list, means)
        super().log(logs, start_time)

    def _trained(self) -> PeftModel:
        if not isinstance(self.model, PeftModel):
            raise TypeError(f"the trainer holds a {type(self.model).__name__}, expected an adapted model")
        return self.model


def tell_evaluation(trainer: Trainer, figures: Mapping[str, float]) -> dict[str, float]:
    """Log the figures of an evaluation, let callbacks compare them, and return them by the trainer's names."""
    metrics = {f"eval_{name}": value for name, value in figures.items()}
    trainer.log(metrics)
    trainer.control = trainer.callback_handler.on_evaluate(trainer.args, trainer.state, trainer.control, metrics)
    return metrics


def reward_figures(chosen: np.ndarray, rejected: np.ndarray) -> dict[str, float]:
    """Return what the kept checkpoint is chosen by, of the rewards of both sides of pairs, each (pairs,)."""
    return {
        "rewards/chosen": float(chosen.mean()),
        "rewards/rejected": float(rejected.mean()),
        "rewards/margins": float((chosen - rejected).mean()),
        "rewards/accuracies": float((chosen > rejected).mean()),
    }


def _sizes(batches: Iterable[dict[str, torch.Tensor]]) -> torch.Tensor:
    """Return (2,): pairs, and units of chosen sides that are predicted, of batches that hold chosen, then rejected."""
    chosen = [batch["completion_mask"].chunk(2)[0] for batch in batches]
    units = sum(int(mask[:, 1:].sum()) for mask in chosen)
    return torch.tensor([sum(map(len, chosen)), units], dtype=torch.float64)


def _lengths(rows: Dataset) -> list[int]:
    return row_lengths(*(rows[f"{part}_ids"] for part in ("prompt", "chosen", "rejected")))


def _likelihood_loss(model: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    ids, attention, completion = (
        inputs[name].chunk(2)[0] for name in ("input_ids", "attention_mask", "completion_mask")
    )
    labels = ids.masked_fill(completion == 0, IGNORE_INDEX)
    loss: torch.Tensor = model(input_ids=ids, attention_mask=attention, labels=labels, use_cache=False).loss
    return loss


def is_better(now: BestCheckpoint, best: BestCheckpoint, *, num_pairs: int) -> bool:
    """Return whether `now` should be kept instead of `best`: by reward accuracy, then by reward margin.

    The paper keeps the checkpoint of highest reward accuracy. On few validation pairs that figure is noise: two
    accuracies within one binomial standard error of each other count as equal, and the larger margin decides.
    """
    if best.step < 0:
        return True
    noise = math.sqrt(best.reward_accuracy * (1 - best.reward_accuracy) / num_pairs)
    gain = now.reward_accuracy - best.reward_accuracy
    return gain > noise or (gain >= -noise and now.reward_margin > best.reward_margin)


def change_of(best: BestCheckpoint, *, num_pairs: int) -> Change:
    """Compare the kept checkpoint with its start, where policy and reference are equal: all pairs are ties."""
    worse = is_better(BestCheckpoint(0, 0.5, 0.0), best, num_pairs=num_pairs)
    return Change(f"reward margin on {num_pairs} validation pairs", 0.0, best.reward_margin, worse)


class SaveBestAdapter(TrainerCallback):
    """Saves the adapter whenever `is_better` says so of an evaluation on `num_pairs` validation pairs."""

    def __init__(self, folder: Path, *, num_pairs: int) -> None:
        self.folder, self.record, self.num_pairs = folder, folder.with_suffix(".json"), num_pairs
        self.best = BestCheckpoint(-1, -math.inf, -math.inf)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Take up what a run that was cut off had kept; a run that starts anew keeps nothing of it."""
        del args, control
        if state.global_step and self.record.exists():
            self.best = BestCheckpoint(**json.loads(self.record.read_text()))

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Compare this evaluation with the best so far."""
        del args, control
        metrics, model = kwargs["metrics"], kwargs["model"]
        if not isinstance(metrics, dict) or not isinstance(model, PeftModel):
            raise TypeError("the trainer called back without metrics or without an adapter")
        now = BestCheckpoint(state.global_step, metrics["eval_rewards/accuracies"], metrics["eval_rewards/margins"])
        if is_better(now, self.best, num_pairs=self.num_pairs):
            self.best = now
            if is_main_process():
                with filling(self.folder) as partial:
                    model.save_pretrained(str(partial))
                write_text(self.record, json.dumps(asdict(now)))


def offline_arguments(
    config: PreferenceTrainerConfig | RewardTrainerConfig,
    *,
    num_rows: int,
    warmup_steps: int,
    seed: int,
    work: Path,
    device: torch.device,
) -> dict[str, Any]:
    """Return what TRL's arguments have in common, for this configuration, number of training rows and device."""
    steps = config.max_steps or max(1, math.ceil(config.num_train_epochs * num_rows / config.batch_size))
    every = max(1, steps // config.num_evals)
    batch = batch_arguments(config.batch_size, config.micro_batch_size)
    return {
        **shared_arguments(work, seed=seed, device=device),
        "learning_rate": config.learning_rate,
        "lr_scheduler_type": config.lr_scheduler_type,
        "warmup_steps": warmup_steps,
        "max_steps": steps,
        **batch,
        "per_device_eval_batch_size": batch["per_device_train_batch_size"],
        "weight_decay": config.weight_decay,
        "max_grad_norm": config.max_grad_norm,
        "eval_strategy": "steps",
        "eval_steps": every,
        "save_steps": every,
        "bf16": config.autocast == "bfloat16",
        "activation_checkpointing": False,  # TRL turns it on
        "max_length": None,  # rows are never cut: TRL would drop the end of a continuation without a word
    }


def preference_arguments(
    config: PreferenceTrainerConfig, *, num_pairs: int, warmup_steps: int, seed: int, work: Path, device: torch.device
) -> DPOConfig:
    """Return TRL's arguments for this configuration, number of training pairs and device."""
    shared = offline_arguments(
        config, num_rows=num_pairs, warmup_steps=warmup_steps, seed=seed, work=work, device=device
    )
    return DPOConfig(
        **shared,
        beta=config.beta,
        loss_type=list(config.loss_weights),
        loss_weights=list(config.loss_weights.values()),
        label_smoothing=config.label_smoothing or 0.0,
    )


def require_pairs(pairs: pl.DataFrame, least: int) -> list[pl.DataFrame]:
    """Return the `train` and the `valid` pairs. Raises TooFewPairsError below `least` and one."""
    train, valid = (pairs.filter(pl.col("split") == split) for split in ("train", "valid"))
    if len(train) < least or valid.is_empty():
        raise TooFewPairsError(
            f"{len(train)} training and {len(valid)} validation pairs; the trainer wants at least {least} and 1. "
            "Draw for more prompts (prompts.train, prompts.valid), widen the round's thresholds "
            "(preferences.*.min_chosen_score, max_rejected_score, min_margin), or lower the trainer's min_pairs."
        )
    return [train, valid]


def train_preferences(
    config: PreferenceTrainerConfig,
    lm: UnitLM,
    pairs: pl.DataFrame,
    *,
    warmup_steps: int,
    seed: int,
    batch_size: int,
    work: Path,
) -> tuple[PeftModel, TrainingRun, BestCheckpoint]:
    """Train an adapter on the `train` pairs, keep the best on the `valid` pairs, return the adapted model.

    Raises TooFewPairsError below `config.min_pairs` training pairs or without a validation pair.
    """
    train, valid = require_pairs(pairs, config.min_pairs)
    best = SaveBestAdapter(work / "best", num_pairs=len(valid))
    arguments = preference_arguments(
        config, num_pairs=len(train), warmup_steps=warmup_steps, seed=seed, work=work, device=lm.device
    )
    allow_sharded_model(arguments, lm.model)
    if config.pack_pairs:
        require_packable(lm.model)
    rows = functools.partial(preference_rows, lm, batch_size=batch_size, margin_weights=config.margin_weights)
    compared = uses_rejected(config.loss_weights) and not config.reference_free
    learnt = rows(train, references=compared)
    fit_to_memory(arguments, lm.model, _lengths(learnt), micro_batch_size=config.micro_batch_size, sequences=2)
    trainer = UnitPreferenceTrainer(
        config=config,
        model=lm.model,
        args=arguments,
        train_dataset=learnt,
        eval_dataset=rows(valid),
        processing_class=unit_tokenizer(lm.vocabulary, vocabulary_size=lm.model.config.vocab_size),
        peft_config=lora_config(config.lora, lm.model.config),
        callbacks=[best],
    )
    return train_and_keep_best(trainer, lm, best)


def train_and_keep_best(
    trainer: DPOTrainer | KTOTrainer | RewardTrainer, lm: UnitLM, best: SaveBestAdapter
) -> tuple[PeftModel, TrainingRun, BestCheckpoint]:
    """Train, and return the model with the adapter that was best on the validation pairs."""
    with use_math_attention(lm.model):
        run = run_trainer(trainer)
    model = trainer.model
    if not isinstance(model, PeftModel):
        raise TypeError(f"the trainer holds a {type(model).__name__}, expected an adapted model")
    wait_for_everyone()  # the first process may still be writing what was best
    model.load_adapter(str(best.folder), adapter_name="best")
    model.set_adapter("best")
    model.delete_adapter("default")
    return model, replace(run, change=change_of(best.best, num_pairs=best.num_pairs)), best.best
