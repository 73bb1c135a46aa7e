"""Align-SLM (arXiv 2411.01834) as data: preference-optimise a textless spoken language model with AI feedback."""

import os

__version__ = "0.1.0"

# TRL reports every trainer that is made to the Hub, and huggingface_hub reads this once, when it is imported.
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
