"""Measurements of this machine that anyone can repeat."""
