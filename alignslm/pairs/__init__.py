"""Preference pairs: utility of continuations, selection of chosen and rejected, counts."""
