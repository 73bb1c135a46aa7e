"""Raters and their ratings in one SQLite file: an acknowledged rating is on disk."""

import secrets
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, Self

SCHEMA = """
CREATE TABLE IF NOT EXISTS raters (
    number INTEGER PRIMARY KEY,
    rater_id TEXT NOT NULL UNIQUE,
    token TEXT NOT NULL UNIQUE
) STRICT;
CREATE TABLE IF NOT EXISTS ratings (
    place INTEGER PRIMARY KEY AUTOINCREMENT,
    submission TEXT NOT NULL UNIQUE,
    rater_id TEXT NOT NULL REFERENCES raters (rater_id),
    clip_id TEXT NOT NULL,
    score INTEGER NOT NULL CHECK (score BETWEEN 1 AND 5),
    plays INTEGER NOT NULL,
    seconds REAL NOT NULL,
    received_at TEXT NOT NULL
) STRICT;
"""
BUSY_S = 30.0


class StorageError(ValueError):
    """The ratings file is missing, or a rating contradicts a stored one."""


class Rater(NamedTuple):
    """`number` determines the trials; the secret `token` is the rater's link."""

    number: int
    rater_id: str
    token: str


class Rating(NamedTuple):
    """One rating. The page makes a new `submission` id per choice, so that sending it again changes nothing.

    `plays` is how often the clip was started, `seconds` how long the page showed it before the rating.
    """

    submission: str
    rater_id: str
    clip_id: str
    score: int
    plays: int
    seconds: float


class FinalRating(NamedTuple):
    """The final rating of a clip, which is the last one, and how many preceded it."""

    rater_id: str
    clip_id: str
    score: int
    plays: int
    seconds: float
    received_at: str
    changes: int


class Ratings:
    """An open ratings file. Threads share it; other processes may have it open too."""

    def __init__(self, path: Path) -> None:
        """Open or create the file. StorageError if it is not a ratings file, or cannot be read and written."""
        self._lock = threading.Lock()
        self._path = path
        with self._told():
            self._connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
            self._connection.execute("PRAGMA journal_mode = WAL")
            # FULL flushes the log at every commit: NORMAL could lose the last ratings in a power failure.
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.execute("PRAGMA foreign_keys = ON")
            self._connection.executescript(SCHEMA)
            self._connection.execute(
                "SELECT number, rater_id, token, place, submission, clip_id, score, plays, seconds, received_at "
                "FROM raters LEFT JOIN ratings USING (rater_id) LIMIT 1"
            )

    @classmethod
    def existing(cls, path: Path) -> Self:
        """Open an existing file. StorageError if it does not exist."""
        if not path.exists():
            raise StorageError(f"{path} does not exist, so this study has no raters. Run `alignslm listen invite`.")
        return cls(path)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Raise StorageError for what SQLite says of a file that is junk, another program's, full or read-only."""
        try:
            yield
        except sqlite3.IntegrityError:
            raise
        except sqlite3.DatabaseError as error:
            raise StorageError(
                f"{self._path} cannot be used ({error}). If it is not the study's own file, put back a copy of that."
            ) from error

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._told():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def invite(self, count: int) -> list[Rater]:
        """Add `count` raters, each with an unguessable link."""
        with self._transaction() as connection:
            (first,) = connection.execute("SELECT coalesce(max(number) + 1, 0) FROM raters").fetchone()
            added = [
                Rater(number, f"rater-{number + 1:03d}", secrets.token_urlsafe(9))
                for number in range(first, first + count)
            ]
            connection.executemany("INSERT INTO raters (number, rater_id, token) VALUES (?, ?, ?)", added)
        return added

    def raters(self) -> list[Rater]:
        """Return all raters in order."""
        with self._lock, self._told():
            rows = self._connection.execute("SELECT number, rater_id, token FROM raters ORDER BY number").fetchall()
        return [Rater(*row) for row in rows]

    def rater(self, token: str) -> Rater | None:
        """Return the rater with this link; None if there is none."""
        with self._lock, self._told():
            row = self._connection.execute(
                "SELECT number, rater_id, token FROM raters WHERE token = ?", (token,)
            ).fetchone()
        return None if row is None else Rater(*row)

    def record(self, rating: Rating) -> bool:
        """Store a rating before returning. False if this submission is already stored with the same score.

        Another score for the same submission raises StorageError. A new submission for a rated clip replaces the
        rating; the old one stays in the file.
        """
        with self._transaction() as connection:
            fields = "submission, rater_id, clip_id, score, plays, seconds"
            known = connection.execute(
                "SELECT rater_id, clip_id, score FROM ratings WHERE submission = ?", (rating.submission,)
            ).fetchone()
            if known is not None:
                if known != (rating.rater_id, rating.clip_id, rating.score):
                    raise StorageError(f"submission {rating.submission!r} is stored with another rating")
                return False
            connection.execute(
                f"INSERT INTO ratings ({fields}, received_at) VALUES (?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 (constant)
                (*rating, datetime.now(UTC).isoformat(timespec="milliseconds")),
            )
        return True

    def stored(self, rater_id: str | None = None) -> list[FinalRating]:
        """Return the final ratings of one rater or all, by rater and clip."""
        with self._lock, self._told():
            rows = self._connection.execute(
                """
                SELECT rater_id, clip_id, score, plays, seconds, received_at, answers - 1 FROM (
                    SELECT *, row_number() OVER (PARTITION BY rater_id, clip_id ORDER BY place DESC) AS age,
                           count(*) OVER (PARTITION BY rater_id, clip_id) AS answers
                    FROM ratings WHERE ?1 IS NULL OR rater_id = ?1
                ) WHERE age = 1 ORDER BY rater_id, clip_id
                """,
                (rater_id,),
            ).fetchall()
        return [FinalRating(*row) for row in rows]
