"""Metadata in a HuBERT checkpoint's files, compared with the config."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

from transformers import HubertConfig

from alignslm.config.hubert import HubertEncoderConfig
from alignslm.config.model_folders import settings_problems
from alignslm.encoder.waveforms import EncoderError
from alignslm.encoder.windows import Framing


@dataclass(frozen=True)
class CheckpointInfo:
    """Layers, width and framing of a checkpoint. `sample_rate_hz` is None if there is no preprocessor file."""

    path: Path
    layers: int
    width: int
    framing: Framing
    sample_rate_hz: int | None

    def require_fitting(self, config: HubertEncoderConfig) -> None:
        """Raise EncoderError listing every field of the config that is wrong for this checkpoint."""
        faults = []
        if config.layer > self.layers:
            faults.append(f"layer is {config.layer}, but it has {self.layers} layers")
        if config.hop_samples != self.framing.hop_samples:
            faults.append(f"hop_samples is {config.hop_samples}, but its strides make {self.framing.hop_samples}")
        if self.sample_rate_hz not in {None, config.sample_rate_hz}:
            faults.append(f"sample_rate_hz is {config.sample_rate_hz}, but it expects {self.sample_rate_hz} Hz")
        if faults:
            raise EncoderError(
                f"checkpoint {self.path} is not what the config says: {'; '.join(faults)}. "
                "Correct the values in experiments/encoder/, or use another checkpoint."
            )

    def require_width(self, width: int, *, layer: int) -> None:
        """Raise EncoderError unless a codebook of this width lives in the space of the layer's features."""
        if width != self.width:
            raise EncoderError(
                f"the codebook's centroids have {width} features, but layer {layer} of checkpoint {self.path} gives "
                f"{self.width}: it was made with another model. Name the codebook made with this one."
            )


def read_checkpoint_info(path: Path) -> CheckpointInfo:
    """Read config.json and, if it exists, preprocessor_config.json. EncoderError if it is not a HubertModel."""
    file, preprocessor = path / "config.json", path / "preprocessor_config.json"
    if not file.is_file():
        raise EncoderError(f"checkpoint {path} has no config.json, so it is not a transformers checkpoint.")
    if problems := settings_problems(path):
        raise EncoderError(" ".join(f"{problem}." for problem in problems))
    values = json.loads(file.read_text())
    if values.get("model_type") != "hubert":
        raise EncoderError(f"checkpoint {path} is of model_type {values.get('model_type')!r}, expected 'hubert'.")
    rate = json.loads(preprocessor.read_text()).get("sampling_rate") if preprocessor.is_file() else None
    config = HubertConfig.from_dict(values)
    return CheckpointInfo(
        path, config.num_hidden_layers, config.hidden_size, framing_of(config.conv_kernel, config.conv_stride), rate
    )


def framing_of(kernels: Sequence[int], strides: Sequence[int]) -> Framing:
    """Return the framing of unpadded convolutions, one after another."""
    receptive = 1
    for kernel, stride in zip(reversed(kernels), reversed(strides), strict=True):
        receptive = (receptive - 1) * stride + kernel
    return Framing(prod(strides), receptive)
