"""Next-unit training: the base model from scratch, and the paper's continued fine-tuning baseline."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, Trainer, TrainingArguments, set_seed

from alignslm.buckets import rounded
from alignslm.config.models import LlamaScratchConfig, NextUnitTrainerConfig
from alignslm.config.pretrained_lm import TwistInitConfig
from alignslm.lm.checkpoint import UnitLM
from alignslm.lm.positions import check_max_positions
from alignslm.training.adapter import lora_config
from alignslm.training.pass_memory import fit_to_memory
from alignslm.training.passes import sort_steps
from alignslm.training.trainer_setup import (
    IGNORE_INDEX,
    TrainingRun,
    allow_sharded_model,
    batch_arguments,
    run_arguments,
    run_trainer,
    use_math_attention,
)
from alignslm.training_log import Change
from alignslm.units import UnitVocabulary

PAD_ID, BOS_ID, EOS_ID, OFFSET = 0, 1, 2, 3
MEASURED_ROWS, MEASURED_AT_ONCE = 64, 8  # utterances whose likelihood shows whether training improved it


def scratch_vocabulary(num_units: int) -> UnitVocabulary:
    """Return the token ids of a model trained here: three specials, then the units."""
    return UnitVocabulary(num_units=num_units, offset=OFFSET, bos_id=BOS_ID, eos_id=EOS_ID, pad_id=PAD_ID)


def new_model(config: LlamaScratchConfig, vocabulary: UnitVocabulary, *, seed: int) -> PreTrainedModel:
    """Initialise a Llama over units; equal seed, equal weights."""
    set_seed(seed)
    return LlamaForCausalLM(scratch_config(config, vocabulary))


def scratch_config(config: LlamaScratchConfig, vocabulary: UnitVocabulary) -> LlamaConfig:
    """Return the config of a model that is trained here from scratch."""
    return LlamaConfig(
        vocab_size=vocabulary.offset + vocabulary.num_units,
        hidden_size=config.hidden_size,
        intermediate_size=4 * config.hidden_size,
        num_hidden_layers=config.num_hidden_layers,
        num_attention_heads=config.num_attention_heads,
        max_position_embeddings=config.max_position_embeddings,
        tie_word_embeddings=True,
        pad_token_id=vocabulary.pad_id,
        bos_token_id=vocabulary.bos_id,
        eos_token_id=vocabulary.eos_id,
    )


class NextUnitCollator:
    """Pads token ids (right) into input_ids, attention_mask and labels (rows, longest); padding is not scored.

    The longest is rounded up to a multiple of `multiple_of`.
    """

    def __init__(self, pad_id: int, *, multiple_of: int = 1) -> None:
        self.pad_id, self.multiple_of = pad_id, multiple_of

    def __call__(self, rows: Sequence[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        """Pad rows of `ids` into one batch."""
        longest = rounded(max(len(row["ids"]) for row in rows), self.multiple_of)
        ids = torch.full((len(rows), longest), self.pad_id)
        labels = torch.full((len(rows), longest), IGNORE_INDEX)
        mask = torch.zeros((len(rows), longest), dtype=torch.long)
        for number, row in enumerate(rows):
            size = len(row["ids"])
            ids[number, :size] = labels[number, :size] = torch.tensor(row["ids"])
            mask[number, :size] = 1
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}


class UnitTrainer(Trainer):
    """Transformers' trainer on rows of `ids`, a list."""

    def get_train_dataloader(self) -> Any:
        """Return the batches of an epoch."""
        rows: Any = self.train_dataset
        return sort_steps(super().get_train_dataloader(), self.args, lambda: [len(row["ids"]) for row in rows])


def _fit(
    model: PreTrainedModel | PeftModel,
    vocabulary: UnitVocabulary,
    utterances: Sequence[Sequence[int]],
    arguments: TrainingArguments,
    *,
    micro_batch_size: int | None,
) -> TrainingRun:
    rows = [{"ids": vocabulary.encode(units, bos=True, eos=True)} for units in utterances]
    lengths = [len(row["ids"]) for row in rows]
    check_max_positions(
        model.config,
        lengths,
        what="training utterances",
        cure="name them in exclude_ids of the corpus (experiments/corpus), or choose a model with more positions",
    )
    start = nats_per_unit(model, rows, vocabulary.pad_id)
    allow_sharded_model(arguments, model)
    step = fit_to_memory(arguments, model, lengths, micro_batch_size=micro_batch_size)
    trainer = UnitTrainer(
        model=model,
        args=arguments,
        train_dataset=rows,
        data_collator=NextUnitCollator(vocabulary.pad_id, multiple_of=step),
    )
    with use_math_attention(model):
        run = run_trainer(trainer)
    end = nats_per_unit(model, rows, vocabulary.pad_id)
    figure = f"nats per unit on {min(len(rows), MEASURED_ROWS)} training utterances"
    return replace(run, change=Change(figure, start, end, worse=not end <= start))


@torch.no_grad()
def nats_per_unit(model: PreTrainedModel | PeftModel, rows: Sequence[dict[str, list[int]]], pad_id: int) -> float:
    """Return the mean negative log-probability of all tokens but the first of `ids`, of at most MEASURED_ROWS rows."""
    collate, nats, count = NextUnitCollator(pad_id), 0.0, 0
    model.eval()
    for start in range(0, min(len(rows), MEASURED_ROWS), MEASURED_AT_ONCE):
        batch = collate(rows[start : start + MEASURED_AT_ONCE])
        labels = batch.pop("labels")[:, 1:]
        logits = model(**{name: part.to(model.device) for name, part in batch.items()}).logits[:, :-1].float().cpu()
        loss = torch.nn.functional.cross_entropy(logits.transpose(1, 2), labels, reduction="sum")
        nats, count = nats + float(loss), count + int((labels != IGNORE_INDEX).sum())
    return nats / max(1, count)


def _arguments(
    config: LlamaScratchConfig | TwistInitConfig | NextUnitTrainerConfig,
    work: Path,
    *,
    seed: int,
    device: torch.device,
    schedule: str = "cosine",
    micro_batch_size: int | None = None,
) -> TrainingArguments:
    return run_arguments(
        work,
        seed=seed,
        device=device,
        learning_rate=config.learning_rate,
        lr_scheduler_type=schedule,
        warmup_steps=config.warmup_steps,
        weight_decay=config.weight_decay,
        max_steps=config.max_steps,
        **batch_arguments(config.batch_size, micro_batch_size),
        bf16=config.autocast == "bfloat16",
    )


def train_whole(
    config: LlamaScratchConfig | TwistInitConfig,
    model: PreTrainedModel,
    utterances: Sequence[Sequence[int]],
    vocabulary: UnitVocabulary,
    *,
    seed: int,
    work: Path,
) -> TrainingRun:
    """Train all weights of an initialised fp32 model in place on whole utterances (units); resumes from `work`."""
    arguments = _arguments(config, work, seed=seed, device=model.device)
    return _fit(model, vocabulary, utterances, arguments, micro_batch_size=config.batch_size)


def continue_training(
    config: NextUnitTrainerConfig, lm: UnitLM, utterances: Sequence[Sequence[int]], *, seed: int, work: Path
) -> tuple[PeftModel, TrainingRun]:
    """Train an adapter by next-unit prediction on the same speech (the paper's ablation baseline); not merged yet."""
    set_seed(seed)
    adapted: PeftModel = get_peft_model(lm.model, lora_config(config.lora, lm.model.config))
    micro, schedule = config.micro_batch_size, config.lr_scheduler_type
    arguments = _arguments(config, work, seed=seed, device=lm.device, schedule=schedule, micro_batch_size=micro)
    return adapted, _fit(adapted, lm.vocabulary, utterances, arguments, micro_batch_size=micro)
