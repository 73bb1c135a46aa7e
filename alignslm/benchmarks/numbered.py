"""Recordings numbered one after the other, right and wrong in turn: the format that slamkit scores."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from alignslm.benchmarks.index import SIDES, Found, frame, place, recordings
from alignslm.config.benchmarks import Reformatted
from alignslm.failures import Problem


def find(config: Reformatted) -> Found:
    """List the recordings of a reformatted benchmark; each subfolder, where asked for, has numbers of its own."""
    root = place(config.data)
    folders = sorted(path for path in root.iterdir() if path.is_dir()) if config.subfolders else [root]
    parts = [numbered(list(folder.glob("*.wav")), root, separator=config.separator) for folder in folders]
    deeper = {file.parent for file in recordings(root)} - set(folders)
    lost = [Problem("wav files outside the folders that are read", str(path.relative_to(root))) for path in deeper]
    return Found(
        frame(row for rows, _ in parts for row in rows), root, lost + [one for _, wrong in parts for one in wrong]
    )


def numbered(files: Sequence[Path], root: Path, *, separator: str) -> tuple[list[dict[str, object]], list[Problem]]:
    """Pair the files of one folder by number: the first with the second, from 0 or from 1 on.

    Pairing by order alone would shift every pair behind a missing file, and two files of one number have no order;
    both are problems.
    """
    numbers = {
        file: match for file in sorted(files) if (match := re.match(rf"(\d+)({re.escape(separator)}|$)", file.stem))
    }
    wrong = [
        Problem(f"name does not begin with a number and {separator!r}", file.relative_to(root).as_posix())
        for file in sorted(files)
        if file not in numbers
    ]
    by_file = {file: int(match[1]) for file, match in numbers.items()}
    counts = Counter(by_file.values())
    wrong += [
        Problem(
            "number stands more than once, so nothing says which file is the right one",
            file.relative_to(root).as_posix(),
        )
        for file, number in by_file.items()
        if counts[number] > 1
    ]
    start = 0 if 0 in counts else 1
    folder = files[0].parent.relative_to(root).as_posix() if files else ""
    missing = sorted(set(range(start, max(counts, default=-1) + 1)) - set(counts))
    wrong += [Problem("number is missing, so pairs behind it would shift", f"{folder}/{number}") for number in missing]
    if len(by_file) % 2:
        wrong.append(Problem("odd number of files", f"{folder}: {len(by_file)}"))
    return [_row(file, number - start, root) for file, number in by_file.items()], wrong


def _row(file: Path, place_in_order: int, root: Path) -> dict[str, object]:
    below = file.relative_to(root)
    subtype = "" if below.parent == Path() else below.parent.as_posix()
    return {
        "item_id": below.with_suffix("").as_posix(),
        "pair_id": f"{subtype}/{place_in_order // 2}".lstrip("/"),
        "polarity": SIDES[place_in_order % 2],
        "subtype": subtype,
        "voice": "",
        "file": below.as_posix(),
    }
