"""Write the report: metrics.json, summary.json, index.html, report.md, and plots with the data behind them."""

from collections.abc import Mapping
from pathlib import Path

from alignslm.figures.columns import EvalTables
from alignslm.report.inputs import ReportInputs
from alignslm.report.metrics import Report, summarise
from alignslm.report.page import markdown, page
from alignslm.report.plot_data import plot_data
from alignslm.report.plots import panels
from alignslm.report.run_info import RunInfo
from alignslm.report.summary import summary_json, summary_of
from alignslm.report.systems import evaluated, previous, topline
from alignslm.storage import write_text


def report_of(inputs: ReportInputs) -> Report:
    """Summarize the evaluation."""
    return summarise(
        EvalTables(inputs.judged, inputs.item_scores, inputs.transcripts, inputs.mos, inputs.word_errors),
        models=evaluated(inputs.experiment),
        rounds=previous(inputs.experiment),
        topline=topline(inputs.experiment),
    )


def write_report(inputs: ReportInputs, origin: RunInfo, folder: Path) -> Report:
    """Write the report into `folder` and return its numbers. Equal inputs and origin give equal bytes.

    Files of an earlier report that this one does not write are removed from `folder`/plots.
    """
    report = report_of(inputs)
    drawn = panels(report, inputs)
    plots = {f"{panel.name}.svg": panel.svg for panel in drawn} | plot_data(report, inputs)
    _replace(plots, folder / "plots")
    write_text(folder / "index.html", page(report, inputs, drawn, origin))
    write_text(folder / "report.md", markdown(report, inputs, drawn, origin))
    write_text(folder / "metrics.json", report.to_json())
    write_text(folder / "summary.json", summary_json(summary_of(report, inputs.experiment)))
    return report


def _replace(files: Mapping[str, str], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        if old.suffix in {".svg", ".csv", ".json"} and old.name not in files:
            old.unlink()
    for name, text in files.items():
        write_text(folder / name, text)
