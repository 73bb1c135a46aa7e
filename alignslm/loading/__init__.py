"""Models in transformers' format, loaded whole or not at all."""

import pickle
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers.utils import logging as transformers_logging

from alignslm.config.model_folders import settings_problems

transformers_logging.disable_progress_bar()  # one bar per file of weights drowns the stage's own progress


class WeightsError(ValueError):
    """A folder cannot be loaded as the model it should contain, or some of the model's weights are missing."""


def load_pretrained(
    architecture: Any, folder: Path, *, dtype: str, unused: Collection[str] = (), **options: Any
) -> Any:
    """Return `architecture.from_pretrained(folder)`, on the CPU, in evaluation mode.

    `dtype` is always given, because the default of transformers has changed between its versions. `unused` weights may
    be missing. With a `state_dict` (and `config`) among the options, no file is read. Raises WeightsError if a weight
    is missing, since transformers would fill it with random numbers, or if it does not fit.
    """
    if problems := settings_problems(folder):
        raise WeightsError(" ".join(f"{problem}." for problem in problems))
    source = None if "state_dict" in options else folder
    with weights_errors(folder, architecture.__name__):
        model, loading = architecture.from_pretrained(
            source, dtype=getattr(torch, dtype), local_files_only=True, output_loading_info=True, **options
        )
    if missing := sorted(set(loading["missing_keys"]) - set(unused)):
        more = ", ..." if len(missing) > 3 else ""
        raise WeightsError(
            f"{folder}: {len(missing)} weights of {type(model).__name__} are missing ({', '.join(missing[:3])}{more}) "
            "and would be random. The download is incomplete, or config.json belongs to another model."
        )
    return model.eval()


@contextmanager
def weights_errors(folder: Path, what: str) -> Iterator[None]:
    """Raise any loading error as a WeightsError that says `folder` cannot be loaded as `what`."""
    try:
        yield
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{folder}: its .bin file contains more than tensors; reading it would run code from the file. "
            "Ask its author for safetensors."
        ) from error
    except (OSError, RuntimeError, ValueError, KeyError, SafetensorError) as error:
        reason = (str(error).strip().splitlines() or [""])[0]
        raise WeightsError(
            f"{folder} cannot be loaded as {what}: {type(error).__name__}: {reason} "
            "Check that all files are present and that config.json belongs to the weights."
        ) from error
