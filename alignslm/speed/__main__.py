"""`python -m alignslm.speed COMMAND ...`: run a command, such as dvc repro, with a fork server for its stages."""

import shutil
import sys

from alignslm.speed.forkserver import main

if not sys.argv[1:] or shutil.which(sys.argv[1]) is None:
    problem = f"{sys.argv[1]}: no such command; " if sys.argv[1:] else ""
    raise SystemExit(f"{problem}usage: python -m alignslm.speed COMMAND ...   (such as dvc repro)")
main(sys.argv[1:])
