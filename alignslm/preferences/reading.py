"""From stored rows to rows of units, each checked; problems have the place of their row."""

import re
from collections.abc import Callable, Mapping, Sequence, Sized
from typing import Any, TypeGuard, TypeVar

import numpy as np
import polars as pl

from alignslm import audio, tables
from alignslm.config.preferences import AnyPreferences, SpokenPreferences, UnitPreferences
from alignslm.encoder import Encoder
from alignslm.listing import NO_AUDIO, decode, named_file
from alignslm.preferences.files import RawRow, RowSlice, raw_rows
from alignslm.units import deduplicate

SIDES = ("prompt", "chosen", "rejected")
SCHEMA: Mapping[str, pl.DataType | type[pl.DataType]] = {
    "place": pl.String,
    "split": pl.String,
    **dict.fromkeys(SIDES, tables.UNITS),
    "problem": pl.String,
}
UNIT_TEXT = re.compile(r"\s*(?:(?:<Un\d+>\s*)+|\[?\s*\d+(?:[\s,]+\d+)*\s*\]?\s*)")  # of TWIST, and of GSLM
REPEATED = "chosen and rejected begin with the whole prompt (strip_prompt: true, or --strip-prompt, cuts it off)"
UNLIKE = "does not begin with the prompt, as strip_prompt: true says"
Clip = TypeVar("Clip", bound=Sized)  # units, or samples


def read_slice(config: AnyPreferences, place: RowSlice, *, num_units: int, encoder: Encoder | None) -> pl.DataFrame:
    """Read and check rows: place, split, prompt, chosen and rejected (units), problem (null if there is none).

    Speech is encoded by `encoder`; without one it is only decoded and checked, and every side is the unit 0.
    """
    rows = list(raw_rows(config, place))
    match config:
        case SpokenPreferences():
            sides = _spoken(rows, config, place, encoder)
        case UnitPreferences():
            sides = [_units_of(row, config, num_units) for row in rows]
    return pl.DataFrame([_row(row, found) for row, found in zip(rows, sides, strict=True)], schema=dict(SCHEMA))


def _row(row: RawRow, sides: Sequence[list[int] | str]) -> dict[str, object]:
    wrong = [
        found if found == REPEATED else f"{side}: {found}"
        for side, found in zip(SIDES, sides, strict=True)
        if isinstance(found, str)
    ]
    problem = row.problem or ("; ".join(dict.fromkeys(wrong)) or None)
    units = {side: [] if problem else found for side, found in zip(SIDES, sides, strict=True)}
    return {"place": row.where, "split": row.split, **units, "problem": problem}


def _parted(sides: Sequence[Clip | str], begins_with: Callable[[Clip, Clip], bool], *, strip: bool) -> list[Clip | str]:
    """Return prompt, chosen and rejected, the prompt cut off the latter two if the config says that they repeat it.

    Otherwise a row that repeats it on both sides has a problem: it would train on prompt, prompt and side.
    """
    prompt, *whole = sides
    if isinstance(prompt, str):
        return list(sides)
    ends = [end if isinstance(end, str) else _after(prompt, end, begins_with) for end in whole]
    if strip:
        return [prompt, *(UNLIKE if end is None else end for end in ends)]
    if len(prompt) > 1 and not any(end is None or isinstance(end, str) for end in ends):
        return [prompt, REPEATED, REPEATED]
    return list(sides)


def _after(prompt: Any, side: Any, begins_with: Callable[[Any, Any], bool]) -> Any:
    return side[len(prompt) :] if begins_with(side, prompt) else None


def _begins_with(units: list[int], prompt: list[int]) -> bool:
    return units[: len(prompt)] == prompt


def _value(row: RawRow, side: str, config: AnyPreferences) -> Any:
    return row.values.get(getattr(config.columns, side))


def _units_of(row: RawRow, config: UnitPreferences, num_units: int) -> list[list[int] | str]:
    """Return the units of every side, or what is wrong with it. A unit may repeat where prompt and side meet."""
    sides = _parted([_numbers(_value(row, side, config)) for side in SIDES], _begins_with, strip=config.strip_prompt)
    prompt, *ends = (
        side if isinstance(side, str) else _checked(side, num_units, repeats=config.repeats) for side in sides
    )
    return [prompt or "no units", *(end if end or config.strip_prompt else "no units" for end in ends)]


def _numbers(value: Any) -> list[int] | str:
    """Return units as numbers, from any known notation, or what is wrong with them."""
    if isinstance(value, Mapping):
        value = value.get("units", value.get("audio_repr"))
    if is_unit_text(value):
        value = [int(unit) for unit in re.findall(r"\d+", value)]
    if not isinstance(value, list | tuple) or not all(type(unit) is int for unit in value):
        return 'neither a list of whole numbers, {units: [...]}, <Un...> text, nor text such as "12 5 7"'
    return list(value)


def is_unit_text(value: object) -> TypeGuard[str]:
    """Return whether a value is units written out: <Un12><Un5> or 12 5 7."""
    return isinstance(value, str) and UNIT_TEXT.fullmatch(value) is not None


def _checked(units: list[int], num_units: int, *, repeats: str) -> list[int] | str:
    if not units:
        return []
    if min(units) < 0 or max(units) >= num_units:
        return f"a unit outside [0, {num_units})"
    runs, durations = deduplicate(np.asarray(units, np.int64))
    if repeats == "error" and durations.max() > 1:
        return "a unit repeats (repeats: dedup, or keep if a model sampled it)"
    return units if repeats == "keep" else runs.tolist()


def _spoken(
    rows: Sequence[RawRow], config: SpokenPreferences, place: RowSlice, encoder: Encoder | None
) -> list[list[list[int] | str]]:
    """Return the units of every side of every row; each clip is encoded separately, never joined to its prompt."""
    read = [
        _parted(
            [_sound(_value(row, side, config), config, place) for side in SIDES],
            audio.begins_with,
            strip=config.strip_prompt,
        )
        for row in rows
    ]
    waveforms = [found for sides in read for found in sides if not isinstance(found, str) and found.size]
    if encoder is None:
        encoded = iter([[0]] * len(waveforms))
    else:
        to_hz = encoder.contract.sample_rate_hz
        resampled = [audio.resample(wave, from_hz=config.sample_rate_hz, to_hz=to_hz) for wave in waveforms]
        encoded = iter([item.units.tolist() for item in encoder.encode(resampled)])
    return [
        [found if isinstance(found, str) else next(encoded) if found.size else [] for found in sides] for sides in read
    ]


def sound_bytes(value: Any, place: RowSlice) -> bytes | str:
    """Return a cell's encoded audio, or what is wrong with it.

    A jsonl names files inside the source's folder; parquet contains the audio, which its hash then covers.
    """
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if not isinstance(value, str):
        return value if isinstance(value, bytes) and value else NO_AUDIO
    if place.file.endswith(".parquet"):
        return "a path and no bytes of audio; in parquet the sound itself is expected, files are named by a jsonl"
    file = named_file(value, (place.root / place.file).parent, root=place.root)
    return file if isinstance(file, str) else file.read_bytes()


def _sound(value: Any, config: SpokenPreferences, place: RowSlice) -> np.ndarray | str:
    """Return a clip's samples, or what is wrong with it."""
    data = sound_bytes(value, place)
    if isinstance(data, str):
        return data
    decoded = decode(data, sample_rate_hz=config.sample_rate_hz)
    return decoded.problem or decoded.waveform
