"""Group-relative policy optimisation (arXiv 2402.03300) of a unit language model through TRL's GRPOTrainer.

Rollouts are ours: exact draws as unit ids, judged by the pipeline's own models. Advantages, clipped loss, KL to the
frozen model, adapter and optimiser are TRL's. Its `rollout_func` is experimental and may change without notice, and
`_generate_and_score_completions` is private: the minor version of TRL is pinned, and a test compares loss, advantages
and KL with a hand computation.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from accelerate.utils import gather_object
from datasets import Dataset
from peft import PeftModel, get_peft_model_state_dict
from transformers import PreTrainedModel

from alignslm.config.models import OnlineTrainerConfig
from alignslm.lm.checkpoint import UnitLM
from alignslm.online.rollouts import Listeners, RolloutStore, prompts_of_rollouts
from alignslm.training.adapter import lora_config
from alignslm.training.preference import unit_tokenizer
from alignslm.training.processes import ProcessesError, is_main_process, wait_for_everyone
from alignslm.training.trainer_setup import (
    TrainingRun,
    batch_arguments,
    run_trainer,
    shared_arguments,
    use_math_attention,
)
from alignslm.training_log import Change

os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"  # that `rollout_func` is experimental is said in docs/models.md

from trl import GRPOConfig, GRPOTrainer


class UnitGrpoTrainer(GRPOTrainer):
    """TRL's GRPO trainer on the rollouts of a RolloutStore.

    Of several processes the first draws and scores a rollout, and each learns from its share of it.
    """

    def __init__(self, lm: UnitLM, store: RolloutStore, order: Sequence[Sequence[str]], **options: Any) -> None:
        super().__init__(
            model=lm.model,
            reward_funcs=[judged_reward],
            rollout_func=self._take_rollout,
            processing_class=unit_tokenizer(lm.vocabulary, vocabulary_size=lm.model.config.vocab_size),
            **options,
        )
        self._start, self._store, self._order = lm, store, order
        self._prompt_units = dict(store.prompts.select("prompt_id", "units").iter_rows())

    @property
    def _rollout_number(self) -> int:
        return int(self.state.global_step) // self.num_iterations

    def _take_rollout(self, prompts: list[str], _: object) -> dict[str, list[Any] | None]:
        """Return TRL's columns of this process's share of the rollout; `prompts` has a row for each draw in it."""
        number = self._rollout_number
        if is_main_process():
            with torch.random.fork_rng():  # what is kept from a killed run draws no random numbers
                self._store.take(number, self._order[number], self._policy())
        wait_for_everyone()
        rollout = self._store.rollout(number)
        distinct = float((1 / (1 + rollout["num_same_text"])).mean())  # type: ignore[arg-type]
        share, rank = len(prompts), self.accelerator.process_index
        rollout = rollout.slice(rank * share, share)
        if rollout["prompt_id"].to_list() != prompts:
            raise ProcessesError(f"process {rank} has other prompts of rollout {number + 1} than its share")
        encode = self._start.vocabulary.encode
        drawn = rollout.select("units", "finish_reason").iter_rows()
        return {
            "prompt_ids": [encode(self._prompt_units[prompt_id], bos=True) for prompt_id in rollout["prompt_id"]],
            "completion_ids": [encode(units, bos=False, eos=reason == "eos") for units, reason in drawn],
            "logprobs": None,
            **{name: rollout[name].to_list() for name in ("continuation_id", "reward")},
            "distinct_texts": [distinct] * share,
        }

    def _policy(self) -> UnitLM:
        """Return the model as it is now, with its adapter in place."""
        adapted = self.model
        if not isinstance(adapted, PeftModel) or not isinstance(model := adapted.get_base_model(), PreTrainedModel):
            raise TypeError(f"the trainer holds a {type(adapted).__name__}, expected an adapted model")
        digest = hashlib.blake2b(self._start.model_id.encode(), digest_size=8)
        for name, weight in sorted(get_peft_model_state_dict(adapted).items()):
            digest.update(
                name.encode() + weight.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
            )
        return replace(self._start, model=model, model_id=digest.hexdigest())

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        made: dict[str, Any] = super()._generate_and_score_completions(inputs)
        names = [row["continuation_id"] for row in inputs]
        found = gather_object(list(zip(names, made["advantages"].tolist(), strict=True)))
        if is_main_process():
            self._store.keep_advantages(self._rollout_number, dict(found))
        return made


def judged_reward(
    reward: Sequence[float | None],
    distinct_texts: Sequence[float],
    log_metric: Callable[[str, float], None],
    **_: object,
) -> list[float | None]:
    """Give TRL the rewards that came with a rollout; note the share of the rollout's texts that differ."""
    log_metric("distinct_texts", distinct_texts[0])
    return list(reward)


def online_arguments(config: OnlineTrainerConfig, *, seed: int, work: Path, device: torch.device) -> GRPOConfig:
    """Return TRL's arguments. Checkpoints are saved between rollouts only: one is learnt from as a whole."""
    shared = shared_arguments(work, seed=seed, device=device) | {"logging_steps": config.num_iterations}
    return GRPOConfig(
        **shared,
        loss_type=config.loss_type,
        scale_rewards=config.scale_rewards,
        beta=config.beta,
        use_bias_correction_kl=False,  # the divergence as GRPO was published with; TRL's default has another gradient
        epsilon=config.epsilon,
        num_iterations=config.num_iterations,
        num_generations=config.num_continuations,
        temperature=config.temperature,
        max_completion_length=config.max_new_units,
        shuffle_dataset=False,  # the order of prompts is ours
        learning_rate=config.learning_rate,
        lr_scheduler_type=config.lr_scheduler_type,
        warmup_steps=config.warmup_steps,
        max_steps=config.max_steps,
        **batch_arguments(config.batch_size, config.micro_batch_size),
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        save_steps=max(1, config.num_rollouts // 5) * config.num_iterations,
        bf16=config.autocast == "bfloat16",
        activation_checkpointing=False,  # TRL turns it on
    )


def train_online(
    config: OnlineTrainerConfig, lm: UnitLM, store: RolloutStore, *, seed: int, work: Path
) -> tuple[PeftModel, TrainingRun]:
    """Train an adapter on rollouts of the model itself; not merged yet. Resumes from `work`.

    Raises TooFewPromptsError, and UnscoredError where the judge fails too often.
    """
    order = prompts_of_rollouts(store.prompts["prompt_id"].to_list(), config, seed=seed)
    trainer = UnitGrpoTrainer(
        lm,
        store,
        order,
        args=online_arguments(config, seed=seed, work=work, device=lm.device),
        train_dataset=Dataset.from_dict({"prompt": [prompt_id for rollout in order for prompt_id in rollout]}),
        peft_config=lora_config(config.lora, lm.model.config),
    )
    with use_math_attention(lm.model):
        run = run_trainer(trainer, right_padded=False)
    if not isinstance(trainer.model, PeftModel):
        raise TypeError(f"the trainer holds a {type(trainer.model).__name__}, expected an adapted model")
    return trainer.model, replace(run, change=_change(store, config.num_rollouts))


def _change(store: RolloutStore, num_rollouts: int) -> Change:
    """Compare the judge's scores, or a reward model's rewards, of the first fifth of the rollouts with the last's."""
    few, judged = max(1, num_rollouts // 5), isinstance(store.reward, Listeners)
    told = pl.col("score").struct.field("judge_score") if judged else pl.col("reward")
    scores = [frame.select(told).to_series() for frame in store.finished()]
    start, end = (float(np.mean(pl.concat(part).drop_nulls().to_numpy())) for part in (scores[:few], scores[-few:]))
    what = "judge's mean score" if judged else "mean reward"
    return Change(f"{what} of the first and the last {few} rollouts", start, end, worse=end < start)
