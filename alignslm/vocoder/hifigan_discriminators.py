"""The discriminators that a HiFi-GAN is trained against (Kong et al., 2020, "HiFi-GAN", section 2.3).

Each maps waveforms (batch, samples) to a score per place, wanted 1 for recordings and 0 for synthesized speech, and to
its inner activations, which the generator is trained to match.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

SLOPE = 0.1
PERIOD_KERNEL, PERIOD_STRIDE = 5, 3
# Kernel, stride and groups of a scale discriminator's convolutions.
SCALE_LAYERS = ((15, 1, 1), (41, 2, 4), (41, 2, 16), (41, 4, 16), (41, 4, 16), (41, 1, 16), (5, 1, 1))


class Opinion(NamedTuple):
    """One discriminator's output: its score per place, and the activations of its layers."""

    score: Tensor
    features: list[Tensor]


class PeriodDiscriminator(nn.Module):
    """Sees every `period`th sample as a column: convolutions run along the columns only."""

    def __init__(self, period: int, channels: int) -> None:
        super().__init__()
        self.period = period
        widths = (1, channels // 32, channels // 8, channels // 2, channels, channels)
        strides = (*[PERIOD_STRIDE] * (len(widths) - 2), 1)
        self.convs = nn.ModuleList(
            weight_norm(nn.Conv2d(one, other, (PERIOD_KERNEL, 1), (stride, 1), padding=(PERIOD_KERNEL // 2, 0)))
            for one, other, stride in zip(widths[:-1], widths[1:], strides, strict=True)
        )
        self.conv_post = weight_norm(nn.Conv2d(channels, 1, (3, 1), padding=(1, 0)))

    def forward(self, waveform: Tensor) -> Opinion:
        """Return the opinion on waveforms (batch, samples); the last column is filled up with zeros."""
        filled = F.pad(waveform, (0, -waveform.shape[1] % self.period))
        return _opinion(filled.view(len(filled), 1, -1, self.period), self.convs, self.conv_post)


class ScaleDiscriminator(nn.Module):
    """Sees the waveform averaged to 1 / 2 ** `halvings` of its rate; the one at full rate is spectrally normalised."""

    def __init__(self, halvings: int, channels: int) -> None:
        super().__init__()
        self.pools = nn.ModuleList(nn.AvgPool1d(4, 2, padding=2) for _ in range(halvings))
        normalized = weight_norm if halvings else spectral_norm
        widths = (1, *(channels // part for part in (8, 8, 4, 2, 1, 1, 1)))
        self.convs = nn.ModuleList(
            normalized(nn.Conv1d(one, other, kernel, stride, padding=kernel // 2, groups=math.gcd(groups, one, other)))
            for one, other, (kernel, stride, groups) in zip(widths[:-1], widths[1:], SCALE_LAYERS, strict=True)
        )
        self.conv_post = normalized(nn.Conv1d(channels, 1, 3, padding=1))

    def forward(self, waveform: Tensor) -> Opinion:
        """Return the opinion on waveforms (batch, samples)."""
        x = waveform[:, None]
        for pool in self.pools:
            x = pool(x)
        return _opinion(x, self.convs, self.conv_post)


def _opinion(x: Tensor, convs: nn.ModuleList, conv_post: nn.Module) -> Opinion:
    features = []
    for conv in convs:
        x = F.leaky_relu(conv(x), SLOPE)
        features.append(x)
    x = conv_post(x)
    return Opinion(x.flatten(1), [*features, x])


class Discriminators(nn.Module):
    """One discriminator per period, and one per halving of the rate."""

    def __init__(self, *, periods: Sequence[int], scales: int, channels: int) -> None:
        super().__init__()
        self.all = nn.ModuleList(
            [
                *(PeriodDiscriminator(period, channels) for period in periods),
                *(ScaleDiscriminator(halvings, channels) for halvings in range(scales)),
            ]
        )

    def forward(self, waveform: Tensor) -> list[Opinion]:
        """Return every discriminator's opinion on waveforms (batch, samples)."""
        return [one(waveform) for one in self.all]


def discriminator_loss(real: Sequence[Opinion], synthesized: Sequence[Opinion]) -> Tensor:
    """Return the least-squares loss of the discriminators: recordings are 1, synthesized speech is 0 (equation 1)."""
    losses = [
        (1 - one.score).square().mean() + other.score.square().mean()
        for one, other in zip(real, synthesized, strict=True)
    ]
    return sum(losses[1:], start=losses[0])


def adversarial_loss(synthesized: Sequence[Opinion]) -> Tensor:
    """Return the generator's least-squares loss: synthesized speech is to be taken for 1 (equation 2)."""
    losses = [(1 - one.score).square().mean() for one in synthesized]
    return sum(losses[1:], start=losses[0])


def feature_loss(real: Sequence[Opinion], synthesized: Sequence[Opinion]) -> Tensor:
    """Return the mean absolute difference of activations, summed over layers and discriminators (equation 4)."""
    losses = [
        F.l1_loss(there, here.detach())
        for one, other in zip(real, synthesized, strict=True)
        for here, there in zip(one.features, other.features, strict=True)
    ]
    return sum(losses[1:], start=losses[0])
