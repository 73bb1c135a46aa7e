"""The machine a benchmark ran on, and how fast it is at the two things that bound everything: products and memory."""

import os
import platform
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from alignslm.machine import cores
from alignslm.speed.onednn import fast_linear

REPEATS = 5
CPU_SIDE, GPU_SIDE = 1024, 8192  # of the square matrices multiplied
CPU_BYTES, GPU_BYTES = 1 << 28, 1 << 32  # more than caches hold


@dataclass(frozen=True)
class Machine:
    """What one has to know to compare figures; rates are measured, the best of a few tries.

    `flop_per_s` is by the models' dtype: on a GPU, bfloat16 products are many times as fast as float32 ones.
    """

    name: str
    cores: int
    threads: int
    memory_bytes: int
    torch: str
    device: str
    flop_per_s: dict[str, float]
    bytes_per_s: float


def describe(device: str, dtype: torch.dtype) -> Machine:
    """Measure and describe. Rates are those of `dtype` and of float32, which encoder and vocoder compute in."""
    cuda = torch.device(device).type == "cuda"
    memory = torch.cuda.get_device_properties(device).total_memory if cuda else _memory()
    return Machine(
        name=torch.cuda.get_device_name(device) if cuda else _processor(),
        cores=cores(),
        threads=torch.get_num_threads(),
        memory_bytes=memory,
        torch=torch.__version__,
        device=device,
        flop_per_s={
            name_of(each): matrix_rate(device, each, side=GPU_SIDE if cuda else CPU_SIDE)
            for each in dict.fromkeys((dtype, torch.float32))
        },
        bytes_per_s=copy_rate(device, num_bytes=GPU_BYTES if cuda else CPU_BYTES),
    )


def name_of(dtype: torch.dtype) -> str:
    """Return `float32` of torch.float32."""
    return str(dtype).removeprefix("torch.")


def matrix_rate(device: str, dtype: torch.dtype, *, side: int) -> float:
    """Return flop per second of a product of two square matrices, by the quickest way torch has."""
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    with torch.inference_mode(), fast_linear(torch.device(device)):
        return 2 * side**3 / _quickest(lambda: torch.nn.functional.linear(left, right), device)


def copy_rate(device: str, *, num_bytes: int) -> float:
    """Return bytes per second read and written by a copy in memory, both counted."""
    source = torch.ones(num_bytes // 4, device=device)
    target = torch.empty_like(source)
    return 2 * num_bytes / _quickest(lambda: target.copy_(source), device)


def synchronise(device: str) -> None:
    """Wait until the device has done what it was given."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()


def _quickest(call: Callable[[], object], device: str) -> float:
    call()
    times = []
    for _ in range(REPEATS):
        synchronise(device)
        began = time.perf_counter()
        call()
        synchronise(device)
        times.append(time.perf_counter() - began)
    return min(times)


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE) if info.exists() else None
    return found[1] if found else platform.processor() or platform.machine()


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
