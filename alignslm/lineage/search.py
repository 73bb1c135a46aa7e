"""Find the rows that an id names, in any round or system."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import polars as pl

from alignslm import tables
from alignslm.artifacts import Artifacts
from alignslm.config.experiment import Experiment
from alignslm.lineage.chain import Chain, Location, chain_of


class LineageError(ValueError):
    """An id is unknown, or has no audio."""


class Speech(NamedTuple):
    """Encoded audio (FLAC) of one continuation and its sample rate."""

    data: bytes
    sample_rate_hz: int


def trace(identity: str, folder: Path, experiment: Experiment) -> dict[str, Chain]:
    """Return the chains of a pair id (keys `chosen` and `rejected`) or of a continuation id.

    Systems that share a model and a seed share continuations: then there is one chain per system, by its name. Raises
    LineageError if nothing in `folder` (artifacts/) has the id.
    """
    places = list(_places(folder))
    for name, path in _rounds(folder, "pairs"):
        sides = tables.read(tables.PAIRS, path, ["pair_id", "chosen_id", "rejected_id"])
        found = sides.filter(pl.col("pair_id") == identity)
        if len(found):
            drawn = [place for place in places if (place.kind, place.name) == ("round", name)]
            if not drawn:
                raise LineageError(
                    f"pair {identity!r} was imported, not sampled; its lineage ends at {path} "
                    f"(`imported_preferences.{name}` in params.yaml)."
                )
            (place,) = drawn
            row = found.row(0, named=True)
            return {side: chain_of(row[f"{side}_id"], place, folder, experiment) for side in ("chosen", "rejected")}
    chains = {
        place.name: chain_of(identity, place, folder, experiment)
        for place in places
        if identity in set(tables.read(tables.CONTINUATIONS, place.table, ["continuation_id"])["continuation_id"])
    }
    if not chains:
        raise LineageError(
            f"no pair or continuation in {folder} has the id {identity!r}{_where_ids_are(places, folder)}"
        )
    return chains


def _where_ids_are(places: list[Location], folder: Path) -> str:
    """Return where was looked, and commands that list ids there."""
    if not places:
        return ": nothing was sampled yet. Run `dvc repro`."
    at = "" if folder.parent == Path() else f" -C {folder.parent}"
    commands = [f"`alignslm show pairs {name} -c pair_id{at}`" for name, _ in list(_rounds(folder, "pairs"))[:1]]
    words = " ".join(places[0].table.relative_to(folder).with_suffix("").parts)
    commands.append(f"`alignslm show {words} -c continuation_id{at}`")
    return f" (looked in: {', '.join(place.name for place in places)}). To list ids: {', '.join(commands)}."


def _rounds(folder: Path, kind: str) -> Iterator[tuple[str, Path]]:
    for path in sorted((folder / kind).glob("[!.]*.parquet")):
        yield path.stem, path


def _places(folder: Path) -> Iterator[Location]:
    made = Artifacts(folder)
    for name, path in _rounds(folder, "continuations"):
        yield Location("round", name, path, made.speech(name), made.table("transcripts", name))
    for path in sorted(made.samples.glob("*/continuations.parquet")):
        sample = made.sample(path.parent.name)
        yield Location("system", path.parent.name, path, sample.speech, sample.transcripts)
    for path in sorted(made.checkpoints.glob("*/rollouts/continuations.parquet")):
        heard = path.with_name("transcripts.parquet")
        yield Location("online", path.parts[-3], path, path.with_name("speech"), heard)  # no sound is kept


def speech_of(chain: Chain) -> Speech:
    """Return the continuation's audio. Raises LineageError if it was not synthesized yet, or is empty."""
    path = chain.place.speech
    if chain.place.kind == "online":
        raise LineageError(
            f"{chain.continuation_id} was drawn in online training, which keeps no sound, only what was heard"
        )
    for part in tables.iterate(tables.SPEECH, path, ["continuation_id", "audio", "sample_rate_hz"]):
        found = part.filter(pl.col("continuation_id") == chain.continuation_id)
        if len(found) and (data := found["audio"][0]["bytes"]):
            return Speech(data, found["sample_rate_hz"][0])
    raise LineageError(f"{path} has no audio of {chain.continuation_id}: it is empty, or not synthesized yet")
