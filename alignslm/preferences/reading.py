"""From stored rows to rows of units, each checked: what is wrong with a row is said beside where it stands."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from alignslm import audio, tables
from alignslm.config.preferences import AnyPreferences, SpokenPreferences, UnitPreferences
from alignslm.encoder import Encoder
from alignslm.listing import decode
from alignslm.preferences.files import RawRow, RowSlice, raw_rows
from alignslm.units import deduplicate

SIDES = ("prompt", "chosen", "rejected")
SCHEMA: Mapping[str, pl.DataType | type[pl.DataType]] = {
    "place": pl.String,
    "split": pl.String,
    **dict.fromkeys(SIDES, tables.UNITS),
    "problem": pl.String,
}
UNIT_TEXT = re.compile(r"(?:<Un\d+>)+")


class _Units(NamedTuple):
    """One side's units, or what is wrong with it."""

    units: list[int]
    problem: str | None = None


def read_slice(config: AnyPreferences, place: RowSlice, *, num_units: int, encoder: Encoder | None) -> pl.DataFrame:
    """Read and check rows: place, split, prompt, chosen and rejected (units), problem (null where there is none).

    Speech is encoded by `encoder`; without one it is decoded and checked only, and every side holds the unit 0.
    """
    rows = list(raw_rows(config, place))
    match config:
        case SpokenPreferences():
            sides = _spoken(rows, config, place, encoder)
        case UnitPreferences():
            sides = [[_given_units(row, side, config, num_units) for side in SIDES] for row in rows]
    return pl.DataFrame([_row(row, found) for row, found in zip(rows, sides, strict=True)], schema=dict(SCHEMA))


def _row(row: RawRow, sides: Sequence[_Units]) -> dict[str, object]:
    wrong = [f"{side}: {found.problem}" for side, found in zip(SIDES, sides, strict=True) if found.problem]
    problem = row.problem or ("; ".join(wrong) or None)
    units = {side: [] if problem else found.units for side, found in zip(SIDES, sides, strict=True)}
    return {"place": row.where, "split": row.split, **units, "problem": problem}


def _value(row: RawRow, side: str, config: AnyPreferences) -> Any:
    return row.values.get(getattr(config.columns, side))


def _given_units(row: RawRow, side: str, config: UnitPreferences, num_units: int) -> _Units:
    """Return a side's units as numbers, in whichever of the known ways they are written."""
    value = _value(row, side, config)
    if isinstance(value, Mapping):
        value = value.get("units", value.get("audio_repr"))
    if isinstance(value, str):
        if not UNIT_TEXT.fullmatch(value):
            return _Units([], "text that is no row of <Un...>")
        value = [int(unit) for unit in re.findall(r"\d+", value)]
    if not isinstance(value, list | tuple) or not all(type(unit) is int for unit in value):
        return _Units([], "neither a list of whole numbers, {units: [...]}, nor <Un...> text")
    return _checked(value, num_units, repeats=config.repeats)


def _checked(units: Sequence[int], num_units: int, *, repeats: str) -> _Units:
    if not units:
        return _Units([], "no units")
    if min(units) < 0 or max(units) >= num_units:
        return _Units([], f"a unit outside [0, {num_units})")
    runs, durations = deduplicate(np.asarray(units, np.int64))
    if repeats == "error" and durations.max() > 1:
        return _Units([], "a unit repeats (repeats: dedup, or keep where a model drew it)")
    return _Units(list(units) if repeats == "keep" else runs.tolist())


def _spoken(
    rows: Sequence[RawRow], config: SpokenPreferences, place: RowSlice, encoder: Encoder | None
) -> list[list[_Units]]:
    """Return the units of every side of every row; each clip is encoded by itself, never joined to its prompt."""
    folder = (place.root / place.file).parent
    read = [[_sound(_value(row, side, config), config, folder) for side in SIDES] for row in rows]
    waveforms = [found for sides in read for found in sides if isinstance(found, np.ndarray)]
    if encoder is None:
        encoded = iter([[0]] * len(waveforms))
    else:
        to_hz = encoder.contract.sample_rate_hz
        resampled = [audio.resample(wave, from_hz=config.sample_rate_hz, to_hz=to_hz) for wave in waveforms]
        encoded = iter([item.units.tolist() for item in encoder.encode(resampled)])
    return [
        [_Units([], found) if isinstance(found, str) else _Units(next(encoded)) for found in sides] for sides in read
    ]


def sound_bytes(value: Any, folder: Path) -> bytes | str:
    """Return a cell's encoded sound, or what is wrong with it. A path is looked up beside the file that names it."""
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, str):
        file = folder / value
        return file.read_bytes() if _is_file(file) else "no such audio file"
    return value if isinstance(value, bytes) and value else "no bytes of audio"


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a column of text: too long for a name
        return False


def _sound(value: Any, config: SpokenPreferences, folder: Path) -> np.ndarray | str:
    """Return a clip's samples, or what is wrong with it."""
    data = sound_bytes(value, folder)
    if isinstance(data, str):
        return data
    decoded = decode(data, sample_rate_hz=config.sample_rate_hz)
    return decoded.problem or decoded.waveform
