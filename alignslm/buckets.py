"""Batches of few shapes, in which a row's result cannot depend on other rows: lengths follow from the row alone.

On a CPU a new shape costs nothing, so lengths are rounded little. A GPU builds a plan of attention for every new shape,
and waits for the launch of kernels that are small: there lengths and counts of rows are few, and passes large.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple, TypeVar

from transformers import PreTrainedConfig, PreTrainedModel

from alignslm.device import free_gpu_bytes

T = TypeVar("T")
LEAST_TOKENS, MOST_TOKENS = 1 << 12, 1 << 16


class Shapes(NamedTuple):
    """What lengths (in tokens) are rounded up to, and what one forward pass reads.

    `context` and `target`: steps of the lengths of contexts, and of what follows them or has none. `apart`: contexts of
    more tokens are read once, apart from their targets. `tokens`: of a pass. `rows`: any count of rows;
    or a few counts, filled up to with copies of a row; or all that a pass may have, filled up to in the same way.
    """

    context: int
    target: int
    apart: int
    tokens: int
    rows: Literal["any", "few", "all"]

    def passes(
        self, rows: Sequence[T], *, length: int, batch_size: int, held: int = 0
    ) -> Iterator[tuple[list[T], list[T]]]:
        """Yield consecutive rows of `length` tokens for one pass each: as they are, and with fillers behind them.

        They are at most `batch_size`, and about `tokens` tokens. Unless any count of rows will do, the `held` positions
        of each row's cache are among these: the tokens of a CPU are limited by its caches, of a GPU by its memory.
        """
        size = max(1, min(batch_size, self.tokens // max(1, length + (0 if self.rows == "any" else held))))
        if self.rows == "few":
            size -= size % (1 << max(0, size.bit_length() - 4))
        for start in range(0, len(rows), size):
            some = list(rows[start : start + size])
            count = {"any": len(some), "few": few(len(some)), "all": size}[self.rows]
            yield some, some + some[:1] * (count - len(some))


CPU = Shapes(context=1, target=8, apart=0, tokens=LEAST_TOKENS, rows="any")  # more would exceed a CPU's caches
GPU = Shapes(context=32, target=32, apart=128, tokens=MOST_TOKENS, rows="few")


def shapes_of(model: PreTrainedModel, *, cpu: Shapes = CPU) -> Shapes:
    """Return the shapes for the device that a model is on; on a GPU passes are as large as its free memory allows."""
    if model.device.type == "cpu":
        return cpu
    per_token = token_bytes(model.config, model.dtype.itemsize)
    return GPU._replace(tokens=tokens_that_fit(free_gpu_bytes(model.device), per_token))


def tokens_that_fit(free: int, per_token: int) -> int:
    """Return how many tokens of so many bytes half of the `free` bytes hold: a power of two from 2**12 to 2**16.

    A power of two, so that a little more or less free memory changes no shape.
    """
    fitting = max(1, free // 2 // per_token)
    return min(MOST_TOKENS, max(LEAST_TOKENS, 1 << (fitting.bit_length() - 1)))


def token_bytes(config: PreTrainedConfig, itemsize: int) -> int:
    """Return an upper estimate of the bytes that a token takes in a pass, in a model of `itemsize` bytes a weight.

    It counts keys and values of all layers twice (those of contexts, and their copies for a pass of targets), the
    states of one layer (24 x hidden size), and logits in the model's type and in fp32, with what a softmax takes.
    """
    text = config.get_text_config()
    keys_values = 2 * text.num_hidden_layers * text.hidden_size
    return itemsize * (2 * keys_values + 24 * text.hidden_size) + (itemsize + 12) * text.vocab_size


def few(count: int) -> int:
    """Return the least count that is at least `count` and one of 1 to 8, or of 9 to 16 times a power of two."""
    return rounded(count, 1 << max(0, (count - 1).bit_length() - 4))


def rounded(length: int, step: int, *, room: int | None = None) -> int:
    """Return the next multiple of `step`, at most `room`: it depends only on the row, yet many rows share it."""
    found = -(-length // step) * step
    return found if room is None else min(room, found)


def filled(rows: Sequence[T], size: int) -> Iterator[tuple[list[T], list[T]]]:
    """Cut into pieces of at most `size`; yield each as it is, and filled up to `size` with its first row."""
    every = Shapes(context=1, target=1, apart=0, tokens=size, rows="all")
    yield from every.passes(rows, length=1, batch_size=size)


def grouped(rows: Iterable[T], keys: Iterable[int]) -> dict[int, list[T]]:
    """Collect the rows of each key, in order."""
    groups: dict[int, list[T]] = defaultdict(list)
    for row, key in zip(rows, keys, strict=True):
        groups[key].append(row)
    return groups
