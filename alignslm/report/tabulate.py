"""The report's tables as rows of text, for page, Markdown and cards."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from alignslm.config.experiment import Params
from alignslm.figures.columns import CONTINUATION, SPEECH, WORD_ERROR
from alignslm.report.formatting import (
    DASH,
    arrow,
    change_parts,
    error_parts,
    heading,
    headline,
    number,
    own_interval,
    probability,
    style,
)
from alignslm.report.inputs import ReportInputs
from alignslm.report.metrics import Comparison, Report


class Cell(NamedTuple):
    """Text of one cell, a second line, and its mark.

    Marks are "", "better", "worse", "moved", "ns", "ours", "flag", and "figure" for a long name.
    """

    text: str
    mark: str = ""
    detail: str = ""

    @property
    def markdown(self) -> str:
        """The cell in a Markdown table: marked differences and flags in bold."""
        text = f"**{self.text}**" if self.mark in {"better", "worse", "flag"} else self.text
        return f"{text} {self.detail}".strip().replace("|", "\\|")


class ReportTable(NamedTuple):
    """A table: headings, and rows with their name in the first cell."""

    headings: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


def sheet_of(headings: Sequence[str], rows: Iterable[Iterable[Cell | str]]) -> ReportTable:
    """Return a table made of cells and plain texts."""
    cells = (tuple(cell if isinstance(cell, Cell) else Cell(cell) for cell in row) for row in rows)
    return ReportTable(tuple(headings), tuple(cells))


def transposed(sheet: ReportTable) -> ReportTable:
    """Return the table with a row per heading."""
    columns = zip(*(row[1:] for row in sheet.rows), strict=True)
    rows = [(Cell(name), *column) for name, column in zip(sheet.headings[1:], columns, strict=True)]
    return ReportTable(("", *(row[0].text for row in sheet.rows)), tuple(rows))


def models_of(report: Report) -> list[str]:
    """List the reported systems in order."""
    return list(dict.fromkeys(metric.model for metric in report.metrics))


def systems_sheet(params: Params) -> ReportTable:
    """Return each system's role, its checkpoint, how that was trained, and the factor on the temperature."""
    rows: list[list[Cell | str]] = []
    for name in params.ordered_systems:
        system = params.systems[name]
        trained, guard = params.checkpoints.get(system.checkpoint or ""), params.guards.get(system.checkpoint or "")
        role = "round" if name in params.rounds else "topline" if name in params.toplines else "baseline"
        training = (trained.init_from, trained.train_on, trained.trainer) if trained else (DASH, DASH, DASH)
        training = (guard.init_from, DASH, f"guard of {guard.steps_of}") if guard else training
        scale = DASH if name in params.toplines else f"{system.temperature_scale:g}"
        rows.append([name, role, system.checkpoint or system.source, *training, scale])
    headings = ("system", "role", "checkpoint", "starts from", "trained on", "trainer", "temperature ×")
    return sheet_of(headings, rows)


def headline_sheet(report: Report, topline: str, models: Sequence[str] = ()) -> ReportTable:
    """Return `models` (default: all) by headline metrics; a score above the topline's interval is marked."""
    return _metric_sheet(report, topline, headline(report), models or models_of(report))


def _metric_sheet(
    report: Report, topline: str, columns: Sequence[tuple[str, str]], models: Iterable[str]
) -> ReportTable:
    flagged = {(flag.model, CONTINUATION, flag.metric) for flag in report.flags}
    rows: list[list[Cell | str]] = [
        [
            f"{model} (topline)" if model == topline else model,
            *(_value(report, model, column, flagged=(model, *column) in flagged) for column in columns),
        ]
        for model in models
    ]
    return sheet_of(["system", *(heading(*column, arrow=arrow(report, *column)) for column in columns)], rows)


def _value(report: Report, model: str, column: tuple[str, str], *, flagged: bool) -> Cell:
    text, detail = error_parts(report.metric(model, *column))
    return Cell(f"{text} ⚑", "flag", detail) if flagged else Cell(text, detail=detail)


SOUND = (
    (CONTINUATION, "distinct_1"),
    (CONTINUATION, "distinct_2"),
    (CONTINUATION, "duration_s"),
    (CONTINUATION, "silence_ratio"),
    (CONTINUATION, "unit_error_rate"),
    (SPEECH, WORD_ERROR),
)


def sound_sheet(report: Report, topline: str) -> ReportTable:
    """Return systems and recordings by properties of their words and audio."""
    found = {(m.benchmark, m.metric) for m in report.metrics}
    columns = [column for column in SOUND if column in found]
    heard = {m.model for m in report.metrics if (m.benchmark, m.metric) in columns}
    return _metric_sheet(report, topline, columns, [model for model in models_of(report) if model in heard])


def comparison_sheet(report: Report) -> ReportTable:
    """Return each compared pair of systems by headline metrics."""
    columns = headline(report)
    pairs = list(dict.fromkeys((item.model, item.against) for item in report.comparisons))
    rows: list[list[Cell | str]] = [
        [f"{model} {DASH} {against}", *(_change(report, report.comparison(model, against, *c)) for c in columns)]
        for model, against in pairs
    ]
    return sheet_of(["difference", *(heading(*c, arrow=arrow(report, *c)) for c in columns)], rows)


def _change(report: Report, comparison: Comparison | None) -> Cell:
    text, detail = change_parts(comparison)
    return Cell(text, mark_of(report, comparison), detail)


def mark_of(report: Report, comparison: Comparison | None) -> str:
    """Return whether a difference is better, worse, moved (no direction is better) or n.s.; nothing if unmeasured."""
    if comparison is None or comparison.delta is None:
        return ""
    if comparison.direction in {"ns", "untested"}:
        return "ns"
    better = {"↑": "up", "↓": "down"}.get(arrow(report, comparison.benchmark, comparison.metric))
    if better is None:
        return "moved"
    return "better" if comparison.direction == better else "worse"


def every_metric_sheet(report: Report) -> ReportTable:
    """Return every metric of every system: value, standard error, interval, counts."""
    rows: list[list[Cell | str]] = []
    for m in report.metrics:
        how = style(m.benchmark, m.metric)
        named: list[Cell | str] = [m.model, Cell(how.label, "figure"), m.benchmark, m.metric, how.unit]
        numbers = [number(m.value, how), number(m.stderr, how), own_interval(m)]
        rows.append([*named, *numbers, str(m.n), str(m.n_missing)])
    names = ["model", "figure", "benchmark", "metric", "unit"]
    headings = [*names, "value", "standard error", "95 % interval", "n", "missing"]
    return sheet_of(headings, rows)


def every_comparison_sheet(report: Report) -> ReportTable:
    """Return every paired difference with its number of prompts or item pairs."""
    rows: list[list[Cell | str]] = []
    for c in report.comparisons:
        how, mark = style(c.benchmark, c.metric), mark_of(report, c)
        numbers = [Cell(number(c.delta, how, signed=True), mark), Cell(own_interval(c, signed=True), mark)]
        probabilities = [probability(c.p), probability(c.p_corrected), "n.s." if c.direction == "ns" else ""]
        named: list[Cell | str] = [c.model, c.against, Cell(how.label, "figure"), c.benchmark, c.metric, how.unit]
        rows.append([*named, *numbers, *probabilities, str(c.n), str(c.n_missing)])
    names = ["model", "against", "figure", "benchmark", "metric", "unit"]
    headings = [*names, "difference", "95 % interval", "p", "corrected", "", "n", "missing"]
    return sheet_of(headings, rows)


def pairs_sheet(inputs: ReportInputs) -> ReportTable:
    """Return the counts of prompts with and without pairs by round and split."""
    counts = [
        (name, split, part)
        for name, item in inputs.rounds.items()
        for split, part in (("train", item.counts.train), ("valid", item.counts.valid))
    ]
    reasons = sorted({reason for *_, part in counts for reason, skipped in part.skipped_prompts.items() if skipped})
    headings = ["round", "split", "prompts", "with pairs", "pairs", "mean margin", *(f"no pair: {r}" for r in reasons)]
    rows = []
    for name, split, part in counts:
        margin = DASH if part.mean_margin is None else f"{part.mean_margin:.2f}"
        skipped = (str(part.skipped_prompts.get(reason, 0)) for reason in reasons)
        totals = map(str, (part.prompts, part.prompts_with_pairs, part.pairs))
        rows.append([name, split, *totals, margin, *skipped])
    return sheet_of(headings, rows)
