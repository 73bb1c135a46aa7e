"""Assignment of clips to raters: a Latin square of systems over prompts and positions."""

from collections.abc import Sequence
from typing import NamedTuple

from alignslm.provenance import content_id


class Trial(NamedTuple):
    """One clip to rate."""

    prompt_id: str
    system: str


def trials(number: int, prompts: Sequence[str], systems: Sequence[str], *, passes: int, seed: int) -> list[Trial]:
    """Return the trials of rater `number` (0, 1, ...) in order: every prompt `passes` times, each by another system.

    Each group of as many raters as systems forms a square with one order of prompts, in which every prompt and every
    position of a pass has every system once. Neighbors are balanced too (Williams, 1949): within a block of as many
    positions as systems, each system follows each other one equally often over a group, or over two groups if their
    number is odd. Groups differ in their order of prompts.
    """
    count = len(systems)
    group, row = divmod(number, count)
    order = sorted(prompts, key=lambda prompt: content_id("listening order", seed, group, prompt))
    sequence = williams(count)[:: -1 if group % 2 else 1]
    return [
        Trial(prompt, systems[(sequence[position % count] + row + turn) % count])
        for turn in range(passes)
        for position, prompt in enumerate(order)
    ]


def williams(count: int) -> list[int]:
    """Return 0, 1, n - 1, 2, n - 2, ...: differences of neighbors are unique, so its shifts balance the order."""
    steps = [0, *(sign * step % count for step in range(1, count) for sign in (1, -1))]
    return list(dict.fromkeys(steps))[:count]
