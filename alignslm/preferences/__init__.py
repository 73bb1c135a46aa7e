"""Preference pairs that others made, as the pairs table that training reads.

Rows are read file by file and checked one by one (`reading`), made into pairs of units (`encoding`), and accounted for:
every row is a pair, or left out for a reason that is counted (`pairing`).
"""

from alignslm.preferences.pairing import GivenAccount, PreferenceError, make_pairs
from alignslm.preferences.reading import find_slices, read_slice

__all__ = ["GivenAccount", "PreferenceError", "find_slices", "make_pairs", "read_slice"]
