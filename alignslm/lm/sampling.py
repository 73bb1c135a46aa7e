"""Nucleus sampling of continuations, each with its own random numbers.

A draw's uniform numbers come from a counter-based generator keyed by the draw's own seed, so the same draw gives
the same units whatever else is in the batch, in whatever order and on however many workers. (Logits of different
batch shapes can differ in their last bits; a sample changes only if a uniform number falls into that gap.)
"""

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch

from alignslm.buckets import grouped
from alignslm.config.feedback import Sampling
from alignslm.lm.cache import RowReader
from alignslm.lm.checkpoint import UnitLM
from alignslm.lm.positions import check_max_positions
from alignslm.model_cache import keeps_states, left_padded
from alignslm.speed.onednn import fast_linear

LEAST_WEIGHTS = 1 << 17  # of a layer that oneDNN multiplies faster than MKL at the few rows of one step
COMPACT_AT = 0.75  # finished rows are dropped from the batch once fewer than this fraction is unfinished


class SampledContinuation(NamedTuple):
    """One continuation: its units without specials, why it ended, and its log-probability.

    `logprob` is under the model itself (temperature 1, no nucleus), end-of-sequence included if sampled.
    """

    units: list[int]
    finish_reason: Literal["eos", "length"]
    logprob: float


def sample_top_p(logits: torch.Tensor, uniform: torch.Tensor, *, temperature: float, top_p: float) -> torch.Tensor:
    """Choose one token per row: logits (rows, vocabulary) fp32, uniform (rows,) in [0, 1) -> ids (rows,).

    The nucleus is the shortest list of most likely tokens with a total probability of top_p (Holtzman et al. 2020);
    the uniform number picks within its cumulative distribution.
    """
    probabilities = torch.softmax(logits / temperature, dim=-1)
    ranked, order = probabilities.sort(dim=-1, descending=True, stable=True)
    outside = ranked.cumsum(dim=-1) - ranked >= top_p
    # Back to the order of token ids before choosing: in ranked order the last bit of two nearly equal logits
    # would swap their places, and with them the choice.
    kept = probabilities.masked_fill(torch.zeros_like(outside).scatter(-1, order, outside), 0.0)
    mass = kept.cumsum(dim=-1)
    target = uniform.to(mass).unsqueeze(-1) * mass[:, -1:]
    choice = torch.searchsorted(mass, target, right=True).squeeze(-1)
    last = (kept > 0).int().cumsum(dim=-1).argmax(dim=-1)  # rounding may step past the nucleus
    return torch.minimum(choice, last)


def _uniforms(seeds: Sequence[int], steps: int) -> torch.Tensor:
    streams = [np.random.Generator(np.random.Philox(key=seed)).random(steps, dtype=np.float32) for seed in seeds]
    return torch.from_numpy(np.stack(streams))


def _forbidden(lm: UnitLM) -> torch.Tensor:
    """Return (vocabulary,) True at tokens that are neither unit nor end of sequence, such as padding."""
    forbidden = torch.ones(lm.model.config.vocab_size, dtype=torch.bool, device=lm.device)
    forbidden[lm.vocabulary.offset : lm.vocabulary.offset + lm.vocabulary.num_units] = False
    if lm.vocabulary.eos_id is not None:
        forbidden[lm.vocabulary.eos_id] = False
    return forbidden


@torch.inference_mode()
def _sample_batch(
    lm: UnitLM, ids: list[list[int]], seeds: list[list[int]], config: Sampling
) -> list[list[SampledContinuation]]:
    """Draw for a batch of prompts: a prompt is read once, its cache then serves all its draws."""
    draws, eos = len(seeds[0]), lm.vocabulary.eos_id
    forbidden = _forbidden(lm)
    uniforms = _uniforms([seed for row in seeds for seed in row], config.max_new_units).to(lm.device)
    tokens, mask = (part.to(lm.device) for part in left_padded(ids, lm.vocabulary.pad_id))
    reader = RowReader(lm.model, capacity=tokens.shape[1] + config.max_new_units)
    copies = torch.arange(len(ids), device=lm.device).repeat_interleave(draws)
    logits = reader.read(tokens, mask)[copies]
    reader.select(copies)
    alive = torch.arange(len(logits), device=lm.device)  # row of the batch -> number of its draw
    units: list[list[int]] = [[] for _ in range(len(logits))]
    logprob = torch.zeros(len(logits), dtype=torch.float64, device=lm.device)
    ended = torch.zeros(len(logits), dtype=torch.bool, device=lm.device)
    for step in range(config.max_new_units):
        logits = logits.masked_fill(forbidden, -torch.inf)
        chosen = sample_top_p(logits, uniforms[alive, step], temperature=config.temperature, top_p=config.top_p)
        gain = logits.log_softmax(dim=-1).gather(-1, chosen.unsqueeze(-1)).squeeze(-1).double()
        logprob[alive] += torch.where(ended[alive], 0.0, gain)
        if eos is not None:
            ended[alive] |= chosen == eos
        keep = ~ended[alive]
        for row, token in zip(alive[keep].tolist(), chosen[keep].tolist(), strict=True):
            units[row].append(token)
        if not keep.any() or step + 1 == config.max_new_units:
            break
        if keep.float().mean() < COMPACT_AT:
            reader.select(keep.nonzero().squeeze(-1))
            alive, chosen = alive[keep], chosen[keep]
        logits = reader.read(chosen.unsqueeze(-1))
    flat = [
        SampledContinuation(lm.vocabulary.decode(row), "eos" if done else "length", value)
        for row, done, value in zip(units, ended.tolist(), logprob.tolist(), strict=True)
    ]
    return [flat[start : start + draws] for start in range(0, len(flat), draws)]


def _batches(lengths: Sequence[int], size: int, *, equal: bool) -> Iterator[list[int]]:
    """Yield at most `size` row numbers at a time, shortest rows first, of one length if they have to be `equal`."""
    by_length = sorted(range(len(lengths)), key=lengths.__getitem__)
    for rows in grouped(by_length, (lengths[row] if equal else 0 for row in by_length)).values():
        yield from (rows[start : start + size] for start in range(0, len(rows), size))


def sample(
    lm: UnitLM,
    prompts: Sequence[Sequence[int]],
    seeds: Sequence[Sequence[int]],
    config: Sampling,
    *,
    batch_size: int,
) -> list[list[SampledContinuation]]:
    """Continue every prompt (units) once for each of its seeds; results in the order of prompts and seeds.

    Every prompt must have equally many seeds. The seeds say how many continuations there are, not the config. A
    continuation has `config.max_new_units` units at most, however long its prompt. Raises TooLongError if prompt and
    continuation together exceed the model's positions.
    """
    encoded = [lm.vocabulary.encode(prompt, bos=True) for prompt in prompts]
    if any(not ids for ids in encoded):
        raise ValueError(f"prompt {[not ids for ids in encoded].index(True)} is empty: there is nothing to continue")
    check_max_positions(
        lm.model.config,
        [len(ids) + config.max_new_units - 1 for ids in encoded],  # the last unit drawn is not read again
        what="prompts with their continuations",
        cure=f"lower sampling.max_new_units ({config.max_new_units}) or prompts.max_duration_s",
    )
    results: list[list[SampledContinuation]] = [[] for _ in prompts]
    size = max(1, batch_size // max(1, len(seeds[0])))
    with fast_linear(lm.device, least_weights=LEAST_WEIGHTS, model=lm.model):
        for rows in _batches(list(map(len, encoded)), size, equal=keeps_states(lm.model)):
            drawn = _sample_batch(lm, [encoded[row] for row in rows], [list(seeds[row]) for row in rows], config)
            for row, item in zip(rows, drawn, strict=True):
                results[row] = item
    return results
