"""A language of MLS as it is published: SUBSET/transcripts.txt and SUBSET/audio/SPEAKER/BOOK/SPEAKER_BOOK_NUMBER.*.

English holds 10.8 million utterances, so a limited split is chosen while its transcripts are read, and only what was
chosen is held and looked for.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from alignslm.config.corpora import SPLITS, MlsPart
from alignslm.corpora.index import Found, frame, lowest, spoken
from alignslm.corpora.transcripts import each_line
from alignslm.failures import Problem
from alignslm.fetching import expanded

NAME = re.compile(r"(\d+)_(\d+)_\d+")
SUFFIXES = (".flac", ".opus")  # MLS is published in both


class _Subset(NamedTuple):
    rows: list[Mapping[str, object]]
    problems: list[Problem]
    over_limit: int


def find(part: MlsPart, name: str) -> Found:
    """List the utterances of the subsets that the part names, and what is wrong with them."""
    root = expanded(part.source)
    rows: list[Mapping[str, object]] = []
    problems: list[Problem] = []
    over_limit = 0
    for split in SPLITS:
        for subset in part.subsets.of(split):
            if not (root / subset / "transcripts.txt").is_file():
                problems.append(Problem(f"no such subset, or no transcripts.txt in it, below {root}", subset))
                continue
            found = _subset(root, subset, part.at_most.of(split))
            rows += [{**row, "split": split, "part": name} for row in found.rows]
            problems += [Problem(kind, f"{name}/{where}") for kind, where in found.problems]
            over_limit += found.over_limit
    return Found(frame(rows), root, problems, over_limit)


def _subset(root: Path, subset: str, limit: int | None) -> _Subset:
    transcripts = root / subset / "transcripts.txt"
    chosen = None if limit is None else set(lowest((name for _, name, _ in each_line(transcripts, "\t")), limit))
    rows: list[Mapping[str, object]] = []
    wrong: list[Problem] = []
    over_limit = 0
    for number, name, text in each_line(transcripts, "\t"):
        if chosen is not None and name not in chosen:
            over_limit += 1
            continue
        row = _row(root, subset, name, text)
        if isinstance(row, str):
            wrong.append(Problem(row, f"{subset}/transcripts.txt:{number} ({name})"))
        else:
            rows.append(row)
    if limit is None:
        wrong += _unnamed(root, subset, {str(row["utterance_id"]) for row in rows})
    return _Subset(rows, wrong, over_limit)


def _row(root: Path, subset: str, name: str, text: str) -> Mapping[str, object] | str:
    """Return one utterance, or what is wrong with its line."""
    parts = NAME.fullmatch(name)
    if parts is None:
        return "id is not SPEAKER_BOOK_NUMBER"
    if not text:
        return "transcript line without text"
    folder = Path(subset, "audio", parts[1], parts[2])
    files = [folder / f"{name}{suffix}" for suffix in SUFFIXES if (root / folder / f"{name}{suffix}").is_file()]
    if not files:
        return "no audio"
    return {"utterance_id": name, "speaker_id": parts[1], "text": spoken(text), "file": files[0].as_posix()}


def _unnamed(root: Path, subset: str, named: set[str]) -> list[Problem]:
    """Return audio files that no transcript names. Looked for only where all of a subset is wanted."""
    files = sorted(path for suffix in SUFFIXES for path in (root / subset / "audio").glob(f"*/*/*{suffix}"))
    return [Problem("no transcript", path.relative_to(root).as_posix()) for path in files if path.stem not in named]
