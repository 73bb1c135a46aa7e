"""Drawing continuations: against transformers' generate on padded batches, num_return_sequences draws a prompt."""

from typing import Any

import numpy as np
import torch
from transformers import LogitsProcessor, LogitsProcessorList

from alignslm.config.feedback import Sampling
from alignslm.lm.checkpoint import UnitLM
from alignslm.lm.draws import sample_top_p
from alignslm.lm.sampling import sample
from tests.bench.case import Answer, Case, Cost, mismatch_rate, scaled
from tests.bench.models import SHAPES, Shape, Size, token_flop, unit_lm, weight_bytes

PROMPTS, DRAWS, BATCH_ROWS = 24, 5, 64
UNEQUAL = 0.05  # a draw flips where its uniform number falls into the rounding between two ways to compute


class ForcedSampling(LogitsProcessor):
    """Leaves one token a row: what the row's own uniform number chooses, so that both paths draw the same.

    Takes the place of generate's temperature and top-p, and about as long: a softmax, a sort, two sums.
    """

    def __init__(self, uniforms: torch.Tensor, lm: UnitLM, config: Sampling, *, width: int) -> None:
        self.uniforms, self.config, self.width = uniforms, config, width
        self.forbidden = list({0, 1} - {lm.vocabulary.eos_id})

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> Any:
        """Return scores (rows, vocabulary) that are -inf but for the chosen token."""
        scores[:, self.forbidden] = -torch.inf
        uniform = self.uniforms[:, input_ids.shape[1] - self.width]
        chosen = sample_top_p(scores.float(), uniform, temperature=self.config.temperature, top_p=self.config.top_p)
        return torch.full_like(scores, -torch.inf).scatter_(1, chosen[:, None], 0.0)


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
        found += [np.array(lm.vocabulary.decode(_until_end(row, lm))) for row in written[:, width:].tolist()]
    return found


def _until_end(ids: list[int], lm: UnitLM) -> list[int]:
    eos = lm.vocabulary.eos_id
    return ids[: ids.index(eos)] if eos in ids else ids


def _ours(lm: UnitLM, prompts: list[list[int]], seeds: list[list[int]], config: Sampling, *, batch_size: int) -> Answer:
    drawn = sample(lm, prompts, seeds, config, batch_size=batch_size)
    return [np.array(draw.units) for row in drawn for draw in row]


def case(size: Size, *, scale: int, device: str) -> Case:
    """Build the work: prompts of 16 to 96 units, up to 96 units a draw."""
    shape = SHAPES[size]
    tiny = size == "tiny"
    lm = unit_lm(shape, device=device)
    config = Sampling(num_continuations=DRAWS, temperature=0.8, top_p=0.95, max_new_units=12 if tiny else 96)
    rng = np.random.default_rng(0)
    count = 4 if tiny else PROMPTS * shape.work
    lengths = scaled(rng.integers(3, 9, count).tolist() if tiny else rng.integers(16, 97, count).tolist(), scale)
    prompts = [rng.integers(0, shape.num_units, length).tolist() for length in lengths]
    seeds = [[DRAWS * row + draw for draw in range(DRAWS)] for row in range(len(prompts))]
    batch_size = BATCH_ROWS * shape.work
    lm.model.generation_config.max_length = None
    drawn = [len(row) for row in _ours(lm, prompts, seeds, config, batch_size=batch_size)]
    return Case(
        stage="sampling",
        shape=f"{len(prompts)} prompts of {min(lengths)} to {max(lengths)} units, {DRAWS} draws of at most "
        f"{config.max_new_units}, {batch_size} rows at once",
        model=lm.model,
        counted="units",
        amount=sum(drawn),
        paths={
            "ours": lambda: _ours(lm, prompts, seeds, config, batch_size=batch_size),
            "padded generate": lambda: _padded_generate(lm, prompts, seeds, config, batch_size=batch_size),
        },
        difference=mismatch_rate,
        tolerance=0.0 if tiny else UNEQUAL,
        cost=_cost(lm, shape, lengths, drawn, batch_size=batch_size),
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
