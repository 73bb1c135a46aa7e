"""SALMon: a folder a part, of wavs (the zip) or of parquet files (the Hub)."""

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from alignslm.benchmarks.index import SIDES, Found, frame, place, recordings
from alignslm.config.benchmarks import Salmon
from alignslm.failures import Problem

SAMPLE = re.compile(r"sample_(\d+)_([01])")
COLUMNS = ("task", "ind", "positive_audio", "negative_audio")
Row = Mapping[str, object]


def find(config: Salmon) -> Found:
    """List the recordings of the parts asked for, in either release."""
    root = place(config.data, patterns=[f"{part}/*.parquet" for part in config.parts])
    nested = [path for path in sorted(root.iterdir()) if all((path / part).is_dir() for part in config.parts)]
    root = nested[0] if len(nested) == 1 else root
    rows: list[Row] = []
    problems: list[Problem] = []
    for part in config.parts:
        found, wrong = _part(root, part)
        rows += found
        problems += wrong
    return Found(frame(rows), root, problems)


def _part(root: Path, part: str) -> tuple[list[Row], list[Problem]]:
    wavs, stored = recordings(root / part), sorted((root / part).glob("*.parquet"))
    if bool(wavs) == bool(stored):
        return [], [Problem("neither wavs nor parquet files" if not wavs else "both wavs and parquet files", part)]
    return _from_wavs(wavs, root, part) if wavs else _from_parquet(stored, root, part)


def _from_wavs(files: list[Path], root: Path, part: str) -> tuple[list[Row], list[Problem]]:
    named = {file: match for file in files if (match := SAMPLE.fullmatch(file.stem)) and file.parent == root / part}
    strange = [file for file in files if file not in named]
    wrong = [Problem("name is not sample_NUMBER_0 or sample_NUMBER_1", str(file.relative_to(root))) for file in strange]
    rows = [
        _row(part, match[1], SIDES[int(match[2])], file=file.relative_to(root).as_posix())
        for file, match in named.items()
    ]
    return rows, wrong


def _from_parquet(files: list[Path], root: Path, part: str) -> tuple[list[Row], list[Problem]]:
    rows: list[Row] = []
    wrong: list[Problem] = []
    for file in files:
        below = file.relative_to(root).as_posix()
        try:
            names = pq.read_schema(file).names
            absent = [name for name in COLUMNS if name not in names]
            table = None if absent else pq.read_table(file, columns=["task", "ind"])
        except (OSError, pa.ArrowException) as error:
            wrong.append(Problem(f"unreadable parquet ({error})", below))
            continue
        if table is None:
            wrong.append(Problem(f"no column {', '.join(absent)}; columns are {', '.join(names)}", below))
            continue
        for number, (task, ind) in enumerate(zip(*table.to_pydict().values(), strict=True)):
            wrong += [] if task == part else [Problem(f"task is {task!r}, expected {part!r}", f"{below} row {number}")]
            rows += [_row(part, str(ind), side, file=below, row=number, column=f"{side}_audio") for side in SIDES]
    counts = Counter(row["item_id"] for row in rows)
    wrong += [Problem("ind stands twice", str(item)) for item, count in counts.items() if count > 1]
    return rows, wrong


def _row(part: str, number: str, side: str, **where: object) -> Row:
    return {
        "item_id": f"{part}/{int(number):03d}-{side}",
        "pair_id": f"{part}/{int(number):03d}",
        "polarity": side,
        "type": part.rpartition("_")[2],
        "subtype": part,
        "voice": "",
        **where,
    }
