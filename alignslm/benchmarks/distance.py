"""How many words or units must be changed to make one sequence another."""

from collections.abc import Hashable, Sequence


def edit_distance(found: Sequence[Hashable], expected: Sequence[Hashable]) -> int:
    """Return the least number of insertions, deletions and substitutions between two sequences (Levenshtein).

    One row of the table is one integer, a bit a place of `expected`, after Myers (1999) and Hyyrö (2003): some
    thousand times as fast as a loop over cells, and nothing but integers.
    """
    if not expected:
        return len(found)
    places: dict[Hashable, int] = {}
    for place, symbol in enumerate(expected):
        places[symbol] = places.get(symbol, 0) | 1 << place
    every, last = (1 << len(expected)) - 1, 1 << (len(expected) - 1)
    rises, falls, distance = every, 0, len(expected)  # where a cell is one above, or below, the cell before it
    for symbol in found:
        equal = places.get(symbol, 0)
        diagonal = (((equal & rises) + rises) ^ rises) | equal
        right_rises = falls | every & ~(diagonal | rises)
        right_falls = rises & diagonal
        distance += bool(right_rises & last) - bool(right_falls & last)
        right_rises = (right_rises << 1 | 1) & every
        right_falls = (right_falls << 1) & every
        rises, falls = right_falls | every & ~(equal | falls | right_rises), right_rises & (equal | falls)
    return distance
