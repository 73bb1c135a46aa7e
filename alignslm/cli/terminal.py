"""Output on a terminal: tables without lines, sizes and counts."""

from collections.abc import Iterable, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from alignslm.terminal import Console

WIDE = 200  # columns of text where the output is not a terminal, such as a file or a pager: no cell is folded

FIRST_COLUMN = 26  # columns of text that labels need at least; longer ones are wrapped


def wide_console() -> Console:
    """Return a console on stdout that is as wide as its terminal, or WIDE if there is none."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=WIDE)


def grid(
    headings: Sequence[str],
    rows: Iterable[Iterable[RenderableType]],
    *,
    numbers: Iterable[int] | None = None,
    styles: Sequence[str | None] = (),
) -> Table:
    """Return a table without lines; texts are not read as markup.

    Columns in `numbers` are right-aligned, by default all but the first. Columns with a style are not wrapped. Without
    any heading there is no header.
    """
    right = set(range(1, len(headings)) if numbers is None else numbers)
    table = Table(box=None, show_header=any(headings), header_style="bold", pad_edge=False)
    for place, heading in enumerate(headings):
        style = styles[place] if place < len(styles) else None
        justify = "right" if place in right else "left"
        table.add_column(heading, justify=justify, style=style, no_wrap=style is not None, overflow="fold")  # type: ignore[arg-type]
    for row in rows:
        table.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in row))
    return table


def fitted(headings: Sequence[str], rows: Iterable[Sequence[str]], *, optional: int, width: int) -> RenderableType:
    """Return a table without lines that fits `width`: as many of the last `optional` columns as do, and which do not.

    Only the first column is wrapped, between words.
    """
    body = [list(row) for row in rows]
    widths = [max(map(len, column)) + 2 for column in zip(headings, *body, strict=True)]
    shown = len(headings)
    while shown > len(headings) - optional and min(widths[0], FIRST_COLUMN) + sum(widths[1:shown]) - 2 > width:
        shown -= 1
    table = grid(headings[:shown], (row[:shown] for row in body), styles=(None, *[""] * (shown - 1)))
    left_out = ", ".join(headings[shown:])
    return Group(table, Text(f"a wider terminal or --json also shows: {left_out}", style="dim")) if left_out else table


def format_bytes(count: int) -> str:
    """Return a size in powers of 1000: 3.1 GB, 240.0 kB, 12 B."""
    return _scaled(count, (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)), "B")


def format_count(count: int) -> str:
    """Return a rounded number: 3.1 million, 240.0 thousand."""
    return _scaled(count, (("billion", 1e9), ("million", 1e6), ("thousand", 1e3)), "")


def _scaled(count: int, units: Iterable[tuple[str, float]], one: str) -> str:
    for unit, scale in units:
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count} {one}".rstrip()
