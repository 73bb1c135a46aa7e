"""Any folder of audio files that a metadata.csv lists."""

import csv
from collections.abc import Mapping
from pathlib import Path

from alignslm.config.corpora import SPLITS, ListedPart, SplitName
from alignslm.corpora.index import Found, frame, spoken
from alignslm.failures import Problem
from alignslm.fetching import expanded

TABLE = "metadata.csv"
COLUMNS = ("file_name", "subset", "speaker_id", "text")


def find(part: ListedPart, name: str) -> Found:
    """List the rows of metadata.csv whose subset serves a split; an utterance's id is its file name without suffix."""
    root = expanded(part.source)
    table = root / TABLE
    if not table.is_file():
        return Found(frame([]), root, [Problem(f"no {TABLE} with the columns {', '.join(COLUMNS)}", str(root))])
    with table.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.DictReader(stream)
        absent = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
        if absent:
            return Found(frame([]), root, [Problem(f"no column {', '.join(absent)}", f"{name}/{TABLE}")])
        lines = list(enumerate(reader, 2))
    splits = {subset: split for split in SPLITS for subset in part.subsets.of(split)}
    read = [(number, _row(root, line, splits)) for number, line in lines if line["subset"] in splits]
    rows = [{**row, "part": name} for _, row in read if not isinstance(row, str)]
    problems = [Problem(row, f"{name}/{TABLE}:{number}") for number, row in read if isinstance(row, str)]
    present = {line["subset"] for _, line in lines}
    problems += [Problem(f"no such subset in {table}", subset) for subset in splits if subset not in present]
    return Found(frame(rows), root, problems)


def _row(root: Path, line: Mapping[str, str | None], splits: Mapping[str, SplitName]) -> Mapping[str, object] | str:
    """Return one utterance, or what is wrong with its line."""
    file, speaker, text = line["file_name"], line["speaker_id"], spoken(line["text"] or "")
    if not file or not (root / file).is_file():
        return "no audio"
    if not (root / file).resolve().is_relative_to(root.resolve()):
        return "file lies outside the corpus's folder"
    if not speaker:
        return "no speaker_id"
    split = splits[line["subset"] or ""]
    return {"utterance_id": Path(file).stem, "split": split, "speaker_id": speaker, "text": text or None, "file": file}
