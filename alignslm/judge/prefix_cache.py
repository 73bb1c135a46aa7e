"""Logits of many sequences with a common beginning: it is read once, and a row's result is independent of others.

A sequence is head + stem + leaf. The head is common to all (the rubric), a stem to a few (the continuations of one
prompt). Every forward pass has a fixed number of rows (on a GPU one for every length) and lengths rounded up to a fixed
step, so its shape follows from each row alone: kernels round by shape, and the company a row is read in would show in
its last bits otherwise.
Padding is on the right of stem and leaf, where a causal model cannot see it (leaf) or is told not to (stem). Of a
model that keeps states instead of keys and values every sequence is read whole.
"""

import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeAlias

import torch
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from alignslm.buckets import Shapes, grouped, rounded, shapes_of
from alignslm.model_cache import accepts, after_padding, has_window, keeps_states, max_positions
from alignslm.speed.onednn import fast_linear

Ids: TypeAlias = tuple[int, ...]
KeyValues: TypeAlias = "list[tuple[torch.Tensor, torch.Tensor]]"  # a layer: (rows, heads, positions, size) each
LEAF_STEP, STEM_STEP = 4, 8
CPU = Shapes(context=STEM_STEP, target=LEAF_STEP, apart=0, tokens=sys.maxsize, rows="all")
STEMS_HELD = 8  # batches of stems whose keys and values are in memory at once


class SplitSequence(NamedTuple):
    """One sequence after the head. The leaf has at least one token; `kept` of its last logits are returned."""

    stem: Ids
    leaf: Ids


Reduce: TypeAlias = Callable[[torch.Tensor, Sequence[SplitSequence]], list[list[float]]]


def common_prefix(one: Sequence[int], other: Sequence[int]) -> Ids:
    """Return the tokens that two sequences begin with alike."""
    pairs = zip(one, other, strict=False)
    length = next((at for at, (left, right) in enumerate(pairs) if left != right), min(len(one), len(other)))
    return tuple(one[:length])


def _read(cache: DynamicCache, width: int) -> KeyValues:
    """Return the last `width` positions of a cache of keys and values."""
    layers = [layer for layer in cache.layers if isinstance(layer, DynamicLayer)]
    return [
        (layer.keys[:, :, -width:], layer.values[:, :, -width:])
        for layer in layers
        if layer.keys is not None and layer.values is not None
    ]


class PrefixCache:
    """Runs a causal model over sequences after one head, in given `shapes` (by default those for its device).

    On a CPU every forward pass has `rows` rows, on a GPU as many as the tokens of a pass allow.
    """

    def __init__(self, model: PreTrainedModel, head: Ids, *, rows: int, shapes: Shapes | None = None) -> None:
        self.model, self.head = model, head
        self.shapes = shapes or shapes_of(model, cpu=CPU)._replace(rows="all")
        self.rows = rows if self.shapes == CPU else sys.maxsize
        self.stem_step = 1 if has_window(model) else self.shapes.context  # a window would count the padding
        self._limit = max_positions(model.config.get_text_config())
        self._whole = keeps_states(model)
        self._head_cache = [] if self._whole else self._read_head()

    @torch.inference_mode()
    def _read_head(self) -> KeyValues:
        if not self.head:
            return []
        cache = DynamicCache()
        ids = torch.tensor([self.head], device=self.model.device)
        with fast_linear(self.model.device):
            self.model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        return _read(cache, len(self.head))

    def run(self, sequences: Sequence[SplitSequence], reduce: Reduce, *, last_only: bool) -> list[list[float]]:
        """Return reduce(logits, some) for every sequence, in order.

        `reduce` is given fp32 logits (rows, positions, vocabulary), the last positions of leaves padded to one length
        (the last `shapes.target` of them if `last_only`), and the sequences of as many rows; rows beyond are fillers.
        """
        if self._whole:
            with fast_linear(self.model.device):
                return self._read_whole(sequences, reduce)
        found: dict[int, list[float]] = {}
        by_stem: dict[int, dict[Ids, list[int]]] = defaultdict(lambda: defaultdict(list))
        for row, sequence in enumerate(sequences):
            by_stem[rounded(len(sequence.stem), self.stem_step)][sequence.stem].append(row)
        with fast_linear(self.model.device):
            for width, stems in sorted(by_stem.items()):
                for some, _ in self.shapes.passes(sorted(stems), length=width, batch_size=STEMS_HELD * self.rows):
                    keys = self._read_stems(some, width)
                    places = {row: place for place, stem in enumerate(some) for row in stems[stem]}
                    found |= self._leaves(sequences, places, keys, width, reduce, last_only=last_only)
        return [found[row] for row in range(len(sequences))]

    @torch.inference_mode()
    def _read_whole(self, sequences: Sequence[SplitSequence], reduce: Reduce) -> list[list[float]]:
        """Read every sequence from its first token: a state cannot be taken back to the end of head or stem."""
        found: dict[int, list[float]] = {}
        by_shape: dict[tuple[int, int], list[int]] = defaultdict(list)
        for row, (stem, leaf) in enumerate(sequences):
            width = rounded(len(leaf), self.shapes.target)
            by_shape[rounded(len(self.head) + len(stem) + width, self.shapes.context), width].append(row)
        for (length, width), members in sorted(by_shape.items()):
            keep = min(length, width + self.shapes.context)  # no leaf begins before
            kept = {"logits_to_keep": keep} if accepts(self.model, "logits_to_keep") else {}
            for some, rows in self.shapes.passes(members, length=length, batch_size=self.rows):
                given = [sequences[row] for row in rows]
                ids = self._padded([(*self.head, *one.stem, *one.leaf) for one in given], length)
                logits = self.model(ids, use_cache=False, **kept).logits[:, -keep:].float()
                starts = torch.tensor([len(self.head) + len(one.stem) - (length - keep) for one in given])
                places = starts[:, None] + torch.arange(width)
                leaves = logits[torch.arange(len(given))[:, None], places]
                found |= dict(zip(some, reduce(leaves, given), strict=False))
        return [found[row] for row in range(len(sequences))]

    def _padded(self, ids: Sequence[Ids], width: int) -> torch.Tensor:
        return torch.tensor([[*row, *[row[-1]] * (width - len(row))] for row in ids], device=self.model.device)

    @torch.inference_mode()
    def _read_stems(self, stems: Sequence[Ids], width: int) -> KeyValues:
        """Return keys and values of the stems, padded to `width`; empty if there are none."""
        if width == 0:
            return []
        read: list[KeyValues] = []
        for _, some in self._passes(range(len(stems)), held=len(self.head), new=width):
            cache = self._cache([], some)
            ids = self._padded([stems[place] for place in some], width)
            given = self._after([()] * len(some), held=len(self.head), new=width)
            self.model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1, **given)
            read.append(_read(cache, width))
        return [
            (torch.cat([keys for keys, _ in layer]), torch.cat([values for _, values in layer]))
            for layer in zip(*read, strict=True)
        ]

    def _cache(self, stems: KeyValues, places: Sequence[int]) -> DynamicCache:
        """Return a cache with the head and, behind it, the stem of each row's place."""
        cache = DynamicCache()
        chosen = torch.tensor(places, device=self.model.device)
        for layer in range(max(len(self._head_cache), len(stems))):
            heads = (
                [kept.expand(len(places), -1, -1, -1) for kept in self._head_cache[layer]] if self._head_cache else []
            )
            tails = [kept[chosen] for kept in stems[layer]] if stems else []
            keys, values = (torch.cat(parts, dim=-2) for parts in zip(*filter(None, (heads, tails)), strict=True))
            cache.update(keys, values, layer)
        return cache

    def _leaves(
        self,
        sequences: Sequence[SplitSequence],
        places: dict[int, int],
        stems: KeyValues,
        stem_width: int,
        reduce: Reduce,
        *,
        last_only: bool,
    ) -> dict[int, list[float]]:
        """Return the reduced logits of the rows with stems at `places`."""
        rows = sorted(places)
        widths = [rounded(len(sequences[row].leaf), self.shapes.target) for row in rows]
        held, found = len(self.head) + stem_width, dict[int, list[float]]()
        for width, members in sorted(grouped(rows, widths).items()):
            for some, full in self._passes(members, held=held, new=width):
                given, at = [sequences[row] for row in full], [places[row] for row in full]
                logits = self._read_leaves(given, self._cache(stems, at), held, width, last_only=last_only)
                found |= dict(zip(some, reduce(logits, given), strict=False))
        return found

    @torch.inference_mode()
    def _read_leaves(
        self, given: Sequence[SplitSequence], cache: DynamicCache, held: int, width: int, *, last_only: bool
    ) -> torch.Tensor:
        """Return fp32 logits (rows, positions, vocabulary) of leaves behind `held` positions of head and stem."""
        return self.model(
            self._padded([one.leaf for one in given], width),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=self.shapes.target if last_only else 0,
            **self._after([one.stem for one in given], held=held, new=width),
        ).logits.float()

    def _after(self, stems: Sequence[Ids], *, held: int, new: int) -> dict[str, torch.Tensor]:
        """Return mask and positions of what follows the head and these stems; padding has none beyond the model's."""
        past = torch.tensor([len(self.head) + len(stem) for stem in stems], device=self.model.device)
        given = after_padding(past, held=held, new=new)
        return {**given, "position_ids": given["position_ids"].clamp(max=self._limit - 1)}

    def _passes(self, rows: Sequence[int], *, held: int, new: int) -> Iterator[tuple[list[int], list[int]]]:
        return self.shapes.passes(rows, length=new, held=held, batch_size=self.rows)
