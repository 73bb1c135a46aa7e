"""Properties of this machine: processor cores, GPU, bfloat16 instructions. Light to import: no torch."""

import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

GPUS = (Path("/dev/nvidiactl"), Path("/dev/kfd"))
_MEMORY_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
_CPUINFO = Path("/proc/cpuinfo")
# Feature names of products of bfloat16 in /proc/cpuinfo: AVX512-BF16 and AMX on x86, BF16 on ARM.
_BFLOAT16 = {"avx512_bf16", "amx_bf16", "bf16"}
# Values of ONEDNN_MAX_CPU_ISA (the library that multiplies bfloat16 on x86) that leave these instructions unused.
_WITHOUT_BFLOAT16 = {"SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX512_CORE", "AVX512_CORE_VNNI"}


def cores() -> int:
    """Return how many cores this process may use: affinity and container quotas count, not the machine's cores."""
    from joblib import cpu_count

    return cpu_count()


def processor() -> str:
    """Return the processor's name; its architecture if the system does not provide it (Linux on x86 does)."""
    lines = _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines() if _CPUINFO.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def has_gpu() -> bool:
    """Return whether the driver of a GPU is loaded (NVIDIA or AMD, on Linux)."""
    return any(gpu.exists() for gpu in GPUS)


def multiplies_bfloat16() -> bool | None:
    """Return whether the processor has instructions for bfloat16 products; None if unknown.

    It is read from /proc/cpuinfo, so it is known on Linux only. ONEDNN_MAX_CPU_ISA is honoured.
    """
    if platform.machine() in {"x86_64", "AMD64"} and os.environ.get("ONEDNN_MAX_CPU_ISA", "") in _WITHOUT_BFLOAT16:
        return False
    try:
        lines = _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    features = {name for line in lines if line.lower().startswith(("flags", "features")) for name in line.split()[1:]}
    return bool(features & _BFLOAT16) if features else None


class DeviceMemory(NamedTuple):
    """What models compute in: a GPU and its memory, else this machine's, in bytes."""

    name: str
    num_bytes: int


def gpus() -> list[DeviceMemory]:
    """Return the GPUs that nvidia-smi lists, as many of them as CUDA_VISIBLE_DEVICES names."""
    command = shutil.which("nvidia-smi")
    if not command:
        return []
    query = [command, "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    printed = subprocess.run(query, capture_output=True, text=True, check=False, timeout=20).stdout  # noqa: S603
    rows = [line.rpartition(", ") for line in printed.splitlines()]
    found = [DeviceMemory(name, int(size) << 20) for name, _, size in rows if size.strip().isdecimal()]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return found if visible is None else found[: len([name for name in visible.split(",") if name not in {"", "-1"}])]


def device_memory() -> DeviceMemory:
    """Return the first GPU, else the machine's memory (a container's limit, if there is one)."""
    if found := gpus():
        return found[0]
    return DeviceMemory("this machine", host_memory())


def host_memory() -> int:
    """Return the bytes of this machine's memory, or of a container's limit."""
    import psutil

    return min([psutil.virtual_memory().total, *_limits()])


def _limits() -> Iterator[int]:
    for file in _MEMORY_LIMITS:
        if file.exists() and (text := file.read_text().strip()).isdecimal():
            yield int(text)
