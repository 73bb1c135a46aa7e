"""Colors and deterministic SVG, for files and for inlining in a page with either color scheme."""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

INK = "#1f2430"
MUTED = "#6b7280"
GRID = "#e1e4ea"
CARD = "#fffffe"
HUES = ("#2563a8", "#b45309", "#2f7d4f", "#7a4fa3", "#b3261e")

# The CSS variable that replaces each color in a page.
VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    GRID: "var(--line)",
    CARD: "var(--card)",
    **{hue: f"var(--hue-{number})" for number, hue in enumerate(HUES)},
}

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: searchable, accessible, in the reader's font
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.facecolor": CARD,
    "figure.facecolor": CARD,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": GRID,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.8,
}


class Panel(NamedTuple):
    """One figure: file name without suffix, section of the page, title, alternative text, and SVG."""

    name: str
    section: str
    title: str
    alt: str
    svg: str


def new_figure(*, height_inches: float = 2.5) -> tuple[Figure, Axes]:
    """Return an empty panel."""
    figure = Figure(figsize=(4.0, height_inches), layout="constrained")
    FigureCanvasSVG(figure)
    return figure, figure.subplots()


@contextmanager
def drawing_style() -> Iterator[None]:
    """Draw in the report's style, independent of the user's matplotlib settings."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        yield


def svg_of(figure: Figure, name: str) -> str:
    """Return the figure as SVG text; equal figures with one name give equal text."""
    stream = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name}):
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    return re.sub(r"[ \t]+\n", "\n", stream.getvalue())


def inline(svg: str, *, name: str, label: str) -> str:
    """Return an SVG file for an HTML page: no prologue, no namespaces, unique ids, colors by variable.

    `label` is the alternative text; it must be escaped already.
    """
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>\s*", "", body, flags=re.DOTALL)
    body = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", body)
    body = re.sub(r'\b(id="|xlink:href="#|url\(#)', rf"\g<1>{name}-", body)
    body = body.replace("xlink:href=", "href=")
    body = re.sub(r'<svg([^>]*?) width="[^"]*"', r"<svg\1", body, count=1)
    body = re.sub(r'<svg([^>]*?) height="[^"]*"', r"<svg\1", body, count=1)
    for colour, variable in VARIABLES.items():
        body = body.replace(colour, variable)
    return body.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)
