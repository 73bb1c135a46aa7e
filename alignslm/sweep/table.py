"""One table of all runs: the headline metrics of each, with paired intervals against the first one."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from alignslm.config.model import Config
from alignslm.report.evaluated import Difference, Paired, comparable, pair
from alignslm.report.metrics import Comparison, comparison_fields
from alignslm.report.systems import last_round
from alignslm.statistics import Estimate, holm, mean_interval
from alignslm.sweep.measured import Measured
from alignslm.sweep.runs import Run

FIELDS = ("value", "delta", "p", "p_corrected", "n", "n_missing")


class Cell(Comparison):
    """A metric of one run, and its difference from the same metric of the first run that did not fail."""

    name: str
    value: float | None
    other_judge: bool = False  # then there is no difference: the scales of two judges differ


class Row(Config):
    """One run of the sweep: `name` is its experiment's, `log` the path of its output; no cells if it failed."""

    name: str
    settings: tuple[str, ...]
    system: str
    failed: bool
    log: str
    cells: tuple[Cell, ...]


class SweepTable(Config):
    """All runs in their order."""

    rows: tuple[Row, ...]

    def to_json(self) -> str:
        """Return indented JSON text that ends in a newline."""
        return self.model_dump_json(indent=2) + "\n"

    def csv_text(self) -> str:
        """Return one line per run and metric."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("experiment", "system", "metric", *FIELDS, "low", "high"))
        for row in self.rows:
            for cell in row.cells:
                values = (getattr(cell, field) for field in FIELDS)
                writer.writerow((row.name, row.system, cell.name, *values, *(cell.ci95 or (None, None))))
        return text.getvalue()


def table_of(runs: Sequence[Run], measured: Mapping[str, Measured]) -> SweepTable:
    """Return the table of all runs; `measured` has those that did not fail, by their names, in their order.

    p is corrected (Holm) for all differences of the table.
    """
    found = differences(measured)
    rows = [
        Row(
            name=run.name,
            settings=run.combination.settings,
            system=last_round(run.experiment),
            failed=run.name not in measured,
            log=run.log.as_posix(),
            cells=tuple(_cells(run.name, measured, found)) if run.name in measured else (),
        )
        for run in runs
    ]
    return SweepTable(rows=tuple(rows))


def differences(measured: Mapping[str, Measured]) -> dict[tuple[str, str], Difference]:
    """Return the difference of every run from the first, by run and metric, if they are comparable."""
    first, *others = measured or [""]
    found = {}
    for run in others:
        for metric in (name for name in measured[run].columns if name in measured[first].columns):
            left, right = (measured[name].columns[metric] for name in (run, first))
            if _same_judge(metric, run, measured) and comparable(left, right):
                both = pair(left, right)
                found[run, metric] = Difference(both, both.difference, None)
    corrected = holm([some.found.p for some in found.values()])
    return {key: some._replace(p_corrected=p) for (key, some), p in zip(found.items(), corrected, strict=True)}


def _same_judge(metric: str, run: str, measured: Mapping[str, Measured]) -> bool:
    return measured[run].judges.get(metric) == next(iter(measured.values())).judges.get(metric)


def _cells(run: str, measured: Mapping[str, Measured], found: Mapping[tuple[str, str], Difference]) -> Iterator[Cell]:
    first, nothing = next(iter(measured)), np.array([])
    for metric, column in measured[run].columns.items():
        none = Difference(Paired(nothing, nothing, nothing), Estimate(None, None, None, 0, 0), None)
        fields = comparison_fields(run, first, (column.benchmark, column.metric), found.get((run, metric), none))
        value = mean_interval(column.values, column.clusters).value
        other = not _same_judge(metric, run, measured)
        yield Cell.model_validate({**fields, "name": metric, "value": value, "other_judge": other})
