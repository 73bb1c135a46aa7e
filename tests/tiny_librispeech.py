"""A small LibriSpeech (or MLS, or parquet of the Hub's form) on disk: real speech in the official layout.

    root = write_librispeech(tmp_path / "LibriSpeech", {"train-clean-100": 12, "dev-clean": 4, "test-clean": 4})

Stories of the story world are spoken by espeak-ng; every two utterances make a chapter, every chapter another speaker.
"""

import csv
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from alignslm.config.corpora import LibriSpeechPart, Limits, Recordings, Subsets
from alignslm.config.sources import FolderSource
from alignslm.storyworld.grammar import draw_story
from alignslm.storyworld.narration import synthesize_stories

RATE_HZ = 16000
ALL = Limits(train=None, valid=None, dev=None, test=None)
SPLITS = {"train": ("train-clean-100",), "valid": ("dev-clean",), "dev": (), "test": ("test-clean",)}
COUNTS = {"train-clean-100": 6, "dev-clean": 2, "test-clean": 2}


class Spoken(NamedTuple):
    subset: str
    speaker: str
    chapter: str
    number: int
    text: str
    flac: bytes
    num_samples: int

    @property
    def name(self) -> str:
        return f"{self.speaker}-{self.chapter}-{self.number:04d}"

    @property
    def word_ends_s(self) -> list[float]:
        """Evenly spread word ends: times of the right form, not times that anybody measured."""
        words = self.text.split()
        return [round((at + 1) * self.num_samples / RATE_HZ / len(words), 3) for at in range(len(words))]


@lru_cache(maxsize=256)
def _story(number: int) -> tuple[str, bytes, int]:
    story = draw_story(np.random.default_rng(number), part="train")
    sentences = (story.prompt, *story.continuation)
    told = synthesize_stories([sentences], voice="en-us", words_per_minute=180, sample_rate_hz=RATE_HZ)[0]
    return " ".join(sentences), told.flac, told.num_samples


def spoken(counts: Mapping[str, int], *, first_speaker: int = 100) -> Iterator[Spoken]:
    """Yield utterances of every subset; the n-th is the same story whatever the layout, but for the first speaker."""
    number = 0
    for subset, count in counts.items():
        for at in range(count):
            speaker = str(first_speaker + number // 2)
            yield Spoken(subset, speaker, f"{200 + number // 2}", at % 2, *_story(100 * first_speaker + number))
            number += 1
        number += number % 2  # a speaker never crosses subsets


def write_librispeech(root: Path, counts: Mapping[str, int], *, first_speaker: int = 100) -> Path:
    """Write SUBSET/SPEAKER/CHAPTER/*.flac and *.trans.txt (upper case, as published) and return root."""
    for one in spoken(counts, first_speaker=first_speaker):
        folder = root / one.subset / one.speaker / one.chapter
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{one.name}.flac").write_bytes(one.flac)
        with (folder / f"{one.speaker}-{one.chapter}.trans.txt").open("a", encoding="utf-8") as stream:
            stream.write(f"{one.name} {one.text.upper()}\n")
    return root


def write_mls(root: Path, counts: Mapping[str, int], *, first_speaker: int = 900) -> Path:
    """Write SUBSET/audio/SPEAKER/BOOK/*.flac, transcripts.txt and segments.txt and return root."""
    for one in spoken(counts, first_speaker=first_speaker):
        name = f"{one.speaker}_{one.chapter}_{one.number:06d}"
        folder = root / one.subset / "audio" / one.speaker / one.chapter
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.flac").write_bytes(one.flac)
        with (root / one.subset / "transcripts.txt").open("a", encoding="utf-8") as stream:
            stream.write(f"{name}\t{one.text}\n")
        with (root / one.subset / "segments.txt").open("a", encoding="utf-8") as stream:
            stream.write(f"{name}\thttp://archive.example.org/{one.chapter}.mp3\t0.0\t{one.num_samples / RATE_HZ}\n")
    return root


def write_listed(root: Path, counts: Mapping[str, int]) -> Path:
    """Write audio files and their metadata.csv and return root."""
    (root / "audio").mkdir(parents=True)
    with (root / "metadata.csv").open("w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["file_name", "subset", "speaker_id", "text"])
        for one in spoken(counts):
            (root / "audio" / f"{one.name}.flac").write_bytes(one.flac)
            table.writerow([f"audio/{one.name}.flac", one.subset, one.speaker, one.text])
    return root


def write_parquet(root: Path, counts: Mapping[str, int], *, row_group_size: int = 3) -> Path:
    """Write all/SUBSET/0000.parquet with the columns of openslr/librispeech_asr, rows backwards, and return root."""
    for subset in counts:
        rows = [one for one in spoken(counts) if one.subset == subset][::-1]
        frame = pl.DataFrame(
            {
                "file": [f"{one.name}.flac" for one in rows],
                "audio": [{"bytes": one.flac, "path": f"{one.name}.flac"} for one in rows],
                "text": [one.text.upper() for one in rows],
                "speaker_id": [int(one.speaker) for one in rows],
                "chapter_id": [int(one.chapter) for one in rows],
                "id": [one.name for one in rows],
            }
        )
        path = root / "all" / subset / "0000.parquet"
        path.parent.mkdir(parents=True)
        frame.write_parquet(path, row_group_size=row_group_size)
    return root


def write_alignments(root: Path, counts: Mapping[str, int]) -> Path:
    """Write SUBSET/SPEAKER/CHAPTER/SPEAKER-CHAPTER.alignment.txt, a silence before every utterance, and return root."""
    for one in spoken(counts):
        folder = root / one.subset / one.speaker / one.chapter
        folder.mkdir(parents=True, exist_ok=True)
        words, ends = ",".join(["", *one.text.upper().split()]), ",".join(map(str, [0.01, *one.word_ends_s]))
        with (folder / f"{one.speaker}-{one.chapter}.alignment.txt").open("a", encoding="utf-8") as stream:
            stream.write(f'{one.name} "{words}" "{ends}"\n')
    return root


def text_grid(one: Spoken) -> str:
    """Return the long form of a TextGrid with a tier of words and one of phones, as the Montreal aligner writes it."""
    edges = [0.0, *one.word_ends_s]
    words = zip(edges, edges[1:], one.text.split(), strict=False)
    intervals = [(0.0, 0.0, ""), *words]
    length = one.num_samples / RATE_HZ
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', "", "xmin = 0", f"xmax = {length}"]
    lines += ["tiers? <exists>", "size = 2", "item []:"]
    for number, (tier, those) in enumerate([("words", intervals), ("phones", [(0.0, length, "sil")])], 1):
        lines += [f"    item [{number}]:", '        class = "IntervalTier"', f'        name = "{tier}"']
        lines += ["        xmin = 0", f"        xmax = {length}", f"        intervals: size = {len(those)}"]
        for at, (start, end, label) in enumerate(those, 1):
            lines += [f"        intervals [{at}]:", f"            xmin = {start}", f"            xmax = {end}"]
            lines += [f'            text = "{label}"']
    return "\n".join(lines) + "\n"


def recordings(root: Path, **changes: object) -> Recordings:
    """Return the choice of a LibriSpeech under root with the subsets of COUNTS; `changes` replace its fields."""
    part = LibriSpeechPart(
        kind="librispeech",
        source=FolderSource(kind="folder", path=str(root)),
        subsets=Subsets(**SPLITS),
        max_utterances=ALL,
        alignments=None,
    )
    fields: dict[str, object] = {
        "kind": "recordings",
        "sample_rate_hz": RATE_HZ,
        "max_duration_s": 40.0,
        "overlapping_speakers": "error",
        "exclude_ids": (),
        "num_texts": 1000,
        "num_prompt_words": 4,
        "content_sha256": None,
        "parts": {"librispeech": part},
    }
    return Recordings.model_validate(fields | changes)
