"""A reward model of units: a unit language model with a scalar head, read at the last token of a continuation.

It tells from the units alone what a judge would say, so it needs no vocoder and no ASR model.
"""

from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import torch
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from alignslm import tables
from alignslm.buckets import Shapes, grouped, rounded, shapes_of
from alignslm.lm.checkpoint import UnitLM, load_lm
from alignslm.lm.positions import check_max_positions
from alignslm.model_cache import max_positions
from alignslm.speed.onednn import fast_linear
from alignslm.statistics import ANSWERS, Estimate, Scale, mean_interval

CORRELATION = Scale(-1, 1)


def load_reward(folder: Path, *, device: str) -> UnitLM:
    """Load a reward model as `load_lm` loads a language model, whose weights it has, with a head `score` of one row."""
    return load_lm(folder, device=device, kind=AutoModelForSequenceClassification)


def with_reward_head(folder: Path, *, device: str) -> UnitLM:
    """Load a language model's checkpoint with a new head of zeros: every continuation's reward is 0."""
    lm = load_lm(folder, device=device)
    config = deepcopy(lm.model.config)
    config.num_labels, config.pad_token_id = 1, lm.vocabulary.pad_id
    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(config)
    setattr(model, model.base_model_prefix, lm.model.base_model)
    weight = next(lm.model.parameters())
    zeros = torch.zeros_like(head_of(model).weight, dtype=weight.dtype, device=weight.device)
    head_of(model).weight = torch.nn.Parameter(zeros)
    return replace(lm, model=model.eval())


def head_of(model: PreTrainedModel) -> torch.nn.Linear:
    """Return the head of a reward model."""
    head = model.get_submodule("score")
    assert isinstance(head, torch.nn.Linear)  # noqa: S101 - so it is for every causal model of transformers
    return head


def token_ids(lm: UnitLM, rows: pl.DataFrame) -> list[list[int]]:
    """Return the ids of every prompt with its continuation; rows have `prompt_units`, `units` and `finish_reason`.

    The end of sequence is there if it was sampled. Raises TooLongError.
    """
    encode = lm.vocabulary.encode
    found = [
        [*encode(prompt, bos=True), *encode(units, bos=False, eos=finish == "eos")]
        for prompt, units, finish in rows.select("prompt_units", "units", "finish_reason").iter_rows()
    ]
    cure = "lower sampling.max_new_units or prompts.max_duration_s"
    check_max_positions(lm.model.config, [*map(len, found)], what="continuations to be rewarded", cure=cure)
    return found


@torch.inference_mode()
def unit_rewards(lm: UnitLM, rows: pl.DataFrame, *, batch_size: int, shapes: Shapes | None = None) -> np.ndarray:
    """Return the reward of every continuation, (rows,) float64; in float32 it does not depend on other rows."""
    ids, shapes = token_ids(lm, rows), shapes or shapes_of(lm.model)
    widths = [rounded(len(one), shapes.target, room=max_positions(lm.model.config)) for one in ids]
    found, pad = np.zeros(len(ids)), lm.vocabulary.pad_id
    with fast_linear(lm.device):
        for width, group in sorted(grouped(range(len(ids)), widths).items()):
            for batch, full in shapes.passes(group, length=width, batch_size=batch_size):
                padded = torch.tensor([ids[at] + [pad] * (width - len(ids[at])) for at in full], device=lm.device)
                mask = (torch.arange(width) < torch.tensor([len(ids[at]) for at in full])[:, None]).to(lm.device)
                logits = lm.model(padded, attention_mask=mask, use_cache=False).logits
                found[batch] = logits[: len(batch)].squeeze(-1).double().cpu().numpy()
    return found


def agreement(rewarded: pl.DataFrame, pairs: pl.DataFrame) -> dict[str, Estimate]:
    """Return how well rewards agree with a judge on prompts that nothing was learnt from.

    `rewarded` has `prompt_id`, `continuation_id`, `judge_score` and `reward`; rows without a score take no part.
    `pair_accuracy`: share of `pairs` (PAIRS) whose chosen side has the higher reward, a tie counts one half.
    `rank_within_prompt`: mean over prompts of Spearman's correlation between score and reward of a prompt's
    continuations, which is what choosing among them needs; prompts whose scores are all equal take no part.
    `rank_correlation`: Spearman's over all continuations, without an interval.
    """
    judged = rewarded.drop_nulls("judge_score")
    reward = dict(rewarded.select("continuation_id", "reward").iter_rows())
    leads = [
        np.sign(reward[chosen] - reward[rejected])
        for chosen, rejected in pairs.select("chosen_id", "rejected_id").iter_rows()
    ]
    groups = [group for _, group in judged.group_by("prompt_id", maintain_order=True)]
    within = np.array([spearman(group["judge_score"], group["reward"]) for group in groups], float)
    return {
        "pair_accuracy": mean_interval([(lead + 1) / 2 for lead in leads], pairs["prompt_id"], scale=ANSWERS),
        "rank_within_prompt": mean_interval(within, [group["prompt_id"][0] for group in groups], scale=CORRELATION),
        "rank_correlation": Estimate(spearman(judged["judge_score"], judged["reward"]), None, None, len(judged), 0),
    }


def spearman(first: pl.Series, second: pl.Series) -> float | None:
    """Return Spearman's rank correlation, ties with their mean rank; None where one side is constant."""
    ranks = [side.rank("average").to_numpy() for side in (first, second)]
    if min((np.ptp(side) if len(side) else 0.0) for side in ranks) == 0:
        return None
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def best_of(drawn: pl.DataFrame, rewards: np.ndarray, *, num_continuations: int) -> pl.DataFrame:
    """Return the best of each group of draws of a prompt: CONTINUATIONS rows, `num_continuations` a prompt.

    Group g is every `num_continuations`-th draw from the g-th on, so it holds the draw that would be taken without
    a choice. Of equal rewards the first draw is taken. `sample_index` becomes the group.
    """
    group = pl.col("sample_index") % num_continuations
    ranked = drawn.with_columns(reward=pl.Series(rewards), group=group)
    ranked = ranked.sort("reward", "sample_index", descending=[True, False])
    best = ranked.group_by("prompt_id", "group", maintain_order=True).first()
    return tables.conform(best.with_columns(sample_index=pl.col("group")), tables.CONTINUATIONS)
