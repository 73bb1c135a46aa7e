"""Align-SLM (arXiv 2411.01834) as data: preference-optimise a textless spoken language model with AI feedback."""

__version__ = "0.1.0"
