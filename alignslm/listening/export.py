"""Ratings out of the database, unblinded: one row an answer that counts."""

from collections.abc import Iterable
from pathlib import Path

import polars as pl

from alignslm import tables
from alignslm.listening.storage import Rater, Ratings
from alignslm.listening.study import Study, read_study
from alignslm.storage import write_text

EXPECTED = {"rater_id": pl.String, "prompt_id": pl.String, "system": pl.String, "position": pl.Int32}

ANSWERS = {
    "rater_id": pl.String,
    "clip_id": pl.String,
    "score": pl.Int32,
    "plays": pl.Int32,
    "seconds": pl.Float64,
    "received_at": pl.String,
    "changes": pl.Int32,
}


def expected_rows(study: Study, raters: Iterable[Rater]) -> pl.DataFrame:
    """Return what raters are asked about: rater_id, prompt_id, system, position (0, 1, ... in the rater's order)."""
    rows = [
        (rater.rater_id, trial.prompt_id, trial.system, position)
        for rater in raters
        for position, trial in enumerate(study.trials(rater.number))
    ]
    return pl.DataFrame(rows, schema=EXPECTED, orient="row")


def ratings_table(folder: Path, ratings: Ratings) -> pl.DataFrame:
    """Return RATINGS rows. TableError for an answer about a clip that its rater was never asked about."""
    study, clips = read_study(folder)
    answers = pl.DataFrame(ratings.stored(), schema=ANSWERS, orient="row")
    asked = expected_rows(study, ratings.raters()).join(
        clips.select("clip_id", "prompt_id", "system", "continuation_id"), on=["prompt_id", "system"]
    )
    strange = answers.join(asked, on=["rater_id", "clip_id"], how="anti")
    if len(strange):
        raise tables.TableError(
            f"{folder}: {len(strange)} ratings are of clips their raters were not asked about, first "
            f"{strange.row(0)[:2]}. Is ratings.sqlite that of another study?"
        )
    return tables.arrange(answers.join(asked, on=["rater_id", "clip_id"]), tables.RATINGS)


def export(folder: Path, ratings: Ratings) -> pl.DataFrame:
    """Write folder/ratings.parquet and folder/ratings.csv, and return the rows."""
    frame = ratings_table(folder, ratings)
    tables.write(frame, tables.RATINGS, folder / "ratings.parquet")
    write_text(folder / "ratings.csv", frame.write_csv())
    return frame
