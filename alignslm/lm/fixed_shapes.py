"""Drawing in fixed shapes: every pass has one of few shapes, and on a GPU a step is one CUDA graph.

A GPU spends most of a step of exact shapes on launching kernels, and attention builds a plan for every new shape. So
prompts are padded to a multiple of some width, rows to one of few numbers, and a step reads all positions up to a
multiple, of which a mask says what is real. Fixed shapes also make draws independent of their batch: kernels round by
shape.
"""

import warnings
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple, TypeAlias

import torch
from transformers import Cache, DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from alignslm.buckets import few, filled, rounded
from alignslm.lm.draws import Draws
from alignslm.model_cache import has_window, keeps_states, left_padded

Capture: TypeAlias = Callable[[Callable[[], None]], Callable[[], None]]  # records a step; what it returns replays it


class DecodeShapes(NamedTuple):
    """Which shapes passes may have."""

    width_step: int = 32  # prompts are padded on the left to a multiple of it
    span_step: int = 64  # a step reads a multiple of it
    prompt_rows: int = 16  # prompts in a pass
    rows: int | None = None  # draws in a step; None: as many as there are, rounded up (`buckets.few`)


INVARIANT = DecodeShapes(rows=64)


def takes_fixed_shapes(model: PreTrainedModel) -> bool:
    """Return whether a model attends by keys and values alone, to all of them, and takes a mask of four dimensions."""
    sdpa = model.config._attn_implementation == "sdpa"  # noqa: SLF001 - no getter
    return sdpa and not keeps_states(model) and not has_window(model)


class StepGraphs:
    """Runs steps, each of one key and always on the same tensors, as CUDA graphs where `capture` is given.

    The first run of a key is a plain one: it builds plans and takes workspaces, which a capture cannot. The second is
    captured. If capturing fails, steps go on as plain ones, with a warning.
    """

    def __init__(self, capture: Capture | None) -> None:
        self._capture = capture
        self._known: dict[Hashable, Callable[[], None] | None] = {}

    def run(self, key: Hashable, step: Callable[[], None]) -> None:
        """Run a step, which must leave nothing behind but the content of tensors."""
        if self._capture is None or key not in self._known:
            self._known[key] = None
            return step()
        replay = self._known[key]
        if replay is None:
            try:
                replay = self._known[key] = self._capture(step)
            except RuntimeError as error:
                warnings.warn(f"steps run without CUDA graphs, which is slower: {error}", stacklevel=2)
                self._capture = None
                return step()
        return replay()


def capture_of(device: torch.device) -> Capture | None:
    """Return what captures CUDA graphs, which share their memory since they run one after another; None elsewhere."""
    if device.type != "cuda":
        return None
    pool = torch.cuda.graph_pool_handle()

    def capture(step: Callable[[], None]) -> Callable[[], None]:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool):
            step()
        return graph.replay

    return capture


class _FixedLayer(DynamicLayer):
    """Keys and values in whole buffers (rows, heads, capacity, width), written where the batch's `at` says."""

    def __init__(self, batch: "_Batch", keys: torch.Tensor, values: torch.Tensor) -> None:
        super().__init__()
        self.batch, self.whole, self.is_initialized = batch, (keys, values), True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: object, **__: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the new states (rows, heads, 1, width); return the positions that this step reads."""
        for whole, new in zip(self.whole, (key_states, value_states), strict=True):
            whole.index_copy_(2, self.batch.at, new)
        keys, values = (whole[:, :, : self.batch.span] for whole in self.whole)
        return keys, values

    def get_seq_length(self) -> int:
        """Return 0: positions and mask are given with every step."""
        return 0


class _Batch:
    """Draws of one number of rows, and what their model has read, in tensors that stay where they are."""

    def __init__(self, draws: Draws, like: Cache, *, capacity: int) -> None:
        rows, device = draws.num_rows, draws.logits.device
        self.draws, self.span = draws, 0
        self.at = torch.zeros(1, dtype=torch.long, device=device)
        self.position = torch.zeros(rows, 1, dtype=torch.long, device=device)
        self.layers = [
            _FixedLayer(self, *(_empty(part, rows, capacity) for part in _states(layer))) for layer in like.layers
        ]
        keys = self.layers[0].whole[0]
        # Added to attention's scores: of a mask that says true or false every layer would make this one again.
        self.mask = keys.new_full((rows, 1, 1, capacity), -torch.inf)
        self.cache = Cache(layers=list(self.layers))

    def take(self, rows: torch.Tensor | slice, cache: Cache, source: torch.Tensor, width: int) -> None:
        """Copy the first `width` positions of rows `source` of a cache into `rows`."""
        for layer, read in zip(self.layers, cache.layers, strict=True):
            for whole, states in zip(layer.whole, _states(read), strict=True):
                whole[rows, :, :width] = states[source, :, :width]


def _states(layer: object) -> tuple[torch.Tensor, torch.Tensor]:
    if isinstance(layer, _FixedLayer):
        return layer.whole
    assert isinstance(layer, DynamicLayer)  # noqa: S101 - `takes_fixed_shapes` lets no other through
    assert layer.keys is not None  # noqa: S101 - it has been read
    assert layer.values is not None  # noqa: S101
    return layer.keys, layer.values


def _empty(like: torch.Tensor, rows: int, capacity: int) -> torch.Tensor:
    """Return zeros: what a step reads beyond the last position is masked, but must be numbers."""
    _, heads, _, width = like.shape
    return like.new_zeros(rows, heads, capacity, width)


class FixedReader:
    """Reads prompts and then unit by unit for a batch of draws, in fixed shapes.

    `capacity` is the greatest number of positions of any batch. Tensors and graphs serve all batches of one number of
    rows, so a reader lives as long as its model's weights stay the same.
    """

    def __init__(
        self, model: PreTrainedModel, shapes: DecodeShapes, *, pad_id: int, capacity: int, graphs: StepGraphs
    ) -> None:
        self.model, self.shapes, self.pad_id, self.graphs = model, shapes, pad_id, graphs
        self.capacity = rounded(capacity, shapes.span_step)
        self._batches: dict[int, _Batch] = {}
        self._filled = 0  # positions that are written, the same in every row

    def begin(self, prompts: Sequence[Sequence[int]], copies: Sequence[int], draws: Draws) -> Draws:
        """Read prompts (token ids); row r of the draws goes on with prompt copies[r]. Returns the draws to go on with.

        If the shape has more rows, the last one is repeated in them: what is read must be numbers, idle or not.
        """
        width = rounded(max(map(len, prompts)), self.shapes.width_step)
        rows = self._rows(draws.num_rows)
        places = torch.tensor([*copies, *[copies[-1]] * (rows - len(copies))], device=self.model.device)
        started = draws.select(
            _repeated(torch.arange(draws.num_rows, device=places.device), rows), idle=rows - len(copies)
        )
        batch = None
        for numbers, full in filled(range(len(prompts)), self.shapes.prompt_rows):
            logits, real, cache = self._read([prompts[number] for number in full], width)
            mine = ((places >= numbers[0]) & (places <= numbers[-1])).nonzero().squeeze(-1)
            source = places[mine] - numbers[0]
            batch = batch or self._batch(started, cache)
            batch.draws.logits[mine] = logits[source]
            batch.mask[mine, 0, 0, :width] = torch.where(real[source], 0.0, -torch.inf).to(batch.mask)
            batch.position[mine] = real[source].sum(dim=-1, keepdim=True)
            batch.take(mine, cache, source, width)
        assert batch is not None  # noqa: S101 - there is a prompt
        batch.at.fill_(width)
        batch.mask[:, :, :, width:] = -torch.inf
        self._filled = width
        return batch.draws

    def _read(self, prompts: Sequence[Sequence[int]], width: int) -> tuple[torch.Tensor, torch.Tensor, Cache]:
        """Return fp32 logits (prompts, vocabulary) after the last token, the mask (prompts, width), and the cache.

        The attention mask is always given whole: without padding transformers would leave it out, and another kernel
        would read the prompts.
        """
        tokens, real = (part.to(self.model.device) for part in left_padded(prompts, self.pad_id, width=width))
        seen = torch.ones(width, width, dtype=torch.bool, device=tokens.device)
        mask = (seen.tril() & real.bool()[:, None, None]) | torch.eye(width, dtype=torch.bool, device=tokens.device)
        cache = DynamicCache()
        logits = self.model(
            tokens,
            attention_mask=mask,
            position_ids=(real.cumsum(dim=-1) - 1).clamp(min=0),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        return logits.float(), real.bool(), cache

    def _rows(self, count: int) -> int:
        return self.shapes.rows or few(count)

    def _batch(self, draws: Draws, like: Cache) -> _Batch:
        """Return the batch of as many rows, which goes on with these draws."""
        rows = draws.num_rows
        if rows not in self._batches:
            self._batches[rows] = _Batch(draws, like, capacity=self.capacity)
        else:
            self._batches[rows].draws.take(draws)
        return self._batches[rows]

    def advance(self, draws: Draws) -> None:
        """Read the unit that every row has drawn, and draw the next one."""
        batch = self._batches[draws.num_rows]
        self._filled += 1
        span = rounded(self._filled, self.shapes.span_step)
        self.graphs.run((draws.num_rows, span), lambda: self._step(batch, span))

    def _step(self, batch: _Batch, span: int) -> None:
        batch.span = span
        batch.mask.index_fill_(3, batch.at, 0.0)
        logits = self.model(
            batch.draws.chosen.unsqueeze(-1),
            attention_mask=batch.mask[..., :span],
            position_ids=batch.position,
            past_key_values=batch.cache,
            use_cache=True,
        ).logits[:, -1]
        batch.draws.logits.copy_(logits)
        batch.at += 1
        batch.position += 1
        batch.draws.choose()

    def keep(self, draws: Draws, unfinished: torch.Tensor) -> Draws:
        """Drop finished rows if the others fit into half of the rows or fewer; return the draws to go on with.

        `unfinished` (kept,) are row numbers. Fewer rows are another shape, so a fixed number stays.
        """
        rows = self._rows(len(unfinished))
        if 2 * rows > draws.num_rows:
            return draws
        old, kept = self._batches[draws.num_rows], _repeated(unfinished, rows)
        new = self._batch(draws.select(kept, idle=rows - len(unfinished)), old.cache)
        new.at.copy_(old.at)
        new.position.copy_(old.position[kept])
        new.mask.copy_(old.mask[kept])
        new.take(slice(None), old.cache, kept, self._filled)
        return new.draws


def _repeated(rows: torch.Tensor, count: int) -> torch.Tensor:
    """Return row numbers, the last one repeated until there are `count`."""
    return rows[torch.arange(count, device=rows.device).clamp(max=len(rows) - 1)]
