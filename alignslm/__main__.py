"""`python -m alignslm`: the command line."""

from alignslm.cli import app

app(prog_name="alignslm")
