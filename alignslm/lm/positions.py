"""The longest sequence a model can read. Nothing is ever truncated: too long is an error with counts."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from transformers import PreTrainedConfig

from alignslm.model_cache import max_positions
from alignslm.user_errors import MAX_SHOWN


class TooLongError(ValueError):
    """Sequences need more positions than the model has. `rows` are their numbers, the longest first."""

    def __init__(self, message: str, rows: Sequence[int]) -> None:
        super().__init__(message)
        self.rows = rows


@contextmanager
def named_rows(ids: Iterable[str]) -> Iterator[None]:
    """Add the ids of the sequences to a TooLongError raised inside; `ids` are of all sequences, in their order."""
    try:
        yield
    except TooLongError as error:
        every = list(ids)
        shown = ", ".join(every[row] for row in error.rows[:MAX_SHOWN])
        more = f" and {len(error.rows) - MAX_SHOWN} more" if len(error.rows) > MAX_SHOWN else ""
        raise TooLongError(f"{error} They are, the longest first: {shown}{more}.", error.rows) from error


def check_max_positions(config: PreTrainedConfig, lengths: Sequence[int], *, what: str, cure: str) -> None:
    """Raise TooLongError if a sequence of `lengths` (in tokens) exceeds the model's positions.

    Learned positions (OPT) end there; rotary ones (Llama, Qwen) go on, but were never trained beyond.
    """
    limit = max_positions(config)
    over = [row for row, length in enumerate(lengths) if length > limit]
    if over:
        over.sort(key=lengths.__getitem__, reverse=True)
        raise TooLongError(
            f"{len(over)} of {len(lengths)} {what} need more than the {limit} positions of the model "
            f"(max_position_embeddings in its config.json); the longest needs {lengths[over[0]]}. Nothing is cut: "
            f"{cure}.",
            over,
        )
