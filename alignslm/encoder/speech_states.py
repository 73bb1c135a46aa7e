"""The states of one layer of a speech encoder, for speech as long as it is: one for every FRAME_SAMPLES samples."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel

from alignslm.config.speech_kmeans import FRAME_SAMPLES, RATE_HZ, SpeechKMeansConfig
from alignslm.device import exact_float32, resolve_device
from alignslm.encoder.checkpoint_info import framing_of
from alignslm.encoder.waveforms import EncoderError
from alignslm.loading import load_pretrained, weights_errors
from alignslm.loading.ctranslate2 import is_ctranslate2
from alignslm.loading.whisper import read_extractor, read_model

CONVOLUTIONAL = ("hubert", "wav2vec2", "wavlm")


class SpeechStates:
    """Maps (samples,), a multiple of FRAME_SAMPLES, to (states, width) float32."""

    def __init__(self, config: SpeechKMeansConfig, model: Any, device: torch.device) -> None:
        self.config, self.device, self.model = config, device, model.to(device)

    def __call__(self, samples: np.ndarray) -> torch.Tensor:
        """Return the states."""
        given = torch.from_numpy(samples)
        if self.config.normalise_input:
            given = F.layer_norm(given, given.shape)
        with torch.inference_mode(), exact_float32():
            return self._states(given)[0].float()

    def _states(self, samples: torch.Tensor) -> torch.Tensor:
        """Fill up with zeros on either side, so that unpadded convolutions begin at every FRAME_SAMPLES."""
        beyond = (
            framing_of(self.model.config.conv_kernel, self.model.config.conv_stride).receptive_samples - FRAME_SAMPLES
        )
        padded = F.pad(samples, (beyond // 2, beyond - beyond // 2))[None].to(self.device, self.model.dtype)
        return self.model(padded, output_hidden_states=True).hidden_states[self.config.layer]


class WhisperStates(SpeechStates):
    """The encoder of a Whisper checkpoint, not padded to the 30 s that it was trained on: a tenth of the time."""

    def __init__(self, config: SpeechKMeansConfig, path: Path, device: torch.device) -> None:
        model = read_model(path, config.dtype).get_encoder()
        hears_s = model.embed_positions.num_embeddings * FRAME_SAMPLES / RATE_HZ
        if config.window_s > hears_s or config.normalise_input:
            raise EncoderError(
                f"{path} takes at most {hears_s:g} s, not normalized: set window_s, normalise_input: false"
            )
        self._extractor = read_extractor(path)
        self._is_last = config.layer == len(model.layers)
        super().__init__(config, _cut(model, model, config, path), device)

    def _states(self, samples: torch.Tensor) -> torch.Tensor:
        mel = self._extractor(
            samples.numpy(), sampling_rate=RATE_HZ, padding=False, truncation=False, return_tensors="pt"
        )["input_features"].to(self.device, self.model.dtype)
        heard = F.gelu(self.model.conv2(F.gelu(self.model.conv1(mel)))).transpose(1, 2)
        states = heard + self.model.embed_positions.weight[: heard.shape[1]]
        for layer in self.model.layers:
            states = layer(states, None)
        return self.model.layer_norm(states) if self._is_last else states


def load_states(config: SpeechKMeansConfig, path: Path, *, device: str) -> SpeechStates:
    """Load the checkpoint up to the layer of the config. EncoderError or WeightsError if it is another model."""
    place = torch.device(resolve_device(device))
    if is_ctranslate2(path):
        return WhisperStates(config, path, place)
    with weights_errors(path, "a speech encoder"):
        kind = AutoConfig.from_pretrained(path, local_files_only=True)
    if kind.model_type == "whisper":
        return WhisperStates(config, path, place)
    if (
        kind.model_type not in CONVOLUTIONAL
        or framing_of(kind.conv_kernel, kind.conv_stride).hop_samples != FRAME_SAMPLES
    ):
        known = ", ".join(("whisper", *CONVOLUTIONAL))
        raise EncoderError(f"{path} is {kind.model_type}, expected one of {known} with a state every 20 ms")
    model = load_pretrained(AutoModel, path, dtype=config.dtype, unused={"masked_spec_embed"})
    return SpeechStates(config, _cut(model, model.encoder, config, path), place)


def _cut(model: Any, encoder: Any, config: SpeechKMeansConfig, path: Path) -> Any:
    if config.layer > len(encoder.layers):
        raise EncoderError(f"layer is {config.layer}, but the encoder of {path} has {len(encoder.layers)} layers")
    encoder.layers = encoder.layers[: config.layer]
    return model
