"""Corpora as folders of audio files: LibriSpeech and MLS as published, and any folder with a metadata.csv."""

import csv
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath

import polars as pl

from alignslm.config.corpora import SPLITS, LibriSpeechPart, ListedPart, MlsPart, ParquetPart, SplitName
from alignslm.corpora.index import INDEX, lowest_hashes, spoken
from alignslm.fetching import expanded
from alignslm.listing import EncodingError, Listing, index_frame, named_file, text_lines
from alignslm.user_errors import Problem

Row = Mapping[str, object]
TABLE = "metadata.csv"
COLUMNS = ("file_name", "subset", "speaker_id", "text")
MLS_NAME = re.compile(r"(\d+)_(\d+)_\d+")
MLS_SUFFIXES = (".flac", ".opus")  # MLS is published in both


def list_subsets(
    part: LibriSpeechPart | MlsPart | ListedPart | ParquetPart,
    name: str,
    root: Path,
    list_subset: Callable[[str, SplitName], Listing],
) -> Listing:
    """Join the lists of all subsets of a part called `name`; problems are placed below that name."""
    found = [(split, list_subset(subset, split)) for split in SPLITS for subset in part.subsets.of(split)]
    rows = [item.rows.with_columns(split=pl.lit(split), part=pl.lit(name)) for split, item in found]
    problems = [Problem(kind, f"{name}/{where}") for _, item in found for kind, where in item.problems]
    return Listing(
        pl.concat([index_frame([], INDEX), *rows]), root, problems, sum(item.over_limit for _, item in found)
    )


def find_librispeech(part: LibriSpeechPart, name: str) -> Listing:
    """List LibriSpeech: SUBSET/SPEAKER/CHAPTER/SPEAKER-CHAPTER-NUMBER.flac, texts in SPEAKER-CHAPTER.trans.txt."""
    root = expanded(part.source)

    def list_subset(subset: str, _: SplitName) -> Listing:
        if not (root / subset).is_dir():
            return Listing(index_frame([], INDEX), root, [Problem(f"no such subset below {root}", subset)])
        # Sorted, because the order of a file system is not an order.
        chapters = [_chapter(path, root) for path in sorted((root / subset).glob("*/*")) if path.is_dir()]
        rows = index_frame((row for rows, _ in chapters for row in rows), INDEX)
        return Listing(rows, root, [problem for _, problems in chapters for problem in problems])

    return list_subsets(part, name, root, list_subset)


def _chapter(folder: Path, root: Path) -> tuple[list[Row], list[Problem]]:
    below = folder.relative_to(root)
    speaker, chapter = folder.parts[-2:]
    transcripts = folder / f"{speaker}-{chapter}.trans.txt"
    texts: dict[str, str] = {}
    problems: list[Problem] = []
    try:
        for number, name, text in _lines(transcripts, " ") if transcripts.is_file() else ():
            if not text or name in texts:
                kind = "transcript repeats an utterance" if text else "transcript line without text"
                problems.append(Problem(kind, f"{below}/{transcripts.name}:{number}"))
            texts.setdefault(name, text)
    except EncodingError as error:
        return [], [Problem(str(error), f"{below}/{transcripts.name}")]
    audio = sorted(file.stem for file in folder.glob("*.flac"))
    rows: list[Row] = [
        {"utterance_id": name, "speaker_id": speaker, "text": spoken(texts[name]), "file": f"{below}/{name}.flac"}
        for name in audio
        if name in texts
    ]
    wrong = {
        "no transcript": set(audio) - texts.keys(),
        "no audio": texts.keys() - set(audio),
        "file name is not SPEAKER-CHAPTER-NUMBER of its folder": {
            name for name in audio if not name.startswith(f"{speaker}-{chapter}-")
        },
    }
    return rows, problems + [Problem(kind, f"{below}/{name}.flac") for kind, names in wrong.items() for name in names]


def _lines(path: Path, separator: str) -> Iterator[tuple[int, str, str]]:
    """Yield (line number, id, text) of a file; a line without separator has an empty text. Raises EncodingError."""
    for number, line in enumerate(text_lines(path), 1):
        name, _, text = line.strip().partition(separator)
        if name:
            yield number, name, text.strip()


def find_mls(part: MlsPart, name: str) -> Listing:
    """List a language of MLS: SUBSET/transcripts.txt and SUBSET/audio/SPEAKER/BOOK/SPEAKER_BOOK_NUMBER.*.

    English has 10.8 million utterances, so a limited split is chosen while its transcripts are read, and only what
    was chosen is held in memory and looked for.
    """
    root = expanded(part.source)
    return list_subsets(
        part, name, root, lambda subset, split: _mls_subset(root, subset, limit=part.max_utterances.of(split))
    )


def _mls_subset(root: Path, subset: str, *, limit: int | None) -> Listing:
    transcripts = root / subset / "transcripts.txt"
    if not transcripts.is_file():
        problem = Problem(f"no such subset, or no transcripts.txt in it, below {root}", subset)
        return Listing(index_frame([], INDEX), root, [problem])
    try:
        return _mls_lines(root, subset, transcripts, limit=limit)
    except EncodingError as error:
        return Listing(index_frame([], INDEX), root, [Problem(str(error), f"{subset}/{transcripts.name}")])


def _mls_lines(root: Path, subset: str, transcripts: Path, *, limit: int | None) -> Listing:
    chosen = None if limit is None else set(lowest_hashes((name for _, name, _ in _lines(transcripts, "\t")), limit))
    rows: list[Row] = []
    problems: list[Problem] = []
    over_limit = 0
    for number, name, text in _lines(transcripts, "\t"):
        if chosen is not None and name not in chosen:
            over_limit += 1
            continue
        row = _mls_row(root, subset, name, text)
        if isinstance(row, str):
            problems.append(Problem(row, f"{subset}/transcripts.txt:{number} ({name})"))
        else:
            rows.append(row)
    if limit is None:
        problems += _without_transcript(root, subset, {str(row["utterance_id"]) for row in rows})
    return Listing(index_frame(rows, INDEX), root, problems, over_limit)


def _mls_row(root: Path, subset: str, name: str, text: str) -> Row | str:
    """Return one utterance, or what is wrong with its line."""
    parts = MLS_NAME.fullmatch(name)
    if parts is None:
        return "id is not SPEAKER_BOOK_NUMBER"
    if not text:
        return "transcript line without text"
    folder = Path(subset, "audio", parts[1], parts[2])
    files = [folder / f"{name}{suffix}" for suffix in MLS_SUFFIXES if (root / folder / f"{name}{suffix}").is_file()]
    if not files:
        return "no audio"
    return {"utterance_id": name, "speaker_id": parts[1], "text": spoken(text), "file": files[0].as_posix()}


def _without_transcript(root: Path, subset: str, named: set[str]) -> list[Problem]:
    """Return the audio files that no transcript names. Looked for only if all of a subset is wanted."""
    files = sorted(path for suffix in MLS_SUFFIXES for path in (root / subset / "audio").glob(f"*/*/*{suffix}"))
    return [Problem("no transcript", path.relative_to(root).as_posix()) for path in files if path.stem not in named]


def find_listed(part: ListedPart, name: str) -> Listing:
    """List the rows of metadata.csv with a subset that belongs to a split.

    An utterance's id is its file name without suffix; if several folders have the name, its path without suffix.
    """
    root = expanded(part.source)
    table = root / TABLE
    if not table.is_file():
        problem = Problem(f"no {TABLE} with the columns {', '.join(COLUMNS)}", str(root))
        return Listing(index_frame([], INDEX), root, [problem])
    reader = csv.DictReader(text_lines(table))
    try:
        absent = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
        lines = [] if absent else [(reader.line_num, line) for line in reader]
    except (EncodingError, csv.Error) as error:
        return Listing(index_frame([], INDEX), root, [Problem(str(error), f"{name}/{TABLE}")])
    if absent:
        columns = f"no column {', '.join(absent)}; columns are {', '.join(reader.fieldnames or ())}"
        return Listing(index_frame([], INDEX), root, [Problem(columns, f"{name}/{TABLE}")])
    times = Counter(Path(line["file_name"] or "").stem for _, line in lines)

    def list_subset(subset: str, _: SplitName) -> Listing:
        read = [(number, _listed_row(root, line, times)) for number, line in lines if line["subset"] == subset]
        problems = [Problem(row, f"{TABLE}:{number}") for number, row in read if isinstance(row, str)]
        problems += [] if read else [Problem(f"no such subset in {table}", subset)]
        return Listing(index_frame((row for _, row in read if not isinstance(row, str)), INDEX), root, problems)

    return list_subsets(part, name, root, list_subset)


def _listed_row(root: Path, line: Mapping[str, str | None], times: Mapping[str, int]) -> Row | str:
    """Return one utterance, or what is wrong with its line; `times` says how many files have a name."""
    file, speaker, text = line["file_name"] or "", line["speaker_id"], spoken(line["text"] or "")
    if isinstance(found := named_file(file, root, root=root), str):
        return found
    if not speaker:
        return "no speaker_id"
    path = PurePosixPath(file).with_suffix("")
    utterance_id = path.name if times[path.name] == 1 else path.as_posix()
    return {"utterance_id": utterance_id, "speaker_id": speaker, "text": text or None, "file": file}
