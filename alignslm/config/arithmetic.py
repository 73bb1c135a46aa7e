"""Configs with 16-bit arithmetic that this machine's processor can only emulate."""

import sys
from pathlib import Path

from alignslm.config.document import read_document
from alignslm.config.execution import Execution
from alignslm.config.experiment import Experiment
from alignslm.config.problems import ConfigProblem
from alignslm.machine import has_gpu, multiplies_bfloat16

KEYS = ("autocast", "dtype")
# Measured with torch 2.13: a training step of the embedded model 12 times, a plain matrix product 40 times.
COST = "10 to 40 times the time of float32"


def emulated(experiment: Experiment, execution: Execution, root: Path = Path()) -> dict[str, list[ConfigProblem]]:
    """Return, for each key of params.yaml, the lines of its configs that set bfloat16, if it is emulated.

    Empty if a GPU computes, if the processor has the instructions, or if that is unknown.
    """
    on_cpu = execution.device == "cpu" or (execution.device == "auto" and not has_gpu())
    if not on_cpu or multiplies_bfloat16() is not False:
        return {}
    found: dict[str, dict[ConfigProblem, None]] = {}
    for choice in experiment.choices():
        for key in KEYS:
            if getattr(choice.config, key, None) == "bfloat16":
                found.setdefault(choice.key, {})[_fault(root / choice.file, key)] = None
    return {key: list(faults) for key, faults in found.items()}


def warn_emulated(experiment: Experiment, execution: Execution, *keys: str) -> None:
    """Print on stderr which configs of these keys of params.yaml make a stage slow, each once."""
    found = emulated(experiment, execution)
    for line in dict.fromkeys(str(fault) for key in keys for fault in found.get(key, [])):
        print(f"warning: {line}", file=sys.stderr, flush=True)


def _fault(file: Path, key: str) -> ConfigProblem:
    document = read_document(file)
    line = None if isinstance(document, list) else document.line((key,))
    return ConfigProblem(
        file.as_posix(),
        line,
        key,
        f"this processor has no bfloat16 instructions and emulates them: expect {COST}. "
        f"Write `{key}: float32` here, or run on a GPU.",
    )
