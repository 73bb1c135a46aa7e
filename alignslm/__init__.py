"""Align-SLM (arXiv 2411.01834): preference-optimize a textless spoken language model with AI feedback.

The names in `__all__` are imported when they are first used, so that `import alignslm` stays light.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from alignslm.api import (
        Accuracy,
        Selection,
        evaluate,
        log_likelihoods,
        minimal_pairs,
        read_audio,
        sample,
        score,
        select_pairs,
        train,
        write_audio,
    )
    from alignslm.generation import SpeechPipeline, SpokenLM
    from alignslm.load import SourceError, load_asr, load_encoder, load_judge, load_lm, load_vocoder

__version__ = "0.1.0"
__all__ = [
    "Accuracy",
    "Selection",
    "SourceError",
    "SpeechPipeline",
    "SpokenLM",
    "evaluate",
    "load_asr",
    "load_encoder",
    "load_judge",
    "load_lm",
    "load_vocoder",
    "log_likelihoods",
    "minimal_pairs",
    "read_audio",
    "sample",
    "score",
    "select_pairs",
    "train",
    "write_audio",
]
_MODULES = ("alignslm.load", "alignslm.api", "alignslm.generation")  # in which they are looked up

# TRL reports every trainer that is made to the Hub, and huggingface_hub reads this once, when it is imported.
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"


def __getattr__(name: str) -> object:
    """Import a name of `__all__` on first use (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return next(vars(module)[name] for module in map(import_module, _MODULES) if name in vars(module))


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
