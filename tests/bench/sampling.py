"""Drawing continuations: against transformers' generate on padded batches, num_return_sequences draws a prompt.

An answer has a row a draw: its recorded log-probability (NaN where none is), then its units. In float32 both paths
draw the same units. In bfloat16 the first rounding that flips a unit makes another continuation of it, so draws are
compared by what a plain forward pass over each of them says, see `_Forced`.
"""

import math
from typing import Any

import numpy as np
import torch
from transformers import LogitsProcessor, LogitsProcessorList

from alignslm.config.feedback import Sampling
from alignslm.lm.checkpoint import UnitLM
from alignslm.lm.draws import sample_top_p
from alignslm.lm.sampling import sample
from tests.bench.case import BF16_NATS, Answer, Case, Cost, MismatchError, mismatch_rate, scaled
from tests.bench.likelihood import padded_nats
from tests.bench.models import SHAPES, Shape, Size, token_flop, unit_lm, weight_bytes

PROMPTS, DRAWS, BATCH_ROWS = 24, 5, 64
UNEQUAL = 0.05  # a draw flips where its uniform number falls into the rounding between two ways to compute
STANDARD_ERRORS = 4.0  # between the mean log-probabilities of two samples; equal distributions exceed it once in 10,000
FORCED_TOKENS = 16_384  # in a pass


class ForcedSampling(LogitsProcessor):
    """Leaves one token a row: what the row's own uniform number chooses, so that both paths draw the same.

    Takes the place of generate's temperature and top-p, and about as long: a softmax, a sort, two sums.
    """

    def __init__(self, uniforms: torch.Tensor, lm: UnitLM, config: Sampling, *, width: int) -> None:
        self.uniforms, self.config, self.width = uniforms, config, width
        self.forbidden = _forbidden(lm)

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> Any:
        """Return scores (rows, vocabulary) that are -inf but for the chosen token."""
        scores[:, self.forbidden] = -torch.inf
        uniform = self.uniforms[:, input_ids.shape[1] - self.width]
        chosen = sample_top_p(scores.float(), uniform, temperature=self.config.temperature, top_p=self.config.top_p)
        return torch.full_like(scores, -torch.inf).scatter_(1, chosen[:, None], 0.0)


def _forbidden(lm: UnitLM) -> list[int]:
    return list({0, 1} - {lm.vocabulary.eos_id})


class _Forced:
    """Compares draws by the log-probability that a plain forward pass gives to each.

    The difference is that of the two paths' means of nats a unit, in standard errors, which come from how the draws of
    one prompt vary. (Both use the same random numbers, so their means are closer than those of independent draws.)
    What ours recorded must be what that pass says, within BF16_NATS times the root of a draw's units.
    """

    def __init__(self, lm: UnitLM, prompts: list[list[int]], *, longest: int) -> None:
        self.lm, self.prompts, self.longest = lm, prompts, longest

    def __call__(self, ours: Answer, theirs: Answer) -> float:
        """Return standard errors. Raises MismatchError where ours recorded something else."""
        (nats, counts), (their_nats, their_counts) = self.nats(ours), self.nats(theirs)
        apart = float((np.abs(nats - [row[0] for row in ours]) / np.sqrt(counts)).max())
        if not apart <= BF16_NATS:
            raise MismatchError(
                f"bench sampling: a log-probability that ours recorded and one forward pass's differ by {apart:g}, "
                f"which is more than {BF16_NATS:g} nats per root of its units"
            )
        one, other = (found.reshape(-1, DRAWS) for found in (nats / counts, their_nats / their_counts))
        variance = (one.var(axis=1, ddof=1).mean() + other.var(axis=1, ddof=1).mean()) / one.size
        gap = abs(float(one.mean() - other.mean()))
        return gap / math.sqrt(variance) if gap else 0.0

    def nats(self, answer: Answer) -> tuple[np.ndarray, np.ndarray]:
        """Return log-probabilities (draws,) of a path's units and how many there are, the end included if drawn."""
        lm, encode = self.lm, self.lm.vocabulary.encode
        heads = [encode(self.prompts[row // DRAWS], bos=True) for row in range(len(answer))]
        tails = [encode(row[1:].astype(int).tolist(), bos=False, eos=len(row) - 1 < self.longest) for row in answer]
        parted = list(zip(heads, tails, strict=True))
        found = padded_nats(lm, parted, tokens=FORCED_TOKENS, forbidden=_forbidden(lm))
        return np.array([nats.sum() for nats in found]), np.array([len(tail) for tail in tails])


def _padded_generate(
    lm: UnitLM, prompts: list[list[int]], seeds: list[list[int]], config: Sampling, *, batch_size: int
) -> Answer:
    """Continue prompts in the order they come, padded on the left, a batch until its last row has ended."""
    found: Answer = []
    size = max(1, batch_size // config.num_continuations)
    for start in range(0, len(prompts), size):
        ids = [lm.vocabulary.encode(units, bos=True) for units in prompts[start : start + size]]
        width = max(map(len, ids))
        tokens = torch.tensor([[0] * (width - len(row)) + row for row in ids], device=lm.device)
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in ids], device=lm.device)
        streams = [seed for row in seeds[start : start + size] for seed in row]
        uniforms = np.stack(
            [
                np.random.Generator(np.random.Philox(key=seed)).random(config.max_new_units, np.float32)
                for seed in streams
            ]
        )
        given = ForcedSampling(torch.from_numpy(uniforms).to(lm.device), lm, config, width=width)
        generate: Any = lm.model.generate
        written = generate(
            input_ids=tokens,
            attention_mask=mask,
            max_new_tokens=config.max_new_units,
            do_sample=True,
            top_k=0,
            num_return_sequences=config.num_continuations,
            pad_token_id=0,
            eos_token_id=lm.vocabulary.eos_id,
            logits_processor=LogitsProcessorList([given]),
        )
        drawn = (lm.vocabulary.decode(_until_end(row, lm)) for row in written[:, width:].tolist())
        found += [np.array([np.nan, *units]) for units in drawn]
    return found


def _until_end(ids: list[int], lm: UnitLM) -> list[int]:
    eos = lm.vocabulary.eos_id
    return ids[: ids.index(eos)] if eos in ids else ids


def _ours(lm: UnitLM, prompts: list[list[int]], seeds: list[list[int]], config: Sampling, *, batch_size: int) -> Answer:
    drawn = sample(lm, prompts, seeds, config, batch_size=batch_size)
    return [np.array([draw.logprob, *draw.units]) for row in drawn for draw in row]


def _unequal_draws(ours: Answer, theirs: Answer) -> float:
    return mismatch_rate([row[1:] for row in ours], [row[1:] for row in theirs])


def case(size: Size, *, scale: int, device: str, rows: int | None = None) -> Case:
    """Build the work: prompts of 16 to 96 units, up to 96 units a draw.

    With `rows`: so many at once, prompts of 20 to 75 units and up to 150 units a draw, as in the paper's setup.
    """
    shape = SHAPES[size]
    tiny = size == "tiny"
    lm = unit_lm(shape, device=device)
    longest = 12 if tiny else 150 if rows else 96
    config = Sampling(num_continuations=DRAWS, temperature=0.8, top_p=0.95, max_new_units=longest)
    rng = np.random.default_rng(0)
    count = rows // DRAWS if rows else 4 if tiny else PROMPTS * shape.work
    low, high = (3, 9) if tiny else (20, 76) if rows else (16, 97)
    lengths = scaled(rng.integers(low, high, count).tolist(), scale)
    prompts = [rng.integers(0, shape.num_units, length).tolist() for length in lengths]
    seeds = [[DRAWS * row + draw for draw in range(DRAWS)] for row in range(len(prompts))]
    batch_size = rows or BATCH_ROWS * shape.work
    lm.model.generation_config.max_length = None
    exact = shape.dtype is torch.float32

    def done(ours: Answer) -> tuple[float, Cost]:
        """Count units drawn."""
        drawn = [len(row) - 1 for row in ours]
        return sum(drawn), _cost(lm, shape, lengths, drawn, batch_size=batch_size)

    return Case(
        stage="sampling",
        shape=f"{len(prompts)} prompts of {min(lengths)} to {max(lengths)} units, {DRAWS} draws of at most "
        f"{config.max_new_units}, {batch_size} rows at once",
        model=lm.model,
        counted="units",
        amount=0.0,
        paths={
            "ours": lambda: _ours(lm, prompts, seeds, config, batch_size=batch_size),
            "padded generate": lambda: _padded_generate(lm, prompts, seeds, config, batch_size=batch_size),
        },
        difference=_unequal_draws if exact else _Forced(lm, prompts, longest=longest),
        tolerance=STANDARD_ERRORS if not exact else 0.0 if tiny else UNEQUAL,
        cost=Cost(0.0, None),
        unit="of all draws" if exact else "standard errors of the mean log-probability",
        done=done,
    )


def _cost(lm: UnitLM, shape: Shape, lengths: list[int], drawn: list[int], *, batch_size: int) -> Cost:
    """Read every prompt once and every unit drawn once; weights once for `batch_size` units, keys and values each."""
    vocab = lm.model.config.vocab_size
    prompts = sum(n * token_flop(shape, vocab_size=vocab, positions=n / 2) for n in lengths)
    past = [lengths[row // DRAWS] + n / 2 for row, n in enumerate(drawn)]
    draws = sum(n * token_flop(shape, vocab_size=vocab, positions=p) for n, p in zip(drawn, past, strict=True))
    held = 2 * shape.layers * shape.hidden * shape.dtype.itemsize  # keys and values of one position
    cached = held * sum(n * p for n, p in zip(drawn, past, strict=True))
    return Cost(prompts + draws, weight_bytes(lm.model) * sum(drawn) / batch_size + cached)
