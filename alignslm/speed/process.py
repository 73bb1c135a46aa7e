"""How a stage's process collects garbage and gives memory back."""

import atexit
import ctypes
import gc
import sys

_KEEP_BYTES = 1 << 30
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # mallopt(3)


def collect_less() -> None:
    """Let the collector run rarely, and not at the end.

    A stage runs for seconds and imports half a million objects. At Python's default thresholds the collector walks
    through them dozens of times during imports and once more at the end: 1.9 s of the 4.4 s that a process needs to
    import a language model and end (measured on two cores).
    """
    gc.set_threshold(100_000)
    atexit.register(gc.freeze)


def keep_memory() -> None:
    """Have glibc keep the memory of large arrays for the next ones.

    It otherwise returns every large array to the system and has the next one zeroed: a tenth of sampling, a sixth of
    fitting the ASR model. Kept memory is reused, so the peak stays (measured: within 5 %).
    """
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:  # musl: none
        mallopt(_TRIM_THRESHOLD, _KEEP_BYTES)
        mallopt(_MMAP_THRESHOLD, _KEEP_BYTES)
