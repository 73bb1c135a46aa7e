"""Output of a running stage: progress with rate and time left, and one line at its end."""

import multiprocessing
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from alignslm.code import require_recorded
from alignslm.locks import alone
from alignslm.times import note_time
from alignslm.user_errors import report_user_errors

if TYPE_CHECKING:
    from rich.progress import Progress

T = TypeVar("T")
Rows: TypeAlias = int | Mapping[str, int]
_SHOWN: "list[Progress]" = []  # the bars of a terminal: an outer one, and below it what it waits for
QUIET_S = 10.0  # without a terminal (a log file), at most one line in this time


def track(items: Iterable[T], *, total: int, label: str) -> Iterator[T]:
    """Yield items and show on stderr how many of `total` are done, the rate and the time left.

    A terminal shows a second bar for what is inside an item, such as the batches of a shard, and no third. A pool's
    worker shows nothing: its parent tells of whole shards.
    """
    if multiprocessing.parent_process() is not None:
        return iter(items)
    if not sys.stderr.isatty():
        return _track_log(items, total, label)
    return iter(items) if _SHOWN and len(_SHOWN[0].tasks) > 1 else _track_terminal(items, total, label)


def _track_terminal(items: Iterable[T], total: int, label: str) -> Iterator[T]:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from alignslm.terminal import Console

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    outer = _SHOWN[0] if _SHOWN else None
    with nullcontext(outer) if outer else Progress(*columns, console=Console(file=sys.stderr), transient=True) as bars:
        if outer is None:
            _SHOWN.append(bars)
        task = bars.add_task(label, total=total, rate="")
        began = time.monotonic()
        try:
            for done, item in enumerate(items, 1):
                yield item
                bars.update(task, completed=done, rate=_rate(done, time.monotonic() - began))
        finally:
            if outer is None:
                _SHOWN.remove(bars)
            else:
                outer.remove_task(task)


def _track_log(items: Iterable[T], total: int, label: str) -> Iterator[T]:
    began = printed = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - printed >= QUIET_S and done < total:
            printed = now
            print(progress_line(label, done, total, now - began), file=sys.stderr, flush=True)


def progress_line(label: str, done: int, total: int, seconds: float) -> str:
    """Return `label: 120/500 (24 %), 12.0/s, 32 s left`."""
    left = seconds / done * (total - done)
    return f"{label}: {done}/{total} ({100 * done // total} %), {_rate(done, seconds)}, {left:.0f} s left"


def _rate(done: int, seconds: float) -> str:
    rate = done / max(seconds, 1e-9)
    return f"{rate:.1f}/s" if rate >= 1 else f"{1 / rate:.1f} s each"


@dataclass
class StageLog:
    """Content of a stage's last line: rows in and out, and figures such as losses."""

    inputs: Rows = 0
    outputs: Rows = 0
    noted: dict[str, float] = field(default_factory=dict)

    def rows(self, *, inputs: Rows, outputs: Rows) -> None:
        """Set the row counts: one number, or one for each table by its name."""
        self.inputs, self.outputs = inputs, outputs

    def log_metrics(self, figures: Mapping[str, float]) -> None:
        """Add figures to the line, such as losses."""
        self.noted.update(figures)


@contextmanager
def stage(name: str) -> Iterator[StageLog]:
    """Run a stage's body; print one line when it succeeds, or only the message of an error for users.

    One process runs a stage of this name in this folder at a time, or several that train together; another waits.
    Stops if code.yaml does not record the stage's code.

    with stage("scores@r1") as log:
        ...
        log.rows(inputs={"transcripts": 2500}, outputs={"scores": 2500})

    prints `scores@r1: 2500 transcripts in, 2500 scores out, 12.3 s, peak 812 MB`.
    """
    log, is_first = StageLog(), os.environ.get("RANK", "0") == "0"
    with report_user_errors(), alone(name) if is_first else nullcontext():
        require_recorded()
        began = time.monotonic()
        yield log
    if is_first:  # of processes that train together, one speaks
        note_time(name, seconds=time.monotonic() - began)
        print(summary_line(name, log, seconds=time.monotonic() - began, peak_mb=peak_memory_mb()), flush=True)


def summary_line(name: str, log: StageLog, *, seconds: float, peak_mb: float) -> str:
    """Return the last line of a stage."""
    figures = [f"{key} {value:.4g}" for key, value in log.noted.items()]
    counts = [f"{_counted(log.inputs)} in", f"{_counted(log.outputs)} out"]
    return f"{name}: " + ", ".join([*counts, *figures, f"{seconds:.1f} s", f"peak {peak_mb:.0f} MB"])


def _counted(rows: Rows) -> str:
    if isinstance(rows, int):
        return f"{rows} rows"
    return " and ".join(f"{count} {name}" for name, count in rows.items()) or "nothing"


def peak_memory_mb() -> float:
    """Return the largest resident size, in 2**20 bytes, that this process or one of its children has had.

    Windows does not tell of children.
    """
    if sys.platform == "win32":
        import psutil

        return float(psutil.Process().memory_info().peak_wset) / 2**20
    import resource

    largest = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    unit_bytes = 1 if sys.platform == "darwin" else 1024
    return largest * unit_bytes / 2**20
