"""Write a corpus from a folder of recordings: audio, metadata.csv, the table of exclusions, and the experiment."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from alignslm import audio
from alignslm.config.document import Plain
from alignslm.ingest import numbers
from alignslm.ingest.finding import Aside, Found, IngestError, Recording, find
from alignslm.ingest.sound import SoundError, prepared
from alignslm.ingest.splits import split_groups
from alignslm.load import load_asr
from alignslm.metrics import words
from alignslm.outside import differing
from alignslm.progress import track
from alignslm.provenance import content_id
from alignslm.storage import replacing_folder, write_bytes, write_text

RECORD, ASIDE = "ingest.json", "set-aside.csv"


class Asked(NamedTuple):
    """The user's options for a folder of recordings."""

    folder: Path
    name: str
    sample_rate_hz: int
    one_speaker: bool
    asr: str | None
    judge: str | None


class Utterance(NamedTuple):
    """One file of the corpus, (samples,) already written."""

    file_name: str
    recording: str
    speaker_id: str
    text: str | None
    seconds: float


class Ingested(NamedTuple):
    """What became of a folder: `changes` against an earlier time, None if this is the first."""

    rows: pl.DataFrame
    aside: list[Aside]
    found: Found
    by: str
    changes: list[str] | None
    written: list[Path]


def ingest(asked: Asked, root: Path) -> Ingested | None:
    """Write root/ingested/NAME and the experiment that reads it; return None if nothing has changed since.

    The recordings are only read. The corpus is written as a whole or not at all. Raises IngestError if there is
    nothing to read or the name is taken, TooLittleError if there is too little speech.
    """
    found = find(asked.folder, one_speaker=asked.one_speaker)
    place = root / "ingested" / asked.name
    record = _record(asked)
    known = place / RECORD
    before = json.loads(known.read_text(encoding="utf-8")) if known.is_file() else None
    preset = root / "experiments" / "preset" / f"{asked.name}.yaml"
    if before == record and preset.is_file():
        return None
    taken = sorted((root / "experiments").glob(f"*/{asked.name}.yaml"))
    if before is None and taken:
        raise IngestError(f"{taken[0]} already exists; choose another --name")
    aside = list(found.aside)
    with replacing_folder(place) as partial:
        utterances = list(_utterances(asked, found.recordings, partial, aside, root))
        rows, by = _table(utterances)
        choices = numbers.choices(
            rows, asked.name, place, sample_rate_hz=asked.sample_rate_hz, several=by == "speakers"
        )
        values = numbers.preset(rows, asked.name, asr=asked.asr, judge=asked.judge)
        listed = rows.select("file_name", pl.col("split").alias("subset"), "speaker_id", "text")
        write_text(partial / "metadata.csv", listed.write_csv())
        write_text(partial / ASIDE, pl.DataFrame(aside, schema=list(Aside._fields), orient="row").write_csv())
        write_text(partial / ".gitignore", "*\n")
        write_text(partial / RECORD, json.dumps(record, indent=1) + "\n")
    head = f"# Written by `alignslm ingest` for {asked.name}, from the amount of speech.\n"
    written = [numbers.write_choice(choice, root, head) for choice in choices]
    minutes = rows["seconds"].sum() / 60
    numbers.write_preset(preset, f"{minutes:.0f} minutes of {asked.folder.name}; small models, two CPU cores", values)
    return Ingested(rows, aside, found, by, None if before is None else _changes(before, record), [preset, *written])


def _record(asked: Asked) -> dict[str, Plain]:
    """Return the inputs of the corpus: the options, and size and modification time of every file."""
    files = [path for path in sorted(asked.folder.rglob("*")) if path.is_file()]
    stats = {path.relative_to(asked.folder).as_posix(): path.stat() for path in files}
    seen: dict[str, Plain] = {name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()}
    options: dict[str, Plain] = {**asked._asdict(), "folder": asked.folder.resolve().as_posix()}
    return {"options": options, "files": seen}


def _changes(before: dict[str, Plain], now: dict[str, Plain]) -> list[str]:
    """Return the differences from a former ingest of the folder."""
    old, new = (dict(record["files"]) for record in (before, now))  # type: ignore[arg-type]
    named = zip(("new", "gone", "changed"), differing(old, new), strict=True)
    listed = [f"{len(names)} {what}" for what, names in named if names]
    return listed + (["other options"] if before["options"] != now["options"] else [])


def _table(utterances: Sequence[Utterance]) -> tuple[pl.DataFrame, str]:
    """Return utterances with their splits, and what the splits separate."""
    split = split_groups(
        {each.file_name: each.speaker_id for each in utterances},
        {each.file_name: each.recording for each in utterances},
        {each.file_name: each.seconds for each in utterances},
    )
    frame = pl.DataFrame(utterances, schema=_SCHEMA, orient="row")
    return frame.with_columns(split=pl.col("file_name").replace_strict(split.of, return_dtype=pl.String)), split.by


_SCHEMA = {
    "file_name": pl.String,
    "recording": pl.String,
    "speaker_id": pl.String,
    "text": pl.String,
    "seconds": pl.Float64,
}


def _utterances(
    asked: Asked, recordings: Sequence[Recording], place: Path, aside: list[Aside], root: Path
) -> Iterator[Utterance]:
    """Write the audio of every recording and yield what was written; add the rest to `aside`."""
    seen: dict[bytes, str] = {}
    hear = _transcriber(asked, root)
    for recording in track(recordings, total=len(recordings), label="reading"):
        try:
            parts = _new_parts(asked, recording, seen)
        except SoundError as error:
            aside.append(Aside(recording.file, None, str(error)))
            continue
        text = recording.text
        if len(parts) > 1 and text is not None:
            text = None
            aside.append(Aside(recording.file, None, f"its text only: it was cut into {len(parts)} pieces"))
        stem = f"{Path(recording.file).stem}-{content_id('ingest', recording.file)[:6]}"
        for number, part in enumerate(parts):
            file_name = f"{stem}-{number}.flac" if len(parts) > 1 else f"{stem}.flac"
            write_bytes(place / file_name, audio.encode_flac(part, asked.sample_rate_hz))
            seconds = len(part) / asked.sample_rate_hz
            yield Utterance(file_name, recording.file, recording.speaker, text or hear(part), seconds)


def _new_parts(asked: Asked, recording: Recording, seen: dict[bytes, str]) -> list[np.ndarray]:
    parts = prepared(asked.folder / recording.file, asked.sample_rate_hz)
    digest = hashlib.blake2b(b"".join(part.tobytes() for part in parts), digest_size=16).digest()
    first = seen.setdefault(digest, recording.file)
    if first != recording.file:
        raise SoundError(f"the same sound as {first}")
    return parts


def _transcriber(asked: Asked, root: Path) -> Callable[[np.ndarray], str | None]:
    """Return the ASR model for speech without a text, if one was chosen."""
    if asked.asr is None:
        return lambda _: None
    model = load_asr(root / "experiments" / "asr" / f"{asked.asr}.yaml")

    def hear(waveform: np.ndarray) -> str | None:
        at_rate = audio.resample(waveform, from_hz=asked.sample_rate_hz, to_hz=model.sample_rate_hz)
        return " ".join(words(model.transcribe([at_rate])[0].text or "")) or None

    return hear
