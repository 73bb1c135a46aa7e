"""The swept values: KEY=VALUES in the syntax of `dvc exp run -S`, with ranges, as one list of overrides per run."""

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TypeAlias

from dvc.utils.cli_parse import to_path_overrides
from dvc.utils.hydra import to_hydra_overrides
from hydra.core.override_parser.types import ValueType
from hydra.errors import HydraException

from alignslm.sweep import SweepError

MAX_RUNS = 500
_NUMBERS = re.compile(r"-?\d+(:-?\d+)?(,-?\d+(:-?\d+)?)*")
_NAME_PART = 24  # characters of a value in a name
_NAME = 100
PARAMS = "params.yaml"
Overrides: TypeAlias = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Combination:
    """The (file, override) pairs of one run, and its name."""

    overrides: Overrides
    name: str

    @property
    def settings(self) -> tuple[str, ...]:
        """The overrides as `-S` takes them, such as judge=ngram."""
        return tuple(text if file == PARAMS else f"{file}:{text}" for file, text in self.overrides)


def combinations(settings: Sequence[str]) -> list[Combination]:
    """Return every combination of the values, the last setting varying fastest; equal ones once.

    `a:b` stands for the integers from a to b - 1. Raises SweepError for what DVC could not read, and for more than
    MAX_RUNS combinations.
    """
    for setting in settings:
        if "=" not in setting and not setting.startswith("~"):
            raise SweepError(f"{setting!r} sets nothing. Write KEY=VALUES, such as weights.ppl=0,0.5 or seeds.base=0:3")
    by_file = to_path_overrides([_expand(setting) for setting in settings])
    choices = [[(file, text) for text in _values(override)] for file, texts in by_file.items() for override in texts]
    if (number := math.prod(map(len, choices))) > MAX_RUNS:
        raise SweepError(f"{number} combinations are too many for one sweep (at most {MAX_RUNS}); sweep fewer values")
    found = list(dict.fromkeys(product(*choices)))
    return [Combination(some, name) for some, name in zip(found, _names(found), strict=True)]


def _expand(setting: str) -> str:
    key, equals, values = setting.partition("=")
    if ":" not in values or not _NUMBERS.fullmatch(values):
        return setting
    numbers = [text for part in values.split(",") for text in _range(part, setting)]
    return f"{key}{equals}{','.join(numbers)}"


def _range(part: str, setting: str) -> list[str]:
    if ":" not in part:
        return [part]
    start, end = map(int, part.split(":"))
    if not start < end <= start + MAX_RUNS:
        raise SweepError(
            f"{setting}: {part} is not a range of 1 to {MAX_RUNS} integers; 0:3 stands for 0, 1, 2, without its end"
        )
    return [str(number) for number in range(start, end)]


def _values(text: str) -> list[str]:
    """Return one override per value, as DVC's own sweeps have them."""
    try:
        (override,) = to_hydra_overrides([text])
        if not override.is_sweep_override():
            return [text]
        if override.is_discrete_sweep() and override.value_type != ValueType.GLOB_CHOICE_SWEEP:
            return [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]
    except HydraException as error:
        raise SweepError(f"{text}: {str(error).splitlines()[0]}; write it as for `dvc exp run -S`") from error
    raise SweepError(f"{text}: only lists and ranges of integers can be swept, such as 0,0.5 or 0:3")


def _names(sweeps: Sequence[Overrides]) -> Iterator[str]:
    """Yield names such as sweep-judge-ngram-ppl-0.5, with whole keys if two end in the same word."""
    last = Counter(_last(_key(text)) for _, text in sweeps[0])
    for sweep in sweeps:
        words = [_last(key) if last[_last(key)] == 1 else key for key in (_key(text) for _, text in sweep)]
        values = [text.partition("=")[2] for _, text in sweep]
        parts = [_slug(part) for pair in zip(words, values, strict=True) for part in pair]
        yield "-".join(["sweep", *filter(None, parts)])[:_NAME].rstrip(".-")


def _key(text: str) -> str:
    return text.partition("=")[0].lstrip("+~")


def _last(key: str) -> str:
    return key.rpartition(".")[2]


def _slug(text: str) -> str:
    """Return what git takes in the name of a reference; a minus stays."""
    plain = re.sub(r"[^a-z0-9.-]+|\.(?=\.)", "-", text.lower())[:_NAME_PART].rstrip(".-")
    return plain if text.startswith("-") else plain.lstrip(".-")
