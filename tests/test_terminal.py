"""Text from data reaches a terminal as text: escape sequences in a transcript do nothing."""

import ast
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from rich.table import Table
from rich.text import Text

from alignslm import tables
from alignslm.terminal import Console, printable
from tests.messages import names
from tests.terminals import on_a_terminal

ROOT = Path(__file__).parent.parent
HOSTILE = "tom\x1b[2J\x1b]0;owned\x07 \x9b31mred\r\x1b[8m hides \u202egnp.exe\x00\x7f"
SEEN = "tom[2J]0;owned 31mred[8m hides gnp.exe"


def test_what_is_left_is_text_and_lines_stay():
    assert printable(HOSTILE) == SEEN
    assert printable("two\nlines\tand ä 語") == "two\nlines\tand ä 語"


@pytest.mark.parametrize("terminal", [True, False])
def test_a_console_prints_no_control_of_the_text(terminal):
    console = Console(force_terminal=terminal, width=80, highlight=False, color_system="standard")
    grid = Table("heading \x1b[1m")
    grid.add_row(Text(HOSTILE, style="red"))
    with console.capture() as captured:
        console.print(Text(HOSTILE, style="bold"), HOSTILE.replace("[", "\\["), grid)
    printed = captured.get()
    assert printed.count(SEEN) == 3
    for style in ("\x1b[0m", "\x1b[1m", "\x1b[31m"):  # rich's own
        printed = printed.replace(style, "")
    assert "\x1b" not in printed
    assert not {*HOSTILE} & {*printed} - {*SEEN}


def test_show_prints_a_hostile_transcript_as_text(tmp_path):
    row = pl.DataFrame([("t", HOSTILE, "c")], schema=dict(tables.TEXTS.schema), orient="row")
    tables.write(row, tables.TEXTS, tmp_path / "texts.parquet")
    said = on_a_terminal(sys.executable, "-m", "alignslm", "show", "texts.parquet", cwd=tmp_path)
    names(said.decode(), SEEN)
    assert not {*b"\x07\x00\x7f"} & {*said}
    assert b"\x1b[2J" not in said
    assert b"\x1b]0" not in said


def test_a_message_that_quotes_data_is_text():
    code = f"from alignslm.user_errors import print_error; print_error({HOSTILE!r})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stderr == SEEN + "\n"


def test_no_other_console_is_used():
    for file in (ROOT / "alignslm").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == "rich.console":
                assert "Console" not in {alias.name for alias in node.names}, file
