"""Preference pairs that others made, as the pairs table that training reads.

Rows are listed in slices (`files`), read and checked one by one as units (`reading`), and counted (`pairing`): each row
becomes a pair, or is left out for a reason.
"""
