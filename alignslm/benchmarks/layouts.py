"""Benchmarks as folders of recordings: numbered files, StoryCloze named by side, and SALMon by part."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from alignslm.benchmarks.index import INDEX, SIDES, recordings, resolve_folder
from alignslm.config.benchmarks import Salmon, SlamkitBenchmarkConfig, SpokenStoryCloze
from alignslm.listing import Listing, index_frame, parquet_columns
from alignslm.user_errors import Problem

Row = Mapping[str, object]
NAMED_BY_SIDE = re.compile(r"(?P<story>.+)_(?P<side>correct|incorrect|mutual)")
POLARITIES = {"correct": "positive", "incorrect": "negative"}
SALMON_SAMPLE = re.compile(r"sample_(\d+)_([01])")


def _below(files: Iterable[Path], root: Path) -> list[str]:
    return [file.relative_to(root).as_posix() for file in files]


def find_numbered(config: SlamkitBenchmarkConfig) -> Listing:
    """List recordings numbered one after the other, right and wrong in turn: the format that slamkit scores.

    Each subfolder, if there are any, has its own numbers.
    """
    root = resolve_folder(config.data)
    folders = sorted(path for path in root.iterdir() if path.is_dir()) if config.subfolders else [root]
    parts = [numbered(list(folder.glob("*.wav")), root, separator=config.separator) for folder in folders]
    deeper = {file.parent for file in recordings(root)} - set(folders)
    cure = f"wav files outside the folders that are read (subfolders: {'false' if config.subfolders else 'true'})"
    lost = [Problem(cure, path) for path in _below(deeper, root)]
    rows = index_frame((row for found, _ in parts for row in found), INDEX)
    return Listing(rows, root, lost + [problem for _, wrong in parts for problem in wrong])


def numbered(files: Sequence[Path], root: Path, *, separator: str) -> tuple[list[Row], list[Problem]]:
    """Pair the files of one folder by number: the lowest with the next, and so on; whole pairs may be missing.

    Pairing by order alone would shift every pair behind a missing file, and two files of one number have no order;
    both are problems.
    """
    numbers = {
        file: match for file in sorted(files) if (match := re.match(rf"(\d+)({re.escape(separator)}|$)", file.stem))
    }
    unnumbered = _below(sorted(set(files) - numbers.keys()), root)
    wrong = [Problem(f"name does not begin with a number and {separator!r}", file) for file in unnumbered]
    by_file = {file: int(match[1]) for file, match in numbers.items()}
    counts = Counter(by_file.values())
    doubled = _below((file for file, number in by_file.items() if counts[number] > 1), root)
    wrong += [Problem("number repeats, so nothing says which file is the right one", file) for file in doubled]
    start = min(counts, default=0)
    folder = files[0].parent.relative_to(root).as_posix() if files else ""
    others = {start + ((number - start) ^ 1) for number in counts}  # the other half of each pair
    missing = sorted(others - set(counts))
    wrong += [Problem("half of a pair is missing", f"{folder}/{number}") for number in missing]
    return [_numbered_row(file, number - start, root) for file, number in by_file.items()], wrong


def _numbered_row(file: Path, order: int, root: Path) -> Row:
    below = file.relative_to(root)
    subtype = "" if below.parent == Path() else below.parent.as_posix()
    return {
        "item_id": below.with_suffix("").as_posix(),
        "pair_id": f"{subtype}/{order // 2}".lstrip("/"),
        "polarity": SIDES[order % 2],
        "subtype": subtype,
        "voice": "",
        "file": below.as_posix(),
    }


def find_storycloze(config: SpokenStoryCloze) -> Listing:
    """List Spoken or topic StoryCloze, named by story and side or numbered; never a guess between the two."""
    root = resolve_folder(config.data)
    files = recordings(root)
    named = {file: match for file in files if (match := NAMED_BY_SIDE.fullmatch(file.stem))}
    if named:
        return _by_side(named, files, root)
    rows, problems = numbered(files, root, separator="_")
    folders = {file.parent for file in files}
    if len(folders) > 1:
        problems += [Problem("wav files in several folders", folder) for folder in _below(folders, root)]
    return Listing(index_frame(rows, INDEX), root, problems)


def _by_side(named: dict[Path, re.Match[str]], files: list[Path], root: Path) -> Listing:
    """Pair by the story's name. With a `mutual` beginning, the other two files are only the endings."""
    stories: dict[str, dict[str, str]] = {}
    strange = _below((file for file in files if file not in named), root)
    wrong = [Problem("name is not STORY_correct, STORY_incorrect or STORY_mutual", file) for file in strange]
    for file, match in named.items():
        story = (file.parent.relative_to(root) / match["story"]).as_posix()
        stories.setdefault(story, {})[match["side"]] = file.relative_to(root).as_posix()
    with_context = {story for story, sides in stories.items() if "mutual" in sides}
    if with_context and with_context != set(stories):
        bare = sorted(set(stories) - with_context)
        wrong += [Problem("no mutual file, though other stories have one", story) for story in bare]
    rows = [
        {
            "item_id": f"{story}_{side}",
            "pair_id": story,
            "polarity": POLARITIES[side],
            "subtype": "",
            "voice": "",
            "file": file,
            "context_file": sides.get("mutual"),
        }
        for story, sides in stories.items()
        for side, file in sides.items()
        if side in POLARITIES
    ]
    alone = sorted(story for story, sides in stories.items() if not POLARITIES.keys() & sides.keys())
    wrong += [Problem("mutual file without endings", story) for story in alone]
    return Listing(index_frame(rows, INDEX), root, wrong)


def find_salmon(config: Salmon) -> Listing:
    """List parts of SALMon: a folder per part, of wavs (the zip) or of parquet files (the Hub)."""
    root = resolve_folder(config.data, patterns=[f"{part}/*.parquet" for part in config.parts])
    nested = [path for path in sorted(root.iterdir()) if all((path / part).is_dir() for part in config.parts)]
    root = nested[0] if len(nested) == 1 else root
    rows: list[Row] = []
    problems: list[Problem] = []
    for part in config.parts:
        found, wrong = _salmon_part(root, part)
        rows += found
        problems += wrong
    return Listing(index_frame(rows, INDEX), root, problems)


def _salmon_part(root: Path, part: str) -> tuple[list[Row], list[Problem]]:
    wavs, stored = recordings(root / part), sorted((root / part).glob("*.parquet"))
    if bool(wavs) == bool(stored):
        return [], [Problem("neither wavs nor parquet files" if not wavs else "both wavs and parquet files", part)]
    return _salmon_wavs(wavs, root, part) if wavs else _salmon_parquet(stored, root, part)


def _salmon_wavs(files: list[Path], root: Path, part: str) -> tuple[list[Row], list[Problem]]:
    named = {
        file: match for file in files if (match := SALMON_SAMPLE.fullmatch(file.stem)) and file.parent == root / part
    }
    strange = _below((file for file in files if file not in named), root)
    wrong = [Problem("name is not sample_NUMBER_0 or sample_NUMBER_1", file) for file in strange]
    rows = [
        _salmon_row(part, match[1], SIDES[int(match[2])], file=file.relative_to(root).as_posix())
        for file, match in named.items()
    ]
    return rows, wrong


def _salmon_parquet(files: list[Path], root: Path, part: str) -> tuple[list[Row], list[Problem]]:
    rows: list[Row] = []
    wrong: list[Problem] = []
    for file in files:
        below = file.relative_to(root).as_posix()
        table = parquet_columns(file, ["task", "ind"], sound=[f"{side}_audio" for side in SIDES])
        if isinstance(table, str):
            wrong.append(Problem(table, below))
            continue
        for number, (task, ind) in enumerate(table.iter_rows()):
            wrong += [] if task == part else [Problem(f"task is {task!r}, expected {part!r}", f"{below} row {number}")]
            rows += [
                _salmon_row(part, str(ind), side, file=below, row=number, column=f"{side}_audio") for side in SIDES
            ]
    counts = Counter(row["item_id"] for row in rows)
    wrong += [Problem("ind is not unique", str(item)) for item, count in counts.items() if count > 1]
    return rows, wrong


def _salmon_row(part: str, number: str, side: str, **where: object) -> Row:
    return {
        "item_id": f"{part}/{int(number):03d}-{side}",
        "pair_id": f"{part}/{int(number):03d}",
        "polarity": side,
        "type": part.rpartition("_")[2],
        "subtype": part,
        "voice": "",
        **where,
    }
