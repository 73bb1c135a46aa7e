"""Nucleus sampling of continuations, each with its own random numbers.

A draw's uniform numbers come from a counter-based generator keyed by the draw's own seed, so its batch, its order and
the number of workers do not matter to it. Its logits do depend on the shape of the batch, in their last bits, and on a
GPU in bfloat16 in more than those: a unit changes if a uniform number falls into that gap. Batch-invariant sampling
closes it, in fixed shapes (`alignslm.lm.fixed_shapes`).
"""

from collections.abc import Callable, Iterator, Sequence

import torch

from alignslm.buckets import grouped, rounded
from alignslm.config.feedback import Sampling
from alignslm.device import planless_attention
from alignslm.lm.cache import RowReader
from alignslm.lm.checkpoint import UnitLM
from alignslm.lm.draws import Draws, SampledContinuation, uniforms
from alignslm.lm.fixed_shapes import (
    INVARIANT,
    DecodeShapes,
    FixedReader,
    StepGraphs,
    capture_of,
)
from alignslm.lm.positions import check_max_positions
from alignslm.lm.probe import fits_fixed_shapes
from alignslm.model_cache import keeps_states, left_padded
from alignslm.speed.onednn import fast_linear

LEAST_WEIGHTS = 1 << 17  # of a layer that oneDNN multiplies faster than MKL at the few rows of one step
COMPACT_AT = 0.75  # finished rows are dropped from the batch once fewer than this fraction is unfinished
LOOK_EVERY = 8  # steps in fixed shapes between two looks at what has ended: to look, the GPU is waited for


class _ExactReader:
    """Reads a batch in the very shapes that its rows have, and drops rows as they end: the way of a CPU."""

    _reader: RowReader  # of the batch that was begun last

    def __init__(self, lm: UnitLM, config: Sampling) -> None:
        self.lm, self.config = lm, config

    def begin(self, prompts: Sequence[Sequence[int]], copies: Sequence[int], draws: Draws) -> Draws:
        """Read prompts (token ids); row r of the draws goes on with prompt copies[r]."""
        tokens, mask = (part.to(self.lm.device) for part in left_padded(prompts, self.lm.vocabulary.pad_id))
        self._reader = RowReader(self.lm.model, capacity=tokens.shape[1] + self.config.max_new_units)
        rows = torch.tensor(copies, device=self.lm.device)
        draws.logits = self._reader.read(tokens, mask)[rows]
        self._reader.select(rows)
        return draws

    def advance(self, draws: Draws) -> None:
        """Read the unit that every row has drawn, and draw the next one."""
        with planless_attention():  # every step is another length
            draws.logits = self._reader.read(draws.chosen.unsqueeze(-1))
        draws.choose()

    def keep(self, draws: Draws, unfinished: torch.Tensor) -> Draws:
        """Go on with the unfinished rows (their numbers) if they are few enough."""
        if len(unfinished) >= COMPACT_AT * draws.num_rows:
            return draws
        self._reader.select(unfinished)
        return draws.select(unfinished)


def _reader_of(
    lm: UnitLM, config: Sampling, shapes: DecodeShapes | None, *, longest: int
) -> _ExactReader | FixedReader:
    if shapes is None:
        return _ExactReader(lm, config)
    capacity = rounded(longest, shapes.width_step) + config.max_new_units
    graphs = StepGraphs(capture_of(lm.device))
    return FixedReader(lm.model, shapes, pad_id=lm.vocabulary.pad_id, capacity=capacity, graphs=graphs)


def shapes_of(lm: UnitLM, *, batch_invariant: bool) -> DecodeShapes | None:
    """Return the shapes in which a model draws; None: those that its rows have.

    A model that keeps states, or sees a window, has no others; batch-invariant, it must be given one prompt at a time.
    """
    wanted = INVARIANT if batch_invariant else DecodeShapes() if lm.device.type != "cpu" else None
    return wanted if wanted is None or fits_fixed_shapes(lm) else None


@torch.inference_mode()
def _sample_batch(
    lm: UnitLM,
    reader: _ExactReader | FixedReader,
    ids: list[list[int]],
    copies: Sequence[int],
    draws: Draws,
) -> list[SampledContinuation]:
    """Finish a batch of draws; row r goes on with prompt copies[r], which is read once for all its draws."""
    every = 1 if isinstance(reader, _ExactReader) else LOOK_EVERY
    count, steps = draws.uniform.shape
    draws = reader.begin(ids, copies, draws)
    draws.choose()
    found: dict[int, SampledContinuation] = {}
    for step in range(1, steps):
        if draws.eos is not None and step % every == 0:
            unfinished = (~draws.ended).nonzero().squeeze(-1)
            if not len(unfinished):
                break
            kept = reader.keep(draws, unfinished)
            if kept is not draws:
                found |= draws.told(lm.vocabulary.decode)
                draws = kept
        reader.advance(draws)
    found |= draws.told(lm.vocabulary.decode)
    return [found[number] for number in range(count)]


def _batches(
    lengths: Sequence[int], draws: int, batch_size: int, *, key: Callable[[int], int], rows: int | None
) -> Iterator[list[tuple[int, int]]]:
    """Yield batches of (number of a prompt, number of its draw), shortest prompts first.

    In a batch all lengths have one `key`; it has `rows` draws, or those of whole prompts that fit into `batch_size`.
    """
    by_length = sorted(range(len(lengths)), key=lengths.__getitem__)
    size = rows or max(1, batch_size // max(1, draws)) * draws
    for group in grouped(by_length, (key(lengths[row]) for row in by_length)).values():
        pairs = [(row, draw) for row in group for draw in range(draws)]
        yield from (pairs[start : start + size] for start in range(0, len(pairs), size))


def sample(
    lm: UnitLM,
    prompts: Sequence[Sequence[int]],
    seeds: Sequence[Sequence[int]],
    config: Sampling,
    *,
    batch_size: int,
    batch_invariant: bool = False,
    shapes: DecodeShapes | None = None,
) -> list[list[SampledContinuation]]:
    """Continue every prompt (units) once for each of its seeds; results in the order of prompts and seeds.

    Every prompt must have equally many seeds. The seeds say how many continuations there are, not the config. A
    continuation has `config.max_new_units` units at most, however long its prompt. `batch_invariant`: it depends on
    nothing but model, prompt, seed and config, to the last bit; not on `batch_size` either. `shapes` are those of the
    device (`shapes_of`) unless given. Raises TooLongError if prompt and continuation together exceed the model's
    positions.
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
    if not encoded:
        return []
    shapes = shapes or shapes_of(lm, batch_invariant=batch_invariant)
    results: list[list[SampledContinuation]] = [[] for _ in prompts]
    lengths = [*map(len, encoded)]
    with fast_linear(lm.device, least_weights=LEAST_WEIGHTS, model=lm.model):
        reader = _reader_of(lm, config, shapes, longest=max(lengths))
        for pairs in _batches(
            lengths,
            len(seeds[0]),
            1 if batch_invariant else batch_size,
            key=_kind_of_length(lm, shapes),
            rows=shapes.rows if shapes else None,
        ):
            rows = [*dict.fromkeys(row for row, _ in pairs)]
            copies = [rows.index(row) for row, _ in pairs]
            uniform = uniforms([seeds[row][draw] for row, draw in pairs], config.max_new_units)
            drawn = _sample_batch(lm, reader, [encoded[row] for row in rows], copies, Draws(lm, uniform, config))
            for (row, _), item in zip(pairs, drawn, strict=True):
                results[row].append(item)
    return results


def _kind_of_length(lm: UnitLM, shapes: DecodeShapes | None) -> Callable[[int], int]:
    """Return what the lengths of a batch's prompts must have in common: nothing, their width when padded, or all."""
    if shapes is None:
        return (lambda length: length) if keeps_states(lm.model) else (lambda _: 0)
    return (lambda length: rounded(length, shapes.width_step)) if shapes.rows else (lambda _: 0)
