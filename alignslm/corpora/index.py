"""The list of a corpus's utterances before any audio is read, and what may be wrong with it."""

import heapq
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import polars as pl

from alignslm import listing
from alignslm.config.corpora import SPLITS, Limits
from alignslm.listing import raise_problems
from alignslm.provenance import content_id
from alignslm.user_errors import Problem

INDEX: dict[str, pl.DataType | type[pl.DataType]] = {
    "utterance_id": pl.String,
    "split": pl.String,
    "speaker_id": pl.String,
    "text": pl.String,  # null: not transcribed
    "part": pl.String,
    "file": pl.String,  # below the part's root
    "row": pl.Int64,  # of a parquet file; null: the file is the utterance
    "word_ends_s": pl.List(pl.Float64),
}


class CorpusError(ValueError):
    """A corpus cannot be used as it is; the message lists every problem, by kind."""


class Excluded(NamedTuple):
    """Utterances that the corpus has and the experiment does not use, by reason."""

    by_request: int
    over_limit: int
    crossing: int


COPY = " (as "  # after the place of a recording that an earlier one has, byte for byte
NOTHING_EXCLUDED = Excluded(0, 0, 0)


def spoken(text: str) -> str:
    """Return a transcript as this project writes texts: lower case, single spaces."""
    return " ".join(text.lower().split())


def refuse(problems: Sequence[Problem], *, total: int) -> None:
    """Raise CorpusError listing the problems, unless there are none. `total` is how many utterances were looked at."""
    cure = (
        "Correct the files, or name the utterances, by id or by place as printed here, in exclude_ids of the corpus's "
        "file in experiments/corpus/."
    )
    raise_problems(CorpusError, problems, among=f"{total} utterances", cure=cure)


def exclude(
    index: pl.DataFrame, problems: Sequence[Problem], unwanted: Sequence[str]
) -> tuple[pl.DataFrame, list[Problem], int]:
    """Drop the utterances, and the problems of the list, that are named by id or by place as messages print it.

    A name that is neither is a problem, because it may be misspelled. The count is that of dropped utterances.
    """
    names = {name.partition(COPY)[0] for name in unwanted}
    named = pl.col("utterance_id").is_in(names) | location().is_in(names)
    out, kept = index.filter(named), [problem for problem in problems if problem.where not in names]
    known = {*out["utterance_id"], *out.select(location()).to_series(), *(problem.where for problem in problems)}
    unknown = [Problem("exclude_ids names an utterance that is not there", name) for name in sorted(names - known)]
    return index.filter(~named), kept + unknown, len(out) + len(problems) - len(kept)


def limit_utterances(index: pl.DataFrame, limits: Mapping[str, Limits]) -> tuple[pl.DataFrame, int]:
    """Keep, of every part and split, as many utterances as its limit allows: those with the lowest hashes of ids."""
    kept = []
    for part, limit in limits.items():
        for split in SPLITS:
            rows = index.filter((pl.col("part") == part) & (pl.col("split") == split))
            allowed = limit.of(split)
            kept.append(rows if allowed is None else _lowest(rows, allowed))
    chosen = pl.concat(kept)
    return chosen, len(index) - len(chosen)


def lowest_hashes(ids: Iterable[str], count: int) -> list[str]:
    """Return the `count` ids with the lowest hashes; only this many are in memory at a time."""
    return heapq.nsmallest(count, ids, key=lambda name: content_id("corpus", name))


def _lowest(rows: pl.DataFrame, count: int) -> pl.DataFrame:
    return (
        rows
        if len(rows) <= count
        else rows.filter(pl.col("utterance_id").is_in(lowest_hashes(rows["utterance_id"], count)))
    )


def unique_ids(index: pl.DataFrame) -> list[Problem]:
    """Return a problem for every repeated utterance id."""
    repeated = index.filter(pl.col("utterance_id").is_duplicated()).group_by("utterance_id").agg(places=location())
    rows = repeated.select("utterance_id", pl.col("places").list.sort()).iter_rows()
    return [Problem("utterance id is not unique", f"{name} ({' and '.join(places)})") for name, places in rows]


def location() -> pl.Expr:
    """Return an expression for where an utterance is: the file, and the row of a parquet file."""
    row = pl.concat_str(pl.lit(" row "), pl.col("row").cast(pl.String))
    return pl.concat_str("part", pl.lit("/"), "file", row.fill_null(""))


def check_speaker_overlap(
    index: pl.DataFrame, crossing: Literal["error", "exclude", "allow"]
) -> tuple[pl.DataFrame, int, list[Problem]]:
    """Keep every speaker in one split: training and test speakers must differ.

    Training speech of a speaker who is also in another split is excluded, or is a problem; a speaker in several
    other splits is a problem. `allow` is for a corpus of one or a few voices.
    """
    if crossing == "allow":
        return index, 0, []
    splits = index.group_by("speaker_id").agg(pl.col("split").unique().sort())
    if crossing == "exclude":
        held_out = splits.filter(pl.col("split").list.set_difference(["train"]).list.len() > 0)["speaker_id"]
        kept = index.filter((pl.col("split") != "train") | ~pl.col("speaker_id").is_in(held_out.to_list()))
        splits = splits.with_columns(pl.col("split").list.set_difference(["train"]))
    else:
        kept = index
    several = splits.filter(pl.col("split").list.len() > 1).iter_rows()
    kind = "speaker is in several splits; a corpus of one or a few voices needs overlapping_speakers: allow"
    problems = [Problem(kind, f"{who} ({', '.join(sorted(of))})") for who, of in several]
    if len(kept) < len(index) and "train" not in kept["split"]:
        problems.append(
            Problem("all training speakers also speak in other splits; see overlapping_speakers: allow", "train")
        )
    return kept, len(index) - len(kept), problems


def fingerprint(index: pl.DataFrame, roots: Mapping[str, Path]) -> str:
    """Return a hash of the list and of its files; see `listing.fingerprint`."""
    files = index.select("part", "file").unique().iter_rows()
    return listing.fingerprint(index, {f"{part}\0{file}": roots[part] / file for part, file in files})
