"""Masked residual convolutions and the short training loop of vocoder and ASR model."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from alignslm.progress import track
from alignslm.threads import thread_map

Row = TypeVar("Row")
Result = TypeVar("Result")

WARMUP_SHARE = 0.1
MAX_GRADIENT_NORM = 1.0
MIN_STD = 1e-3  # a feature that never moves is not blown up


class DivergedError(ArithmeticError):
    """A training loss, figure or weight stopped being finite."""


class ResidualConv(nn.Module):
    """x + conv(gelu(norm(x))) over (batch, channels, frames); every frame is normalized separately."""

    def __init__(self, channels: int, kernel_size: int, dilation: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.conv = nn.Conv1d(channels, channels, kernel_size, padding=dilation * (kernel_size // 2), dilation=dilation)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Return the same shape; `mask` (batch, 1, frames) is 0 after a row's end."""
        inner = F.gelu(self.norm(x.transpose(1, 2)).transpose(1, 2).contiguous())  # 10 x faster backward
        if mask is not None:  # as for a single row: zeros after its end
            inner = inner * mask
        return x + self.conv(inner)


class ConvStack(nn.Module):
    """Residual convolutions, dilated by 1, 2, 4, 1, ..., and a closing norm: (batch, channels, frames) stays."""

    def __init__(self, *, channels: int, layers: int, kernel_size: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(ResidualConv(channels, kernel_size, 2 ** (i % 3)) for i in range(layers))
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return features; with `mask`, a padded row has the same frames as alone."""
        for layer in self.layers:
            x = layer(x, mask)
        return self.norm(x.transpose(1, 2)).transpose(1, 2)


def standardize(rows: Sequence[np.ndarray]) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Return rows (frames, features) less their mean and over their standard deviation, and these two (features,).

    Both are taken over the frames of all rows, in float64; everything returned is float32.
    """
    count = sum(len(row) for row in rows)
    mean = sum(row.sum(axis=0, dtype=np.float64) for row in rows) / count
    squares = sum(np.square(row - mean).sum(axis=0) for row in rows)
    mean32, std32 = mean.astype(np.float32), np.sqrt(squares / count).clip(MIN_STD).astype(np.float32)
    return [(row - mean32) / std32 for row in rows], mean32, std32


def length_mask(lengths: Tensor, num_frames: int) -> Tensor:
    """Return (batch, 1, num_frames) float32: 1 before each row's length, 0 from there on."""
    return (torch.arange(num_frames) < lengths[:, None]).float()[:, None]


def batches(num_rows: int, *, batch_size: int, steps: int, seed: int) -> Iterator[list[int]]:
    """Yield `steps` lists of row numbers: pass after pass over a fresh shuffle, every row once a pass.

    A batch may straddle two passes; with fewer rows than `batch_size` a row then comes twice in it.
    """
    generator = torch.Generator().manual_seed(seed)
    queue: list[int] = []
    for _ in range(steps):
        while len(queue) < batch_size:
            queue += torch.randperm(num_rows, generator=generator).tolist()
        yield queue[:batch_size]
        queue = queue[batch_size:]


def train(
    model: nn.Module, loss_of: Callable[[list[int]], Tensor], rows: Iterable[list[int]], *, steps: int, peak_rate: float
) -> list[float]:
    """Train by AdamW with a linear warm-up and a cosine decay to 0; return the loss of every step.

    DivergedError if loss or weights stop being finite.
    """
    optimiser = torch.optim.AdamW(model.parameters(), lr=peak_rate, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, peak_rate, total_steps=max(steps, 2), pct_start=WARMUP_SHARE, cycle_momentum=False
    )
    losses = []
    for step, batch in enumerate(track(rows, total=steps, label="training step")):
        loss = loss_of(batch)
        losses.append(float(loss.detach()))
        if not torch.isfinite(loss):
            raise DivergedError(
                f"the loss is {losses[-1]} at step {step} of {steps}; lower learning_rate (now {peak_rate:g}) "
                "or look for corrupt audio in the training split"
            )
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), MAX_GRADIENT_NORM)
        optimiser.step()
        schedule.step()
    if not all(bool(weight.isfinite().all()) for weight in model.parameters()):
        raise DivergedError(f"weights are not finite after {steps} steps; lower learning_rate (now {peak_rate:g})")
    return losses


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's global generator inside, demand deterministic kernels, and put both back afterwards."""
    was_deterministic = torch.are_deterministic_algorithms_enabled()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.use_deterministic_algorithms(True)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(was_deterministic)


def map_rows(function: Callable[[Row], Result], rows: Iterable[Row]) -> list[Result]:
    """Apply a torch function to every row separately, on as many threads as torch has, each row on one.

    No row meets another, so nothing depends on batches; and small convolutions run faster this way on a few
    cores than with their own threads, far faster if the cores are shared.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return thread_map(
            torch.inference_mode()(function), rows, threads=threads, enter=lambda: torch.set_num_threads(1)
        )
    finally:
        torch.set_num_threads(threads)
