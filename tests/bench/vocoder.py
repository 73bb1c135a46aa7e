"""Unit HiFi-GAN: against the network as published, one clip at a time with one-dimensional convolutions."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from alignslm.device import exact_float32
from alignslm.vocoder.unit_hifigan import BATCH_SAMPLES, UnitHifiganVocoder, Voice
from alignslm.vocoder.unit_hifigan_net import LAST_SLOPE, SLOPE, Shape, UnitHifiGan
from tests.bench.case import Case, Cost, max_abs_difference
from tests.bench.models import FRAMES_HZ, RATE_HZ, SHAPES, Size, contract

CLIPS = 16
RATES, KERNELS = (5, 4, 4, 4, 2), (11, 8, 8, 8, 4)
DILATIONS = (1, 3, 5)
TOLERANCE = {"float32": 1e-4, "float16": 0.01}


def _shape(*, channels: int, block_kernels: tuple[int, ...]) -> Shape:
    """Return the published shape (mHuBERT 25 Hz, one voice) with this width and these residual stacks."""
    return Shape(
        sample_rate_hz=RATE_HZ,
        num_units=500,
        embedding_dim=128,
        num_speakers=None,
        num_styles=None,
        duration_dim=None,
        channels=channels,
        upsample_rates=RATES,
        upsample_kernels=KERNELS,
        block_kernels=block_kernels,
        block_dilations=(DILATIONS,) * len(block_kernels),
    )


class _AsPublished:
    """The generator of Polyak et al. on (channels, positions) of one clip, weights shared with ours."""

    def __init__(self, network: UnitHifiGan) -> None:
        self.shape = network.shape
        self.weights = {
            name: (value.squeeze(2) if value.dim() == 4 else value).contiguous()
            for name, value in network.state_dict().items()
        }

    def _conv(self, name: str, x: Tensor, dilation: int = 1) -> Tensor:
        weight = self.weights[f"{name}.weight"]
        half = dilation * (weight.shape[2] - 1) // 2
        return F.conv1d(x, weight, self.weights[f"{name}.bias"], padding=half, dilation=dilation)

    def _stack(self, name: str, x: Tensor) -> Tensor:
        for number, dilation in enumerate(DILATIONS):
            inner = self._conv(f"{name}.convs1.{number}", F.leaky_relu(x, SLOPE), dilation)
            x = x + self._conv(f"{name}.convs2.{number}", F.leaky_relu(inner, SLOPE))
        return x

    @torch.inference_mode()
    def speak(self, units: list[int]) -> np.ndarray:
        """Return samples, in float32 throughout as ours."""
        with exact_float32():
            return self._speak(units)

    def _speak(self, units: list[int]) -> np.ndarray:
        embedding, count = self.weights["dict.weight"], len(self.shape.block_kernels)
        x = self._conv("conv_pre", embedding[torch.tensor(units, device=embedding.device)].T[None])
        for level, (rate, kernel) in enumerate(zip(RATES, KERNELS, strict=True)):
            weight, bias = self.weights[f"ups.{level}.weight"], self.weights[f"ups.{level}.bias"]
            x = F.conv_transpose1d(F.leaky_relu(x, SLOPE), weight, bias, stride=rate, padding=(kernel - rate) // 2)
            x = sum((self._stack(f"resblocks.{level * count + n}", x) for n in range(count)), torch.zeros(())) / count
        return torch.tanh(self._conv("conv_post", F.leaky_relu(x, LAST_SLOPE)))[0, 0].cpu().numpy()


def case(size: Size, *, scale: int, device: str, dtype: str = "float32") -> Case:
    """Build the work: clips of one to four seconds, as continuations of prompts are. `dtype` is that of our path."""
    tiny = size == "tiny"
    shape = _shape(channels=32, block_kernels=(3,)) if tiny else _shape(channels=512, block_kernels=(3, 7, 11))
    torch.manual_seed(0)
    network = UnitHifiGan(shape).to(device)
    published = _AsPublished(network)  # shares its weights, so it is asked for them before they are converted
    voice = Voice(
        contract=contract(500).model_copy(update={"deduplicated": False}),
        shape=shape,
        speaker=None,
        style=None,
        sources={},
    )
    batch_samples = None if torch.device(device).type == "cpu" else BATCH_SAMPLES
    ours = UnitHifiganVocoder(voice, network, device=device, batch_samples=batch_samples, dtype=dtype)
    rng = np.random.default_rng(0)
    count = scale * (4 if tiny else CLIPS * SHAPES[size].work)
    clips = [rng.integers(0, 500, length).tolist() for length in rng.integers(25, 101, count)]
    return Case(
        stage="vocoder",
        shape=f"{count} clips of 1 to 4 s",
        model=network,
        counted="seconds of audio",
        amount=sum(map(len, clips)) / FRAMES_HZ,
        paths={
            "ours": lambda: ours.synthesize(clips),
            "clip by clip": lambda: [published.speak(units) for units in clips],
        },
        difference=max_abs_difference,
        tolerance=TOLERANCE[dtype],
        unit="of full scale",
        cost=Cost(sum(map(len, clips)) * _frame_flop(shape), None),
    )


def _frame_flop(shape: Shape) -> float:
    """Return flop of one unit frame: of every convolution taps times channels in and out, twice a position."""
    positions, width = 1, shape.channels
    taps = 7 * shape.input_dim * width
    for rate, kernel in zip(RATES, KERNELS, strict=True):
        taps += positions * kernel * width * (width // 2)
        positions, width = positions * rate, width // 2
        taps += positions * width**2 * 2 * len(DILATIONS) * sum(shape.block_kernels)
    return 2.0 * (taps + positions * 7 * width)
