"""The plot of `alignslm compare-ways`: every system's difference by the held-out judge, with its judge calls."""

from alignslm.report.drawing import drawing_style
from alignslm.report.formatting import number, style
from alignslm.report.plots import Dot, dot_panels
from alignslm.report.ways import TESTED, WaysComparison


def draw(found: WaysComparison) -> str:
    """Return SVG text of one panel; empty without such a difference."""
    how = style(*TESTED)
    dots = [
        Dot(
            f"{way.system} ({way.judge_calls or 0:,.0f})",
            row.delta,
            row.both_ci95,
            row.significant,
            number(row.delta, how, signed=True),
        )
        for way in found.ways
        if (row := way.differences.get(TESTED)) and row.delta is not None
    ]
    label = f"{how.label} vs {found.against}\n(in brackets: judge calls)"
    with drawing_style():
        return "".join(panel.svg for panel in dot_panels("ways", "differences", how, dots, xlabel=label))
