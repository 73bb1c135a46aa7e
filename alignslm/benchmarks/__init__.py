"""Benchmarks that compare the likelihood of two utterances: which one does the model find more likely."""
