"""Benchmarks of our implementations against plain ones; run by `python -m tests.bench`, never by pytest."""


class BenchError(ValueError):
    """A benchmark cannot run as requested, or its implementations disagree."""
