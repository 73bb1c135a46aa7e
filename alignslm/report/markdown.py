"""The report as Markdown: the same tables, compactly."""

from alignslm.report.beside import ablation_sheet, others_sheet, published_sheet
from alignslm.report.inputs import ReportInputs
from alignslm.report.metrics import Report
from alignslm.report.notes import footer, notes
from alignslm.report.origin import Origin
from alignslm.report.protocol import protocols
from alignslm.report.tabulate import (
    Cell,
    Sheet,
    comparison_sheet,
    headline_sheet,
    pairs_sheet,
    sound_sheet,
)
from alignslm.report.verdict import verdict, warnings


def markdown(report: Report, inputs: ReportInputs, origin: Origin) -> str:
    """Return the whole report as Markdown text."""
    setting = inputs.setting
    sections = [
        ("Result", "\n\n".join([" ".join(verdict(report, setting)), *warnings(report, setting)])),
        ("Models", _table(headline_sheet(report, setting))),
        ("Words and sound", _table(sound_sheet(report, setting))),
        ("Differences", _table(comparison_sheet(report))),
        ("Pairs", _table(pairs_sheet(inputs))),
        ("Published figures", "\n\n".join([
            "\n".join(f"- {told}" for told in protocols(setting)),
            _table(published_sheet(report, setting)), _table(ablation_sheet()), _table(others_sheet())
        ])),
        ("How to read", "\n".join(f"- {note}" for note in notes(setting))),
        ("Provenance", "\n".join(f"- {name}: {value}" for name, value in footer(setting, origin))),
    ]  # fmt: skip
    return "# Report\n\n" + "\n\n".join(f"## {title}\n\n{body}" for title, body in sections) + "\n"


def _table(sheet: Sheet) -> str:
    lines = [_line(sheet.headings), _line(["---"] + ["---:"] * (len(sheet.headings) - 1))]
    lines += [_line([_text(cell) for cell in row]) for row in sheet.rows]
    return f"{sheet.caption}\n\n" + "\n".join(lines)


def _text(cell: Cell) -> str:
    text = f"**{cell.text}**" if cell.mark in {"better", "worse", "flag"} else cell.text
    return f"{text} {cell.detail}".strip()


def _line(cells: list[str] | tuple[str, ...]) -> str:
    escaped = (cell.replace("|", "\\|") for cell in cells)
    return f"| {' | '.join(escaped)} |"
