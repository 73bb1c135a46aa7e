"""LibriSpeech as it is published: SUBSET/SPEAKER/CHAPTER/SPEAKER-CHAPTER-NUMBER.flac and SPEAKER-CHAPTER.trans.txt."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from alignslm.config.corpora import SPLITS, LibriSpeechPart
from alignslm.corpora.index import Found, frame, spoken
from alignslm.corpora.transcripts import Lines, read_lines
from alignslm.failures import Problem
from alignslm.fetching import expanded

Row = Mapping[str, object]


def find(part: LibriSpeechPart, name: str) -> Found:
    """List the utterances of the subsets that the part names, sorted, and what is wrong with them."""
    root = expanded(part.source)
    rows: list[Row] = []
    problems: list[Problem] = []
    for split in SPLITS:
        for subset in part.subsets.of(split):
            for chapter in _chapters(root / subset):
                found, wrong = _chapter(chapter, root)
                rows += [{**row, "split": split, "part": name} for row in found]
                problems += [Problem(kind, f"{name}/{where}") for kind, where in wrong]
            if not (root / subset).is_dir():
                problems.append(Problem(f"no such subset below {root}", subset))
    return Found(frame(rows), root, problems)


def _chapters(subset: Path) -> Iterator[Path]:
    """Yield the chapter folders of a subset in order of their names: a file system's own order is no order."""
    if subset.is_dir():
        yield from sorted(path for path in subset.glob("*/*") if path.is_dir())


def _chapter(folder: Path, root: Path) -> tuple[list[Row], list[Problem]]:
    below = folder.relative_to(root)
    speaker, chapter = folder.parts[-2:]
    transcripts = folder / f"{speaker}-{chapter}.trans.txt"
    lines = read_lines(transcripts, " ") if transcripts.is_file() else Lines({}, [])
    audio = {file.stem: file for file in sorted(folder.glob("*.flac"))}
    rows: list[Row] = [
        {"utterance_id": name, "speaker_id": speaker, "text": spoken(lines.texts[name]), "file": f"{below}/{file.name}"}
        for name, file in audio.items()
        if name in lines.texts
    ]
    wrong = [Problem(kind, f"{below}/{transcripts.name}:{number}") for kind, number in lines.faults]
    wrong += [Problem("no transcript", f"{below}/{name}.flac") for name in sorted(audio.keys() - lines.texts.keys())]
    wrong += [Problem("no audio", f"{below}/{name}.flac") for name in sorted(lines.texts.keys() - audio.keys())]
    strange = [name for name in audio if not name.startswith(f"{speaker}-{chapter}-")]
    wrong += [
        Problem("file name is not SPEAKER-CHAPTER-NUMBER of its folder", f"{below}/{name}.flac") for name in strange
    ]
    return rows, wrong
