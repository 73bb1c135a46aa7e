"""Word times from published alignments, so that a prompt can end where a word ends.

Two formats, found in one folder and recognized by file name:
* `UTTERANCE.TextGrid` (Praat's text form, long or short, as the Montreal aligner writes): intervals of a tier `words`;
* `*.alignment.txt`, one utterance per line: its id, "WORD,,WORD" and "0.49,0.89,1.27": where each word, or the silence
  that an empty word stands for, ends.
"""

import re
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import polars as pl

from alignslm.config.sources import FolderSource
from alignslm.corpora.index import CorpusError
from alignslm.fetching import expanded
from alignslm.listing import EncodingError, text_lines
from alignslm.user_errors import Problem

ALIGNED_LINE = re.compile(r'(\S+)\s+"([^"]*)"\s+"([^"]*)"\s*')
TOKEN = re.compile(r'"(?:[^"]|"")*"|[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?(?=[\s:;]|$)')
UNKNOWN = ("<unk>", "<oov>", "[unk]")  # written by aligners for a word that is not in their lexicon


class Word(NamedTuple):
    """A spoken word and the time it ends."""

    text: str
    end_s: float


def with_word_ends(index: pl.DataFrame, part: str, source: FolderSource | None) -> tuple[pl.DataFrame, list[Problem]]:
    """Fill word_ends_s for the utterances of a part: one time per word of the text.

    Null if no alignment is published, or its words differ from the transcript's; such an utterance cannot be cut
    by word. A file that cannot be read is a problem.
    """
    if source is None:
        return index, []
    root = expanded(source)
    if not root.is_dir():
        return index, [Problem(f"alignments of part {part} are not there", str(root))]
    texts = dict(index.filter(pl.col("part") == part).select("utterance_id", "text").drop_nulls().iter_rows())
    ends, problems = _read(root, texts)
    known = pl.DataFrame(
        {"utterance_id": list(ends), "part": [part] * len(ends), "found": list(ends.values())},
        schema={"utterance_id": pl.String, "part": pl.String, "found": pl.List(pl.Float64)},
    )
    joined = index.join(known, on=["utterance_id", "part"], how="left", maintain_order="left")
    return joined.with_columns(word_ends_s=pl.coalesce("found", "word_ends_s")).drop("found"), problems


def _read(root: Path, texts: Mapping[str, str]) -> tuple[dict[str, list[float]], list[Problem]]:
    ends: dict[str, list[float]] = {}
    problems: list[Problem] = []
    for file in sorted(root.rglob("*")):
        try:
            for name, words in _words_of(file):
                key = name if name in texts else file.relative_to(root).with_name(name).as_posix()
                if key in texts and _same([word.text for word in words], texts[key].split()):
                    ends[key] = [word.end_s for word in words]
        except (CorpusError, EncodingError) as error:
            problems.append(Problem(f"unreadable alignment ({error})", file.relative_to(root).as_posix()))
    return ends, problems


def _words_of(file: Path) -> Iterator[tuple[str, list[Word]]]:
    """Yield (utterance id, words) of a file; nothing for a file of another kind."""
    if file.name.endswith(".TextGrid"):
        yield file.name.removesuffix(".TextGrid"), text_grid_words("".join(text_lines(file)))
    elif file.name.endswith(".alignment.txt"):
        for number, line in enumerate(text_lines(file), 1):
            if line.strip():
                yield aligned_line(line.strip(), number)


def aligned_line(line: str, number: int) -> tuple[str, list[Word]]:
    """Return utterance id and words of one line of an .alignment.txt."""
    parts = ALIGNED_LINE.fullmatch(line)
    if parts is None:
        raise CorpusError(f'line {number} is not: id "WORD,,WORD" "0.5,0.6,1.2"')
    words, times = parts[2].split(","), parts[3].split(",")
    if len(words) != len(times):
        raise CorpusError(f"line {number} has {len(words)} words and {len(times)} times")
    try:
        ends = [float(time) for time in times]
    except ValueError as error:
        raise CorpusError(f"line {number}: {error}") from error
    return parts[1], _rising([Word(word, end) for word, end in zip(words, ends, strict=True) if word.strip()])


def text_grid_words(text: str) -> list[Word]:
    """Return the labelled intervals of a TextGrid's tier `words`.

    The text form is a stream of quoted texts and numbers, with words between them in its long form: name of
    the tier, start, end, count, then start, end and label of every interval.
    """
    tokens = [token[0] for token in TOKEN.finditer(_without_indices(text))]
    starts = [at for at in range(1, len(tokens)) if tokens[at - 1 : at + 1] == ['"IntervalTier"', '"words"']]
    if not starts:
        raise CorpusError("no interval tier named words")
    try:
        at, count = starts[0] + 4, int(tokens[starts[0] + 3])
        intervals = [tokens[at + 3 * number : at + 3 * number + 3] for number in range(count)]
        words = [Word(label[1:-1].replace('""', '"'), float(end)) for _, end, label in intervals]
    except ValueError as error:
        raise CorpusError(f"tier words ends early or has no intervals ({error})") from error
    return _rising([word for word in words if word.text.strip()])


def _without_indices(text: str) -> str:
    """Drop the indices of the long form in brackets, `intervals [3]:`, outside quoted texts."""
    pieces = re.split(r'("(?:[^"]|"")*")', text)
    return "".join(piece if piece.startswith('"') else re.sub(r"\[\d*\]", "", piece) for piece in pieces)


def _rising(words: list[Word]) -> list[Word]:
    if any(after.end_s < before.end_s for before, after in pairwise(words)):
        raise CorpusError("word times do not rise")
    return words


def _same(aligned: list[str], transcribed: list[str]) -> bool:
    """Return whether the aligned words are the transcript's; unknown ones match any word."""
    return len(aligned) == len(transcribed) and all(
        word.lower() in {expected, *UNKNOWN} for word, expected in zip(aligned, transcribed, strict=True)
    )
