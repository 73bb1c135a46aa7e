"""A tiny unit HiFi-GAN checkpoint in its public form, and a slow plain reading of that form, written apart."""

import itertools
import json
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from alignslm.config.unit_hifigan import UnitHiFiGANConfig
from alignslm.provenance import UnitContract

NUM_UNITS = 20
RATE_HZ = 16000
SETTINGS = {
    "resblock": "1",
    "batch_size": 16,  # training keys stand in published files too
    "dist_config": {"dist_backend": "nccl"},
    "upsample_rates": [5, 4, 4, 4, 2],
    "upsample_kernel_sizes": [11, 8, 8, 8, 4],
    "upsample_initial_channel": 64,
    "resblock_kernel_sizes": [3, 7],
    "resblock_dilation_sizes": [[1, 3, 5], [1, 2, 3]],
    "num_embeddings": NUM_UNITS,
    "embedding_dim": 12,
    "model_in_dim": 12,
    "code_hop_size": 640,
    "f0": False,
    "dur_predictor_params": {
        "encoder_embed_dim": 12,
        "var_pred_hidden_dim": 10,
        "var_pred_kernel_size": 3,
        "var_pred_dropout": 0.5,
    },
    "sampling_rate": RATE_HZ,
}
SEVERAL = {  # three voices, two styles
    "multispkr": "_",
    "num_speakers": 3,
    "multistyle": True,
    "num_styles": 2,
    "model_in_dim": 36,
}
CONTRACT = UnitContract(
    encoder="test",
    revision="1",
    sample_rate_hz=RATE_HZ,
    frame_rate_hz=25.0,
    layer=11,
    padding="none",
    codebook_sha256="00",
    num_units=NUM_UNITS,
    deduplicated=True,
)


def contract_of(settings: dict) -> UnitContract:
    samples = int(np.prod(settings["upsample_rates"]))
    update = {"num_units": settings["num_embeddings"], "frame_rate_hz": settings["sampling_rate"] / samples}
    return CONTRACT.model_copy(update=update)


class Weights:
    """Random weights as published: torch's older weight normalisation on every convolution of the generator."""

    def __init__(self, seed: int) -> None:
        self.state: dict[str, torch.Tensor] = {}
        self._random = torch.Generator().manual_seed(seed)

    def draw(self, *shape: int, scale: float) -> torch.Tensor:
        return scale * torch.randn(*shape, generator=self._random)

    def embedding(self, name: str, count: int, dim: int) -> None:
        self.state[f"{name}.weight"] = self.draw(count, dim, scale=1.0)

    def convolution(self, name: str, *shape: int, bias: int) -> None:
        """Gains keep the loudness of what passes through: tanh must not hide differences."""
        inputs = shape[0] * shape[2] / 4 if name.startswith("ups") else shape[1] * shape[2]
        direction = self.draw(*shape, scale=1.0)
        gain = direction.flatten(1).norm(dim=1).view(-1, 1, 1) * (0.7 / inputs**0.5)
        self.state[f"{name}.bias"] = self.draw(bias, scale=0.2)
        self.state[f"{name}.weight_g"] = gain * (1 + 0.1 * torch.rand(gain.shape, generator=self._random))
        self.state[f"{name}.weight_v"] = direction

    def durations(self, dim: int, hidden: int) -> None:
        for number, inside in ((1, dim), (2, hidden)):
            self.state[f"dur_predictor.conv{number}.0.weight"] = self.draw(hidden, inside, 3, scale=0.5)
            self.state[f"dur_predictor.conv{number}.0.bias"] = self.draw(hidden, scale=0.5)
            self.state[f"dur_predictor.ln{number}.weight"] = 1 + self.draw(hidden, scale=0.1)
            self.state[f"dur_predictor.ln{number}.bias"] = self.draw(hidden, scale=0.1)
        self.state["dur_predictor.proj.weight"] = self.draw(1, hidden, scale=0.2)
        self.state["dur_predictor.proj.bias"] = torch.tensor([1.0])

    def levels(self, width: int, settings: dict) -> None:
        blocks = list(zip(settings["resblock_kernel_sizes"], settings["resblock_dilation_sizes"], strict=True))
        self.convolution("conv_pre", width, settings["model_in_dim"], 7, bias=width)
        for level, kernel in enumerate(settings["upsample_kernel_sizes"]):
            self.convolution(f"ups.{level}", width, width // 2, kernel, bias=width // 2)
            width //= 2
            for number, (size, dilations) in enumerate(blocks, level * len(blocks)):
                for part, index in itertools.product(("convs1", "convs2"), range(len(dilations))):
                    self.convolution(f"resblocks.{number}.{part}.{index}", width, width, size, bias=width)
        self.convolution("conv_post", 1, width, 7, bias=1)


def random_generator(settings: dict, seed: int = 0) -> dict[str, torch.Tensor]:
    """Return the tensors of a checkpoint's `generator`."""
    weights, dim = Weights(seed), settings["embedding_dim"]
    weights.embedding("dict", settings["num_embeddings"], dim)
    if settings.get("multispkr"):
        weights.embedding("spkr", settings["num_speakers"], dim)
    if settings.get("multistyle"):
        weights.embedding("style", settings["num_styles"], dim)
    if duration := settings.get("dur_predictor_params"):
        weights.durations(dim, duration["var_pred_hidden_dim"])
    weights.levels(settings["upsample_initial_channel"], settings)
    return weights.state


def write_checkpoint(folder: Path, settings: dict | None = None, *, seed: int = 0, **changes: object) -> dict:
    """Write generator.pt and config.json (and lists of names where there are several voices); return the settings."""
    settings = {**(settings or SETTINGS), **changes}
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({"generator": random_generator(settings, seed)}, folder / "generator.pt")
    (folder / "config.json").write_text(json.dumps(settings))
    if settings.get("multispkr"):
        (folder / "speakers.txt").write_text("lj\nex01\nvctk_p225\n")
    if settings.get("multistyle"):
        (folder / "styles.txt").write_text("read\nwhisper\n")
    return settings


def config_of(folder: Path, **changes: object) -> UnitHiFiGANConfig:
    """Return the choice of a checkpoint written by `write_checkpoint`."""

    def source(name: str) -> dict | None:
        return {"kind": "folder", "path": str(folder / name)} if (folder / name).exists() else None

    values = {
        "kind": "unit-hifigan",
        "weights": {"kind": "folder", "path": str(folder / "generator.pt")},
        "settings": {"kind": "folder", "path": str(folder / "config.json")},
        "speakers": source("speakers.txt"),
        "styles": source("styles.txt"),
        "speaker": None,
        "style": None,
        "layer": None,
        "codebook_file_sha256": None,
        "sample_rate_hz": RATE_HZ,
    }
    return UnitHiFiGANConfig.model_validate({**values, **changes})


# ---- The oracle: one sequence, torch functions, float64, straight from the architecture ------------------------------


def _weight(state: dict[str, torch.Tensor], name: str) -> torch.Tensor:
    """w = g v / |v|, one slice of the first axis at a time."""
    gain, direction = state[f"{name}.weight_g"].double(), state[f"{name}.weight_v"].double()
    return torch.stack([g * v / torch.sqrt((v * v).sum()) for g, v in zip(gain.flatten(), direction, strict=True)])


def _conv(state: dict[str, torch.Tensor], name: str, x: torch.Tensor, dilation: int = 1) -> torch.Tensor:
    """A convolution as its sum: out[t] = bias + sum over taps of W[tap] x[t + (tap - middle) * dilation]."""
    weight, (_, length) = _weight(state, name), x.shape
    size = weight.shape[2]
    out = state[f"{name}.bias"].double()[:, None].repeat(1, length)
    for tap in range(size):
        shift = (tap - size // 2) * dilation
        begin, end = max(0, -shift), min(length, length - shift)
        if begin < end:
            out[:, begin:end] += weight[:, :, tap] @ x[:, begin + shift : end + shift]
    return out


def _upsampled(state: dict[str, torch.Tensor], name: str, x: torch.Tensor, rate: int) -> torch.Tensor:
    """A transposed convolution as its sum: every position adds its kernel to the output from position * rate on."""
    weight = _weight(state, name)  # (in, out, taps)
    size, padding = weight.shape[2], (weight.shape[2] - rate) // 2
    out = torch.zeros(weight.shape[1], (x.shape[1] - 1) * rate + size, dtype=torch.float64)
    for position in range(x.shape[1]):
        out[:, position * rate : position * rate + size] += torch.einsum("i,iok->ok", x[:, position], weight)
    return out[:, padding : out.shape[1] - padding] + state[f"{name}.bias"].double()[:, None]


def naive_durations(state: dict[str, torch.Tensor], units: list[int]) -> list[int]:
    x = state["dict.weight"].double()[units]  # (units, dim)
    for number in (1, 2):
        name = f"dur_predictor.conv{number}.0"
        weight, bias = state[f"{name}.weight"].double(), state[f"{name}.bias"].double()
        padded = torch.cat([torch.zeros(1, x.shape[1]), x, torch.zeros(1, x.shape[1])])
        taps = [padded[tap : tap + len(x)] @ weight[:, :, tap].T for tap in range(3)]
        x = torch.relu(sum(taps) + bias)
        scale, shift = (state[f"dur_predictor.ln{number}.{part}"].double() for part in ("weight", "bias"))
        spread = torch.sqrt(((x - x.mean(1, keepdim=True)) ** 2).mean(1, keepdim=True) + 1e-5)
        x = (x - x.mean(1, keepdim=True)) / spread * scale + shift
    predicted = x @ state["dur_predictor.proj.weight"].double()[0] + state["dur_predictor.proj.bias"].double()
    return [max(1, round(float(torch.exp(value) - 1))) for value in predicted]


def naive_speech(
    state: dict[str, torch.Tensor], settings: dict, frames: list[int], speaker: int = 0, style: int = 0
) -> np.ndarray:
    """Return the samples of units already repeated for their durations."""
    parts = [state["dict.weight"][frames]]
    if settings.get("multispkr"):
        parts.append(state["spkr.weight"][[speaker] * len(frames)])
    if settings.get("multistyle"):
        parts.append(state["style.weight"][[style] * len(frames)])
    x = _conv(state, "conv_pre", torch.cat(parts, dim=1).double().T)
    blocks = settings["resblock_dilation_sizes"]
    for level, rate in enumerate(settings["upsample_rates"]):
        x = _upsampled(state, f"ups.{level}", F.leaky_relu(x, 0.1), rate)
        outputs = []
        for number, dilations in enumerate(blocks):
            y = x
            for index, dilation in enumerate(dilations):
                name = f"resblocks.{level * len(blocks) + number}"
                inner = _conv(state, f"{name}.convs1.{index}", F.leaky_relu(y, 0.1), dilation)
                y = y + _conv(state, f"{name}.convs2.{index}", F.leaky_relu(inner, 0.1))
            outputs.append(y)
        x = sum(outputs) / len(outputs)
    return torch.tanh(_conv(state, "conv_post", F.leaky_relu(x, 0.01)))[0].numpy()
