"""HiFi-GAN over discrete units, batched: rows of mixed length get the same samples as alone.

The generator of Polyak et al. (2021, "Speech resynthesis from discrete disentangled self-supervised representations")
with the duration predictor of Lee et al. (2022, "Textless speech-to-speech translation on real data"): embedded units,
an entry convolution, then levels of one transposed convolution and several residual stacks of different kernels with
averaged outputs. Parameter names are those of the published checkpoints.

A convolution takes zeros beyond a row's end. In a batch there is padding, which after one convolution is no longer
zero but that convolution's bias. So the positions beyond a row's end are cleared each time.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple, Self

import torch
from pydantic import AliasPath, BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional as F

from alignslm.config.model import PositiveCount

SLOPE = 0.1
LAST_SLOPE = 0.01  # before the last convolution the published models leave torch's default
EDGE_KERNEL = 7  # width of the first and the last convolution
DURATION_KERNEL = 3  # the second convolution is published with a padding of 1, which fits only this width


class Shape(BaseModel):
    """A checkpoint's network, read from its published settings, or from those that this class wrote.

    `num_speakers`, `num_styles` None: one voice, one style. Unlike this project's own files, the published ones have
    defaults and many keys about training, which are ignored.
    """

    model_config = ConfigDict(frozen=True, validate_by_name=True, validate_by_alias=True, allow_inf_nan=False)

    sample_rate_hz: PositiveCount = Field(16000, validation_alias="sampling_rate")
    num_units: PositiveCount = Field(validation_alias="num_embeddings")
    embedding_dim: PositiveCount
    num_speakers: PositiveCount | None = None
    num_styles: PositiveCount | None = None
    duration_dim: PositiveCount | None = Field(
        None, validation_alias=AliasPath("dur_predictor_params", "var_pred_hidden_dim")
    )
    channels: PositiveCount = Field(validation_alias="upsample_initial_channel")
    upsample_rates: tuple[PositiveCount, ...]
    upsample_kernels: tuple[PositiveCount, ...] = Field(validation_alias="upsample_kernel_sizes")
    block_kernels: tuple[PositiveCount, ...] = Field(validation_alias="resblock_kernel_sizes")
    block_dilations: tuple[tuple[PositiveCount, ...], ...] = Field(validation_alias="resblock_dilation_sizes")

    @property
    def input_dim(self) -> int:
        """Channels of the embedded input: unit, speaker and style, one after the other."""
        return self.embedding_dim * (1 + (self.num_speakers is not None) + (self.num_styles is not None))

    @property
    def samples_per_frame(self) -> int:
        """How many samples one unit frame becomes."""
        return math.prod(self.upsample_rates)


class PaddingMask(NamedTuple):
    """The positions beyond rows' ends: `beyond` (batch, 1, positions - start) is True there, `start` the first end."""

    start: int
    beyond: Tensor

    @classmethod
    def of(cls, lengths: Sequence[int], device: torch.device) -> Self:
        """Describe a batch of rows of these lengths, padded to the longest."""
        start = min(lengths)
        ends = torch.tensor(lengths, device=device)[:, None, None]
        return cls(start, torch.arange(start, max(lengths), device=device) >= ends)

    def clear(self, x: Tensor) -> Tensor:
        """Zero `x` (batch, channels, [1,] positions) beyond rows' ends, in place; only the ragged end is touched."""
        if self.beyond.shape[2]:
            beyond = self.beyond if x.dim() == self.beyond.dim() else self.beyond[:, None]
            x[..., self.start :].masked_fill_(beyond, 0)
        return x


class ResidualStack(nn.Module):
    """Pairs of a dilated and a plain convolution, each pair added to its input: (batch, channels, 1, positions)."""

    def __init__(self, channels: int, kernel_size: int, dilations: Sequence[int]) -> None:
        super().__init__()
        half = (kernel_size - 1) // 2
        self.convs1 = nn.ModuleList(
            nn.Conv2d(channels, channels, (1, kernel_size), padding=(0, half * dilation), dilation=(1, dilation))
            for dilation in dilations
        )
        self.convs2 = nn.ModuleList(
            nn.Conv2d(channels, channels, (1, kernel_size), padding=(0, half)) for _ in dilations
        )

    def forward(self, x: Tensor, tail: PaddingMask) -> Tensor:
        """Return the same shape, clear beyond the rows' ends as `x` is."""
        for dilated, plain in zip(self.convs1, self.convs2, strict=True):
            inner = tail.clear(dilated(F.leaky_relu(x, SLOPE)))
            x = tail.clear(plain(F.leaky_relu_(inner, SLOPE))).add_(x)
        return x


class DurationPredictor(nn.Module):
    """Embedded units (batch, embedding, units) to ln(frames + 1) (batch, units)."""

    def __init__(self, embedding_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(nn.Conv1d(embedding_dim, hidden_dim, DURATION_KERNEL, padding=1), nn.ReLU())
        self.ln1 = nn.LayerNorm(hidden_dim)
        self.conv2 = nn.Sequential(nn.Conv1d(hidden_dim, hidden_dim, DURATION_KERNEL, padding=1), nn.ReLU())
        self.ln2 = nn.LayerNorm(hidden_dim)
        self.proj = nn.Linear(hidden_dim, 1)

    def forward(self, x: Tensor, tail: PaddingMask) -> Tensor:
        """Return the prediction; `x` must be clear beyond the rows' ends, and the values there are meaningless."""
        inner = self.ln1(self.conv1(x).transpose(1, 2)).transpose(1, 2)
        inner = self.ln2(self.conv2(tail.clear(inner)).transpose(1, 2))
        return self.proj(inner)[:, :, 0]


class UnitHifiGan(nn.Module):
    """Units, each repeated for its duration, to samples in [-1, 1].

    Convolutions are two-dimensional with a height of one, since only those can keep a position's channels together in
    memory, and a CPU then needs little more than half the time.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        dim = shape.embedding_dim
        self.dict = nn.Embedding(shape.num_units, dim)
        self.spkr = nn.Embedding(shape.num_speakers, dim) if shape.num_speakers else None
        self.style = nn.Embedding(shape.num_styles, dim) if shape.num_styles else None
        self.dur_predictor = DurationPredictor(dim, shape.duration_dim) if shape.duration_dim else None
        widths = [shape.channels >> level for level in range(len(shape.upsample_rates) + 1)]
        padding = (0, EDGE_KERNEL // 2)
        self.conv_pre = nn.Conv2d(shape.input_dim, widths[0], (1, EDGE_KERNEL), padding=padding)
        self.ups = nn.ModuleList(
            nn.ConvTranspose2d(wide, wide // 2, (1, kernel), (1, rate), padding=(0, (kernel - rate) // 2))
            for wide, kernel, rate in zip(widths[:-1], shape.upsample_kernels, shape.upsample_rates, strict=True)
        )
        self.resblocks = nn.ModuleList(
            ResidualStack(width, kernel, dilations)
            for width in widths[1:]
            for kernel, dilations in zip(shape.block_kernels, shape.block_dilations, strict=True)
        )
        self.conv_post = nn.Conv2d(widths[-1], 1, (1, EDGE_KERNEL), padding=padding)

    def convert(self, dtype: torch.dtype) -> None:
        """Let the generator's convolutions compute in a dtype; embeddings, which durations are read from, stay."""
        for part in (self.conv_pre, self.ups, self.resblocks, self.conv_post):
            part.to(dtype)

    def durations(self, units: Tensor, lengths: Sequence[int]) -> Tensor:
        """Return frames (batch, units), of padded units: exp(prediction) - 1 rounded half to even, at least 1.

        In the precision of the predictor, which should be float64: what another batch changes in the last bits then
        never carries a value across one half.
        """
        if self.dur_predictor is None:
            raise TypeError("a network without a duration predictor was asked for durations")
        tail = PaddingMask.of(lengths, units.device)
        embedded = tail.clear(self.dict(units).transpose(1, 2).to(self.dur_predictor.proj.weight.dtype))
        return self.dur_predictor(embedded, tail).expm1().round().clamp(min=1)

    def forward(
        self, frames: Tensor, lengths: Sequence[int], speaker: int | Tensor | None, style: int | None
    ) -> tuple[Tensor, list[int]]:
        """Return samples (batch, samples) of padded units (batch, frames), and how many samples are each row's own.

        One speaker's number is for all rows; a tensor (batch, 1) has one per row.
        """
        tail = PaddingMask.of(lengths, frames.device)
        inputs = self._inputs(frames, speaker, style).to(self.conv_pre.weight.dtype)
        x = tail.clear(self.conv_pre(tail.clear(inputs)))
        num_stacks = len(self.shape.block_kernels)
        for level, up in enumerate(self.ups):
            lengths = [_length_after(up, length) for length in lengths]
            tail = PaddingMask.of(lengths, frames.device)
            x = tail.clear(up(F.leaky_relu_(x, SLOPE)))
            stacks = self.resblocks[level * num_stacks : (level + 1) * num_stacks]
            total = stacks[0](x, tail)
            for stack in stacks[1:]:
                total += stack(x, tail)
            x = total.div_(num_stacks)
        samples = torch.tanh(self.conv_post(F.leaky_relu_(x, LAST_SLOPE)).float())
        return samples[:, 0, 0], list(lengths)

    def _inputs(self, frames: Tensor, speaker: int | Tensor | None, style: int | None) -> Tensor:
        """Return (batch, input_dim, 1, frames): the unit's embedding, then the speaker's, then the style's."""
        parts = [self.dict(frames)]
        for embedding, chosen in ((self.spkr, speaker), (self.style, style)):
            if embedding is not None and chosen is not None:
                parts.append(embedding(torch.as_tensor(chosen, device=frames.device).expand_as(frames)))
        return torch.cat(parts, dim=2).transpose(1, 2).unsqueeze(2)


def _length_after(up: nn.Module, length: int) -> int:
    """Return how many positions a transposed convolution makes of `length`: rate times, or one more."""
    assert isinstance(up, nn.ConvTranspose2d)  # noqa: S101 - for the type checker
    return (length - 1) * up.stride[1] - 2 * int(up.padding[1]) + up.kernel_size[1]


def to_channels_last(network: UnitHifiGan) -> None:
    """Lay the weights of two-dimensional convolutions out channels last, which torch then keeps for activations."""
    for weight in network.parameters():
        if weight.dim() == 4:
            weight.data = weight.data.contiguous(memory_format=torch.channels_last)
