"""The longest sequence a model can read. Nothing is ever truncated: too long is an error with counts."""

from collections.abc import Sequence

from transformers import PreTrainedConfig


class TooLongError(ValueError):
    """Sequences need more positions than the model has."""


def check_max_positions(config: PreTrainedConfig, lengths: Sequence[int], *, what: str, cure: str) -> None:
    """Raise TooLongError if a sequence of `lengths` (in tokens) exceeds the model's positions.

    Learned positions (OPT) end there; rotary ones (Llama, Qwen) go on, but were never trained beyond. A model whose
    config names no limit has none.
    """
    limit = getattr(config, "max_position_embeddings", None)
    over = [row for row, length in enumerate(lengths) if limit is not None and length > limit]
    if over:
        longest = max(over, key=lengths.__getitem__)
        raise TooLongError(
            f"{len(over)} of {len(lengths)} {what} need more than the {limit} positions of the model "
            f"(max_position_embeddings in its config.json); the longest, number {longest}, needs {lengths[longest]}. "
            f"Nothing is cut: {cure}."
        )
