"""The optimiser step of DPO: against TRL's trainer as it comes, which computes the reference in every step."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import polars as pl
import torch

from alignslm.config.models import Lora, PreferenceTrainerConfig
from alignslm.lm.checkpoint import UnitLM
from alignslm.training.adapter import lora_config
from alignslm.training.pair_rows import preference_rows
from alignslm.training.preference import UnitPreferenceTrainer, preference_arguments, unit_tokenizer
from alignslm.training.trainer_setup import use_math_attention
from tests.bench.case import Answer, Case, Cost, max_abs_difference
from tests.bench.models import SHAPES, Shape, Size, token_flop, unit_lm

PAIRS, STEPS = 8, 2
FEWER: dict[Size, int] = {"tiny": 2, "twist-7b": 16}  # pairs at once: 64 at 7B would take some 200 GB
# In bfloat16, of losses in nats and of gradient norms relatively. References that are off by BF16_NATS times the root
# of 128 units on both sides move one pair's loss by beta / 2 times sqrt(2) times that, 0.24; a mean over 8 by 0.09.
BF16_LOSS = 0.1


def pairs_table(num_units: int, *, count: int, longest: int) -> pl.DataFrame:
    """Return pairs of a prompt and two continuations of half of `longest` to `longest` units."""
    rng = np.random.default_rng(0)

    def speech(low: int, high: int) -> list[int]:
        """Return `low` to `high` - 1 units, drawn evenly; some repeat."""
        return rng.integers(0, num_units, rng.integers(low, high)).tolist()

    rows = [
        {
            "prompt_units": speech(longest // 4, longest // 2),
            "chosen_units": speech(longest // 2, longest + 1),
            "chosen_finish_reason": "eos",
            "rejected_units": speech(longest // 2, longest + 1),
            "rejected_finish_reason": "length",
        }
        for _ in range(count)
    ]
    return pl.DataFrame(rows)


def _config(shape: Shape, *, pairs: int) -> PreferenceTrainerConfig:
    """Return the paper's objective and adapter."""
    return PreferenceTrainerConfig(
        kind="preference",
        loss_weights={"sigmoid": 1.0},
        beta=0.1,
        lora=Lora(r=32, alpha=8, target_modules="all-linear"),
        learning_rate=1e-4,
        lr_scheduler_type="constant",
        num_train_epochs=1,
        max_steps=1000,
        batch_size=pairs,
        micro_batch_size=None,
        weight_decay=0.0,
        max_grad_norm=1.0,
        num_evals=1,
        min_pairs=1,
        autocast="bfloat16" if shape.dtype is torch.bfloat16 else "float32",
    )


def _stepper(
    lm: UnitLM, pairs: pl.DataFrame, config: PreferenceTrainerConfig, *, cached: bool, steps: int
) -> Callable[[], Answer]:
    """Return a function that trains on the first batches and answers with losses and norms of gradients.

    Equal seeds give both paths the same adapter and order.
    """
    rows = preference_rows(lm, pairs, batch_size=64, references=cached)
    torch.manual_seed(0)
    with TemporaryDirectory(prefix="alignslm-bench-") as work:  # a trainer wants one, and writes nothing in these steps
        arguments = preference_arguments(
            config, num_pairs=len(pairs), warmup_steps=0, seed=0, work=Path(work), device=lm.device
        )
        trainer = UnitPreferenceTrainer(
            config=config,
            model=lm.model,
            args=arguments,
            train_dataset=rows,
            eval_dataset=rows,
            processing_class=unit_tokenizer(lm.vocabulary, vocabulary_size=lm.model.config.vocab_size),
            peft_config=lora_config(config.lora, lm.model.config),
        )
    trainer.precompute_ref_logps = cached
    trainer.current_gradient_accumulation_steps = 1
    trainer.create_optimizer_and_scheduler(num_training_steps=1000)
    prepare: Any = trainer.accelerator.prepare
    model, optimizer = prepare(trainer.model, trainer.optimizer)
    batches = list(trainer.get_train_dataloader())[:steps]

    def run() -> Answer:
        losses, norms = [], []
        for batch in batches:
            losses.append(float(trainer.training_step(model, dict(batch))))
            norms.append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), config.max_grad_norm)))
            optimizer.step()
            optimizer.zero_grad()
        return [np.array(losses), np.array(norms)]

    return run


def _relative(ours: Answer, theirs: Answer) -> float:
    """Return the largest difference of losses in nats, and of gradient norms by ours."""
    return max_abs_difference([ours[0], np.ones_like(ours[1])], [theirs[0], theirs[1] / ours[1]])


def case(size: Size, *, scale: int, device: str, pairs_at_once: int | None = None) -> Case:
    """Build the work: steps of LoRA on every linear layer, continuations of 64 to 128 units.

    With `pairs_at_once`: so many in a pass, which is a step, and continuations of 75 to 150 units, as in the paper.
    """
    shape, tiny = SHAPES[size], size == "tiny"
    count = pairs_at_once or FEWER.get(size, PAIRS * shape.work)
    steps = STEPS * scale
    config = _config(shape, pairs=count)
    pairs = pairs_table(shape.num_units, count=count * steps, longest=12 if tiny else 150 if pairs_at_once else 128)
    exact = shape.dtype is torch.float32
    ours, theirs = unit_lm(shape, device=device), unit_lm(shape, device=device)
    step = _stepper(ours, pairs, config, cached=True, steps=steps)

    def plainly() -> Answer:
        """Take a step with plain attention, as training on a CPU does."""
        with use_math_attention(ours.model):
            return step()

    lengths = pairs.select(pl.col("prompt_units", "chosen_units", "rejected_units").list.len()).rows()
    tokens = [prompt + side for prompt, *sides in lengths for side in sides]
    vocab = ours.model.config.vocab_size
    return Case(
        stage="preference",
        shape=f"{steps} steps of {count} pairs, LoRA r 32 on all linear layers",
        model=ours.model,
        counted="pairs",
        amount=count * steps,
        paths={
            "ours": plainly,
            "reference in each step": _stepper(theirs, pairs, config, cached=False, steps=steps),
        },
        difference=max_abs_difference if exact else _relative,
        tolerance=1e-4 if exact else BF16_LOSS,
        unit="of losses and gradient norms" if exact else "nats of loss, or of a gradient norm by ours",
        # forward, and backward to the activations: the weights below the adapter have no gradient
        cost=Cost(sum(2 * n * token_flop(shape, vocab_size=vocab, positions=n / 2) for n in tokens), None),
    )
