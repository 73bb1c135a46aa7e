"""Published figures (published.yaml) and this run's below them, column by column, one row per system and protocol."""

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import Literal, TypeAlias

from ruamel.yaml import YAML

from alignslm.config.benchmarks import SlamkitBenchmarkConfig
from alignslm.config.evaluation import BenchmarkConfig
from alignslm.config.experiment import Experiment
from alignslm.config.model import Config
from alignslm.config.sources import FolderSource
from alignslm.figures.columns import ACCURACY, CONTINUATION
from alignslm.report.formatting import DASH, TOPIC, with_error
from alignslm.report.metrics import Report
from alignslm.report.systems import evaluated
from alignslm.report.tabulate import Cell, ReportTable, models_of, sheet_of

Protocol: TypeAlias = Literal["official", "copy", "toy"]
COLUMNS = ("sWUGGY", "sBLIMP", "S-StoryCloze", "T-StoryCloze")
OFFICIAL = {"swuggy": "sWUGGY", "sblimp": "sBLIMP", "sstorycloze": "S-StoryCloze", "tstorycloze": "T-StoryCloze"}
SLAMKIT_COLUMNS = {
    "swuggy_inter": "sWUGGY",
    "sblimp": "sBLIMP",
    "sSC": "S-StoryCloze",
    "tSC": "T-StoryCloze",
}  # slamkit's names
TOYS = {"toy-swuggy": "sWUGGY", "toy-sblimp": "sBLIMP", "toy-storycloze": "T-StoryCloze"}
LABEL_SUFFIX: Mapping[Protocol, str] = {"official": "", "copy": " (slamkit's copies)", "toy": " (toy protocol)"}
MAIN_METRICS = {"toy-storycloze": TOPIC}
SECONDARY_METRIC = {"swuggy": (f"{ACCURACY}/in-vocab", "in-vocab")}


class PublishedTable(Config):
    """One table in print: numbers by system, as many as `decimals`; None is a dash in print."""

    source: str
    headings: tuple[str, ...]
    decimals: tuple[int, ...]
    rows: dict[str, tuple[float | None, ...]]

    def sheet(self) -> ReportTable:
        """Return the table as printed."""
        return sheet_of(
            self.headings,
            (
                [system, *(DASH if n is None else f"{n:.{d}f}" for n, d in zip(numbers, self.decimals, strict=True))]
                for system, numbers in self.rows.items()
            ),
        )


def published_tables() -> dict[str, PublishedTable]:
    """Return the tables of published.yaml: main, ablation, other_papers."""
    content = YAML(typ="safe").load(Path(__file__).with_name("published.yaml"))
    return {name: PublishedTable.model_validate(table) for name, table in content.items()}


def published_sheet(report: Report, experiment: Experiment) -> ReportTable:
    """Return the paper's main table with this run's rows below it."""
    sheet = published_tables()["main"].sheet()
    return sheet_of(sheet.headings, [*sheet.rows, *_ours(report, experiment)])


def column_of(config: BenchmarkConfig) -> tuple[Protocol, str] | None:
    """Return a benchmark's protocol and its column in the paper's table; None if it has no column."""
    if config.kind in OFFICIAL:
        return "official", OFFICIAL[config.kind]
    if config.kind in TOYS:
        return "toy", TOYS[config.kind]
    if isinstance(config, SlamkitBenchmarkConfig) and isinstance(config.data, FolderSource):
        copied = PurePath(config.data.path).name
        return ("copy", SLAMKIT_COLUMNS[copied]) if copied in SLAMKIT_COLUMNS else None
    return None


def protocols_of(experiment: Experiment) -> list[Protocol]:
    """List the protocols in this run that have a column in the paper's table, the official one first."""
    found = {place[0] for config in experiment.benchmarks.values() if (place := column_of(config))}
    return [name for name in LABEL_SUFFIX if name in found]


def _ours(report: Report, experiment: Experiment) -> Iterator[list[Cell]]:
    systems = evaluated(experiment)
    for model in (name for name in models_of(report) if name in systems):
        for protocol in protocols_of(experiment) or ["toy"]:
            cells = [_cell(report, model, experiment, protocol, column) for column in COLUMNS]
            judge = Cell(with_error(report.metric(model, CONTINUATION, "heldout_judge_score")), "ours")
            yield [Cell(f"this run: {model}{LABEL_SUFFIX[protocol]}", "ours"), *cells, judge]


def _cell(report: Report, model: str, experiment: Experiment, protocol: Protocol, column: str) -> Cell:
    """Write every benchmark of one column: the first one's figure, below it its second metric and other benchmarks."""
    parts: list[str] = []
    for name, config in experiment.benchmarks.items():
        found = report.metric(model, name, MAIN_METRICS.get(config.kind, ACCURACY))
        if column_of(config) != (protocol, column) or found is None:
            continue
        parts.append(f"{name} {with_error(found)}" if parts else with_error(found))
        metric, label = SECONDARY_METRIC.get(config.kind, ("", ""))
        parts += [f"{label} {with_error(part)}"] if (part := report.metric(model, name, metric)) else []
    return Cell(parts[0] if parts else DASH, "ours", "; ".join(parts[1:]))
