"""A batch of draws while it grows: what was chosen, how likely it was, and what has ended."""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import torch

from alignslm.config.feedback import Sampling
from alignslm.lm.checkpoint import UnitLM

Decode: TypeAlias = Callable[[Sequence[int]], list[int]]


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


def uniforms(seeds: Sequence[int], steps: int) -> torch.Tensor:
    """Return (seeds, steps) numbers in [0, 1), each row from a counter-based generator keyed by its seed."""
    streams = [np.random.Generator(np.random.Philox(key=seed)).random(steps, dtype=np.float32) for seed in seeds]
    return torch.from_numpy(np.stack(streams))


class Draws:
    """Draws of a batch, a row each. Everything is on the model's device, and `choose` waits for nothing.

    `number` (rows,) says which draws the rows are, -1 of idle rows. `logits` (rows, vocabulary) fp32 are those
    after the last token read.
    """

    def __init__(self, lm: UnitLM, uniform: torch.Tensor, config: Sampling) -> None:
        """Take the uniform numbers (rows, steps) of the draws."""
        rows, device = len(uniform), lm.device
        self.eos, self.temperature, self.top_p = lm.vocabulary.eos_id, config.temperature, config.top_p
        self.forbidden = _forbidden(lm)
        self.number = torch.arange(rows, device=device)
        self.uniform = uniform.to(device)
        self.logits = torch.zeros(rows, len(self.forbidden), device=device)
        self.tokens = torch.zeros(uniform.shape, dtype=torch.long, device=device)
        self.chosen = torch.zeros(rows, dtype=torch.long, device=device)
        self.logprob = torch.zeros(rows, dtype=torch.float64, device=device)
        self.ended = torch.zeros(rows, dtype=torch.bool, device=device)
        self.step = torch.zeros(1, dtype=torch.long, device=device)

    @property
    def num_rows(self) -> int:
        """How many rows there are, idle ones counted."""
        return len(self.number)

    def choose(self) -> None:
        """Draw the next token of every row from its logits."""
        logits = self.logits.masked_fill(self.forbidden, -torch.inf)
        uniform = self.uniform.index_select(1, self.step).squeeze(1)
        chosen = sample_top_p(logits, uniform, temperature=self.temperature, top_p=self.top_p)
        gain = logits.log_softmax(dim=-1).gather(-1, chosen.unsqueeze(-1)).squeeze(-1).double()
        self.logprob += torch.where(self.ended, 0.0, gain)
        self.tokens.index_copy_(1, self.step, chosen.unsqueeze(1))
        self.chosen.copy_(chosen)
        if self.eos is not None:
            self.ended |= chosen == self.eos
        self.step += 1

    def select(self, rows: torch.Tensor, *, idle: int = 0) -> "Draws":
        """Return the draws of these rows, in their order; the last `idle` of them have ended and are never told."""
        found = object.__new__(Draws)
        found.__dict__ = self.__dict__ | {name: getattr(self, name)[rows] for name in _OF_ROWS}
        found.step = self.step.clone()
        first = len(rows) - idle
        found.number[first:], found.ended[first:] = -1, True
        return found

    def take(self, other: "Draws") -> None:
        """Copy other draws, of as many rows, into these tensors."""
        for name in (*_OF_ROWS, "step"):
            getattr(self, name).copy_(getattr(other, name))

    def told(self, decode: Decode) -> dict[int, SampledContinuation]:
        """Return what has been drawn so far, by number of the draw."""
        size, found = int(self.step), {}
        parts = (part.tolist() for part in (self.number, self.tokens[:, :size], self.ended, self.logprob))
        for number, tokens, ended, logprob in zip(*parts, strict=True):
            if number >= 0:
                units = decode(tokens[: tokens.index(self.eos)] if ended else tokens)
                found[number] = SampledContinuation(units, "eos" if ended else "length", logprob)
        return found


_OF_ROWS = ("number", "uniform", "logits", "tokens", "chosen", "logprob", "ended")


def _forbidden(lm: UnitLM) -> torch.Tensor:
    """Return (vocabulary,) True at tokens that are neither unit nor end of sequence, such as padding."""
    forbidden = torch.ones(lm.model.config.vocab_size, dtype=torch.bool, device=lm.device)
    forbidden[lm.vocabulary.offset : lm.vocabulary.offset + lm.vocabulary.num_units] = False
    if lm.vocabulary.eos_id is not None:
        forbidden[lm.vocabulary.eos_id] = False
    return forbidden
