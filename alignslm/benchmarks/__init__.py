"""Benchmarks that compare the likelihood of two utterances: which one does the model find more likely."""


class BenchmarkError(ValueError):
    """A benchmark, its scores or a submission of them cannot be used; the message lists every problem."""
