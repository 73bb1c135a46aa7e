"""Device and dtype of models."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def resolve_device(name: str) -> str:
    """Turn `auto` into cuda if there is a GPU, else cpu. Each of several training processes has its own GPU."""
    found = ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name
    return f"cuda:{os.environ['LOCAL_RANK']}" if found == "cuda" and "LOCAL_RANK" in os.environ else found


def free_gpu_bytes(device: torch.device | None = None) -> int:
    """Return the memory of a GPU (by default this process's) that no tensor has: what torch keeps to reuse is free."""
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + kept


@contextmanager
def exact_float32() -> Iterator[None]:
    """Compute float32 convolutions in float32 and by the same algorithm every time.

    cuDNN otherwise rounds their inputs to TF32, 10 bits of mantissa, and may choose an algorithm that adds in varying
    order. Matrix products are float32 by torch's default.
    """
    with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
        yield


@contextmanager
def planless_attention() -> Iterator[None]:
    """Keep attention from cuDNN, for work of many shapes on a GPU; a CPU is not affected.

    torch prefers cuDNN on recent GPUs, which builds a plan for every new shape: 46 to 84 ms each were inferred on an
    H200, for attention of a tenth of a millisecond. Its kernels are the faster ones where shapes come again.
    """
    before = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(enabled=False)
    try:
        yield
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)
