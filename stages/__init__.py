"""The stages of dvc.yaml: each parses its parameters, reads tables, calls alignslm and writes tables."""

import os
import time

from alignslm import lifeline, times
from alignslm.speed import forkserver, process

if module := forkserver.requested_stage():
    os.environ[times.STARTED] = f"{time.time():.3f}"
    lifeline.follow()
    if address := os.environ.get(forkserver.VARIABLE):
        forkserver.run_in_fork(module, address)

process.collect_less()
process.keep_memory()
