"""The most memory that a call takes beyond what was held before it."""

import ctypes
import gc
import re
from collections.abc import Callable
from pathlib import Path

import torch

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak_bytes(call: Callable[[], object], *, device: str) -> int | None:
    """Run once; return the peak of allocated memory above the start. None where the system does not tell.

    On a GPU what torch allocated there, else this process's resident set, whose mark Linux lets one lower.
    """
    gc.collect()
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        return torch.cuda.max_memory_allocated() - before
    if not _lower_mark():
        return None
    before = _kilobytes("VmRSS")
    call()
    return max(0, _kilobytes("VmHWM") - before) * 1024


def _lower_mark() -> bool:
    """Give freed memory back to the system and start the high-water mark anew; False where that cannot be done."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
        CLEAR.write_text("5")
    except (OSError, AttributeError):  # not Linux with glibc
        return False
    return True


def _kilobytes(name: str) -> int:
    return int(re.search(rf"^{name}:\s+(\d+) kB$", STATUS.read_text(), re.MULTILINE)[1])  # type: ignore[index]
