"""Logits of many sequences with a common beginning: it is read once, and a row's result is independent of others.

A sequence is head + stem + leaf. The head is common to all (the rubric), a stem to a few (the continuations of one
prompt). Every forward pass has a fixed number of rows and lengths rounded up to a fixed step, so its shape follows
from each row alone: kernels round by shape, and the company a row is read in would show in its last bits otherwise.
Padding is on the right of stem and leaf, where a causal model cannot see it (leaf) or is told not to (stem). Of a
model that keeps states instead of keys and values every sequence is read whole.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeAlias

import torch
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from alignslm.model_cache import accepts, has_window, keeps_states
from alignslm.speed.onednn import fast_linear

Ids: TypeAlias = tuple[int, ...]
KeyValues: TypeAlias = "list[tuple[torch.Tensor, torch.Tensor]]"  # a layer: (rows, heads, positions, size) each
LEAF_STEP, STEM_STEP = 4, 8
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


def rounded(length: int, step: int) -> int:
    """Return the least multiple of `step` that is at least `length`."""
    return -(-length // step) * step


def filled(items: Sequence[int], rows: int) -> Iterator[tuple[list[int], list[int]]]:
    """Cut a list into pieces of at most `rows`; yield each as it is, and filled up to `rows` with its first item."""
    for start in range(0, len(items), rows):
        some = list(items[start : start + rows])
        yield some, some + some[:1] * (rows - len(some))


def _read(cache: DynamicCache, width: int) -> KeyValues:
    """Return the last `width` positions of a cache of keys and values."""
    layers = [layer for layer in cache.layers if isinstance(layer, DynamicLayer)]
    return [
        (layer.keys[:, :, -width:], layer.values[:, :, -width:])
        for layer in layers
        if layer.keys is not None and layer.values is not None
    ]


class PrefixCache:
    """Runs a causal model over sequences after one head; `rows` in every forward pass."""

    def __init__(self, model: PreTrainedModel, head: Ids, *, rows: int) -> None:
        self.model, self.head, self.rows = model, head, rows
        self.stem_step = 1 if has_window(model) else STEM_STEP  # a window would count the padding
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
        (the last `LEAF_STEP` of them if `last_only`), and the sequences of as many rows; rows beyond are fillers.
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
                ordered = sorted(stems)
                for start in range(0, len(ordered), STEMS_HELD * self.rows):
                    some = ordered[start : start + STEMS_HELD * self.rows]
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
            width = rounded(len(leaf), LEAF_STEP)
            by_shape[rounded(len(self.head) + len(stem) + width, STEM_STEP), width].append(row)
        for (length, width), members in sorted(by_shape.items()):
            keep = min(length, width + STEM_STEP)  # no leaf begins before
            kept = {"logits_to_keep": keep} if accepts(self.model, "logits_to_keep") else {}
            for some, rows in filled(members, self.rows):
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
        for _, some in filled(range(len(stems)), self.rows):
            cache = self._cache([], some)
            ids = self._padded([stems[place] for place in some], width)
            positions = len(self.head) + torch.arange(width, device=self.model.device).expand(self.rows, -1)
            mask = torch.ones(self.rows, len(self.head) + width, dtype=torch.long, device=self.model.device)
            self.model(
                ids,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            read.append(_read(cache, width))
        return [
            (torch.cat([keys for keys, _ in layer]), torch.cat([values for _, values in layer]))
            for layer in zip(*read, strict=True)
        ]

    def _cache(self, stems: KeyValues, places: Sequence[int]) -> DynamicCache:
        """Return a cache of `rows` rows with the head and, behind it, the stem of each row's place."""
        cache = DynamicCache()
        chosen = torch.tensor(places, device=self.model.device)
        for layer in range(max(len(self._head_cache), len(stems))):
            heads = [kept.expand(self.rows, -1, -1, -1) for kept in self._head_cache[layer]] if self._head_cache else []
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
        by_width: dict[int, list[int]] = defaultdict(list)
        for row in sorted(places):
            by_width[rounded(len(sequences[row].leaf), LEAF_STEP)].append(row)
        found: dict[int, list[float]] = {}
        for width, members in sorted(by_width.items()):
            for some, rows in filled(members, self.rows):
                given, at = [sequences[row] for row in rows], [places[row] for row in rows]
                logits = self._read_leaves(given, self._cache(stems, at), stem_width, width, last_only=last_only)
                found |= dict(zip(some, reduce(logits, given), strict=False))
        return found

    @torch.inference_mode()
    def _read_leaves(
        self, given: Sequence[SplitSequence], cache: DynamicCache, stem_width: int, width: int, *, last_only: bool
    ) -> torch.Tensor:
        """Return fp32 logits (rows, positions, vocabulary); the padding behind a stem is masked and not counted."""
        device, head = self.model.device, len(self.head)
        lengths = torch.tensor([len(one.stem) for one in given], device=device)[:, None]
        mask = torch.ones(self.rows, head + stem_width + width, dtype=torch.long, device=device)
        mask[:, head : head + stem_width] = (torch.arange(stem_width, device=device) < lengths).long()
        return self.model(
            self._padded([one.leaf for one in given], width),
            attention_mask=mask,
            position_ids=head + lengths + torch.arange(width, device=device),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=LEAF_STEP if last_only else 0,
        ).logits.float()
