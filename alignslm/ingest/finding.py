"""Recordings of a folder with their texts and speakers, from a table or from text files."""

import csv
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from alignslm.listing import EncodingError, text_lines
from alignslm.metrics import words

NEEDS_FFMPEG = {".m4a", ".mp4", ".aac", ".webm", ".wma", ".amr"}
SUFFIXES = {".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au", *NEEDS_FFMPEG}
TABLES = {".csv", ".tsv", ".jsonl"}
FILE = ("file_name", "file", "path", "audio", "filename", "wav", "id", "utterance_id")
TEXT = ("normalized_text", "text", "transcript", "transcription", "sentence")
SPEAKER = ("speaker_id", "speaker", "client_id")
COLUMNS = (FILE, TEXT, SPEAKER)


class IngestError(ValueError):
    """A folder cannot become a corpus; the message says what is missing."""


class Told(NamedTuple):
    """A recording's entry in a table or text file, and its location."""

    text: str
    speaker: str
    where: str
    row: int | None


class Aside(NamedTuple):
    """An exclusion: a file of the folder, its row if it is a table, and the reason."""

    file: str
    row: int | None
    reason: str


class Recording(NamedTuple):
    """An audio file, relative to the folder. `text` is None if unknown."""

    file: str
    speaker: str
    text: str | None


class Found(NamedTuple):
    """The recordings of a folder, sorted by name, and the exclusions so far."""

    recordings: list[Recording]
    aside: list[Aside]
    table: str | None


def find(folder: Path, *, one_speaker: bool) -> Found:
    """List the recordings of a folder and its subfolders. Raises IngestError if there is none.

    The speaker is the table's, else the subfolder directly below `folder` if there are several, else the one voice.
    """
    if not folder.is_dir():
        raise IngestError(f"{folder} is not a folder; pass the folder of the recordings")
    files = [path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file()]
    sounds = [file.as_posix() for file in files if file.suffix.lower() in SUFFIXES]
    if not sounds:
        kinds = ", ".join(sorted(suffix[1:] for suffix in SUFFIXES))
        raise IngestError(f"{folder} contains no recordings; supported formats: {kinds}")
    tables = [file for file in files if file.suffix.lower() in TABLES and len(file.parts) == 1]
    table = next((file for file in tables if file.stem == "metadata"), tables[0] if len(tables) == 1 else None)
    entries, aside = ({}, []) if table is None else _read_table(folder / table, sounds)
    folders = {Path(sound).parts[0] for sound in sounds if "/" in sound}
    recordings = []
    for sound in sounds:
        known = entries.get(sound) or _beside(folder, sound)
        text, problem = _words(known)
        if problem and known:
            aside.append(Aside(known.where, known.row, f"its text only: {problem}"))
        speaker = (known.speaker if known else "") or (
            Path(sound).parts[0] if len(folders) > 1 and "/" in sound else ""
        )
        recordings.append(Recording(sound, "one" if one_speaker or not speaker else speaker, text))
    return Found(recordings, aside, None if table is None else str(table))


def _words(known: Told | None) -> tuple[str | None, str | None]:
    """Return the words of a text as the ASR model learns them, or why they cannot be known."""
    if known is None or not known.text.strip():
        return None, None
    spoken = " ".join(words(known.text))
    if any(character.isdigit() for character in spoken):
        return None, "digits can be spoken in several ways; write them as words"
    return (spoken, None) if spoken else (None, "no word in the text")


def _beside(folder: Path, sound: str) -> Told | None:
    file = (folder / sound).with_suffix(".txt")
    if not file.is_file():
        return None
    where = file.relative_to(folder).as_posix()
    try:
        return Told(" ".join("".join(text_lines(file)).split()), "", where, None)
    except EncodingError as error:
        raise IngestError(f"{where}: {error}") from error


def _read_table(table: Path, sounds: list[str]) -> tuple[dict[str, Told], list[Aside]]:
    """Return the entries of a table by file, and its rows without a file or with a repeated one."""
    names = Counter(name for sound in sounds for name in _names(sound))
    by_name = {name: sound for sound in sounds for name in _names(sound) if names[name] == 1}
    entries: dict[str, Told] = {}
    aside = []
    try:
        for row, file, known in _rows(table):
            name = file.removeprefix("./")
            sound = by_name.get(name)
            if sound is None:
                reason = "several recordings have this name" if name in names else "no recording has this name"
                aside.append(Aside(table.name, row, reason))
            elif sound in entries:
                aside.append(Aside(table.name, row, f"{sound} is also in an earlier row"))
            else:
                entries[sound] = known
    except (EncodingError, csv.Error, json.JSONDecodeError) as error:
        raise IngestError(f"{table}: {error}") from error
    return entries, aside


def _names(sound: str) -> set[str]:
    """Return the names of a file that a table may use: its path or its name, with or without suffix."""
    path = Path(sound)
    return {sound, path.with_suffix("").as_posix(), path.name, path.stem}


def _rows(table: Path) -> Iterator[tuple[int, str, Told]]:
    """Yield row, file and entry: jsonl, columns by their names, or LJSpeech's `id|text|text`."""
    for row, values in _mappings(table):
        file, text, speaker = (next((values[key] for key in keys if values.get(key)), "") for keys in COLUMNS)
        if not file:
            kinds = ", ".join(COLUMNS[0])
            raise IngestError(f"{table}:{row} names no file: {', '.join(values)} given, one of {kinds} needed")
        yield row, file, Told(text, speaker, table.name, row)


def _mappings(table: Path) -> Iterator[tuple[int, Mapping[str, str]]]:
    lines = text_lines(table)
    if table.suffix == ".jsonl":
        for row, line in enumerate(lines, 1):
            if line.strip():
                yield row, {str(key): str(value or "") for key, value in json.loads(line).items()}
        return
    first = next(lines, "")
    bars = "|" in first and not {*FILE} & {*first.strip().split("|")}
    delimiter = "\t" if table.suffix == ".tsv" else next((mark for mark in "|;\t" if mark in first), ",")
    quoted = "\x00" if delimiter in "|\t" else '"'  # LJSpeech's and Common Voice's quotation marks are part of the text
    reader = csv.reader(chain([first], lines), delimiter=delimiter, quotechar=quoted)
    header = ["id", "text", "normalized_text"] if bars else next(reader, [])
    for values in reader:
        if values:
            yield reader.line_num, dict(zip(header, values, strict=False))
