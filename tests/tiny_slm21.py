"""A small sLM21-dataset in the official layout, spoken by espeak: several voices, every frequency band, odd words."""

import csv
from pathlib import Path

import numpy as np
import soundfile

from alignslm.provenance import content_id
from alignslm.storyworld.espeak import synthesize

VOICES = ("en-us", "en-us+f3", "de")
RATE_HZ = 16000
LEXICAL = ("filename", "id", "voice", "frequency", "word", "phones", "length", "correct")
SYNTACTIC = ("filename", "id", "voice", "type", "subtype", "transcription", "correct")

# word, non-word, frequency: every band, both edges of the half-open ones, and what pandas reads as missing
WORDS = [
    ("null", "nall", 0),
    ("nan", "nen", 1),
    ("boat", "bope", 4),
    ("river", "rimer", 5),
    ("garden", "garben", 19),
    ("window", "wendow", 20),
    ("apple", "ipple", 99),
    ("house", "houke", 100),
    ("water", "wader", 5000),
    ("zyzzy", "zizzo", 0),
]
SENTENCES = [
    ("agreement", "number", "the cats sleep", "the cats sleeps"),
    ("agreement", "number", "a dog runs", "a dog run"),
    ("agreement", "gender", "mary saw herself", "mary saw himself"),
    ("order", "adjective", "a small red boat", "a boat small red"),
    ("order", "determiner", "the old house", "old the house"),
]


def spoken(text: str, voice: str) -> np.ndarray:
    return synthesize(text, voice=voice, words_per_minute=200, sample_rate_hz=RATE_HZ)


def name_of(*parts: object) -> str:
    """Return a name that tells nothing, as in the release."""
    return content_id("tiny-slm21", *parts)[:11]


def tiny_slm21(root: Path, *, voices=VOICES, splits=("dev",)) -> Path:
    """Write lexical/SPLIT and syntactic/SPLIT with wavs and gold.csv; return `root`."""
    for split in splits:
        _write(root / "lexical" / split, LEXICAL, list(_lexical(split, voices)))
        _write(root / "syntactic" / split, SYNTACTIC, list(_syntactic(split, voices)))
    return root


def _lexical(split, voices):
    for number, (word, nonword, frequency) in enumerate(WORDS):
        for voice in voices:
            for correct, text in ((1, word), (0, nonword)):
                known = (frequency, word) if correct else ("", "")  # non-words have phones alone
                row = (
                    name_of(split, number, voice, correct),
                    number,
                    voice,
                    *known,
                    " ".join(text),
                    len(text),
                    correct,
                )
                yield text, row


def _syntactic(split, voices):
    for number, (kind, subtype, right, wrong) in enumerate(SENTENCES):
        for voice in voices:
            for correct, text in ((1, right), (0, wrong)):
                name = name_of(split, "syntactic", number, voice, correct)
                yield text, (name, number, voice, kind, subtype, text, correct)


def _write(folder: Path, columns, rows) -> None:
    folder.mkdir(parents=True)
    for text, row in rows:
        soundfile.write(folder / f"{row[0]}.wav", spoken(text, row[2]), RATE_HZ, subtype="PCM_16")
    write_gold(folder, columns, [row for _, row in rows])


def read_gold(folder: Path) -> list[dict[str, str]]:
    with (folder / "gold.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def write_gold(folder: Path, columns, rows) -> None:
    with (folder / "gold.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns)
        writer.writerows(row.values() if isinstance(row, dict) else row for row in rows)
