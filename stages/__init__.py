"""The stages of dvc.yaml: each parses its parameters, reads tables, calls alignslm and writes tables."""

import atexit
import ctypes
import gc
import os
import sys
import time

from alignslm import lifeline, times, warm

if module := warm.stage_asked_for():
    os.environ[times.STARTED] = f"{time.time():.3f}"
    lifeline.follow()
    if address := os.environ.get(warm.VARIABLE):
        warm.hand_over(module, address)

# A stage lives for seconds and imports half a million objects. At Python's default thresholds the collector walks
# through them dozens of times while they are imported and once more when all is done: together 1.9 s of the 4.4 s that
# a process needs to import a language model and end (measured on two cores).
gc.set_threshold(100_000)
atexit.register(gc.freeze)

# glibc gives every large array back to the system and has it zeroed again for the next one: a tenth of sampling, a
# sixth of fitting the recogniser. Kept memory is used again, so the peak stays (measured: within 5 %).
_KEEP_BYTES = 1 << 30
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # mallopt(3)
if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:  # musl has none
    mallopt(_TRIM_THRESHOLD, _KEEP_BYTES)
    mallopt(_MMAP_THRESHOLD, _KEEP_BYTES)
