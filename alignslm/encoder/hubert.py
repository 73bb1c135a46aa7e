"""Units from a HuBERT layer and a k-means codebook, as TWIST, GSLM and the paper use them.

Every utterance is encoded separately, without padding. HuBERT base normalises its first convolution over time, so zeros
appended to reach a neighbour's length change every frame (peers do so: their units depend on the batch), and files of
equal length to the sample, which could share a batch, are rare; even those would be rounded differently by a
matrix product of more rows.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from torch.nn import functional as F
from transformers import HubertModel

from alignslm.config.hubert import HubertEncoderConfig
from alignslm.config.model import Config
from alignslm.device import exact_float32, planless_attention, resolve_device
from alignslm.encoder import Encoded
from alignslm.encoder.checkpoint_info import CheckpointInfo, read_checkpoint_info
from alignslm.encoder.codebook import load_codebook, nearest
from alignslm.encoder.waveforms import EncoderError, require_waveforms
from alignslm.encoder.windows import windows
from alignslm.fetching import download, download_recorded
from alignslm.integrity import read_json
from alignslm.loading import load_pretrained
from alignslm.provenance import UnitContract, file_sha256
from alignslm.speed.onednn import fast_linear
from alignslm.storage import atomic_write, write_text
from alignslm.units import deduplicate

PATTERNS = ("*.json", "*.safetensors", "pytorch_model*.bin")
_CODEBOOK, _CONFIG, _SOURCE = "codebook.safetensors", "encoder.json", "source.json"


class Origin(Config):
    """Identity of the encoder's files when it was prepared; see `alignslm.fetching.Fetched.identity`."""

    weights: str
    codebook: str


def prepare(config: HubertEncoderConfig, folder: Path) -> None:
    """Fetch checkpoint and codebook, verify that they fit each other and the config, and write what identifies them.

    The codebook is kept as safetensors; the checkpoint stays in the cache it was fetched to.
    """
    weights = download(config.weights, patterns=PATTERNS)
    codebook, codebook_identity = load_codebook(config.codebook, num_units=config.num_units)
    facts = read_checkpoint_info(weights.path)
    facts.require_fitting(config)
    facts.require_width(codebook.shape[1], layer=config.layer)
    load_model(config, weights.path)
    with atomic_write(folder / _CODEBOOK) as partial:
        save_file({"codebook": codebook}, partial)
    write_text(folder / _CONFIG, config.model_dump_json(indent=2) + "\n")
    origin = Origin(weights=weights.identity, codebook=codebook_identity)
    write_text(folder / _SOURCE, origin.model_dump_json(indent=2) + "\n")


def load_model(config: HubertEncoderConfig, path: Path) -> HubertModel:
    """Load the checkpoint up to the layer of the config, in evaluation mode, on the CPU. Raises WeightsError."""
    model: HubertModel = load_pretrained(
        HubertModel,
        path,
        dtype=config.dtype,
        unused={"masked_spec_embed"},  # only pre-training uses it
        attn_implementation="sdpa",
    )
    model.encoder.layers = model.encoder.layers[: config.layer]
    return model


class HubertEncoder:
    """A checkpoint's layer and a codebook over it."""

    def __init__(
        self,
        config: HubertEncoderConfig,
        model: torch.nn.Module,
        codebook: np.ndarray,
        *,
        contract: UnitContract,
        facts: CheckpointInfo,
        device: str,
    ) -> None:
        self.config, self.contract, self.framing = config, contract, facts.framing
        self._device = resolve_device(device)
        self._model = model.to(self._device)
        self._codebook = torch.from_numpy(codebook).to(self._device)

    @classmethod
    def load(cls, folder: Path, *, device: str) -> "HubertEncoder":
        """Load what `prepare` wrote, and the very checkpoint it was prepared with."""
        config, origin = read_json(folder / _CONFIG, HubertEncoderConfig), read_json(folder / _SOURCE, Origin)
        path = download_recorded(config.weights, origin.weights, patterns=PATTERNS)
        contract = _contract(config, origin, codebook_sha256=file_sha256(folder / _CODEBOOK))
        codebook = load_file(folder / _CODEBOOK)["codebook"]
        return cls(
            config,
            load_model(config, path),
            codebook,
            contract=contract,
            facts=read_checkpoint_info(path),
            device=device,
        )

    def encode(self, waveforms: Sequence[np.ndarray]) -> list[Encoded]:
        """Return units and durations of every mono float32 waveform at the contract's sample rate."""
        require_waveforms(waveforms, min_samples=max(1, self.framing.receptive_samples - 2 * self.config.pad_samples))
        with fast_linear(torch.device(self._device)):
            return [self._deduplicated(index, self.frames(waveform)) for index, waveform in enumerate(waveforms)]

    def frames(self, waveform: np.ndarray) -> np.ndarray:
        """Return the unit of every frame before deduplication, (frames,) int64.

        Speech of more than `window_s` is encoded in overlapping windows, so memory is bounded and a frame no longer
        sees the whole: its attention, and the first layer's normalisation, see its window. Units of speech within
        `window_s` are those of the whole.
        """
        samples = self._prepared(waveform)
        rate_hz, hop = self.config.sample_rate_hz, self.framing.hop_samples
        plan = windows(
            samples.numel(),
            self.framing,
            window_samples=math.floor(self.config.window_s * rate_hz),
            overlap_samples=math.floor(self.config.overlap_s * rate_hz),
        )
        parts = [nearest(self.features(samples[w.start : w.stop])[w.kept(hop)], self._codebook) for w in plan]
        return torch.cat(parts).cpu().numpy()

    @torch.inference_mode()
    def features(self, samples: torch.Tensor) -> torch.Tensor:
        """Return (frames, width), the output of the chosen layer for (samples,) as they are."""
        inputs = samples[None].to(self._device, getattr(torch, self.config.dtype))
        with exact_float32(), planless_attention():
            found = self._model(inputs, output_hidden_states=True).hidden_states
        return found[self.config.layer][0]

    def _prepared(self, waveform: np.ndarray) -> torch.Tensor:
        samples = torch.from_numpy(waveform)
        if self.config.normalise_input:
            samples = F.layer_norm(samples, samples.shape)
        return F.pad(samples, (self.config.pad_samples, self.config.pad_samples))

    @staticmethod
    def _deduplicated(index: int, frames: np.ndarray) -> Encoded:
        try:
            return Encoded(*deduplicate(frames))
        except ValueError as error:
            raise EncoderError(f"waveform {index}: {error}") from error


def _contract(config: HubertEncoderConfig, origin: Origin, *, codebook_sha256: str) -> UnitContract:
    """The source of the codebook does not count, nor its format: its centroids do."""
    level = "normalised" if config.normalise_input else "as-is"
    window = f"window {config.window_s:g}s overlap {config.overlap_s:g}s"
    return UnitContract(
        encoder=config.kind,
        revision=f"{origin.weights} {config.dtype} {level} {window}",
        sample_rate_hz=config.sample_rate_hz,
        frame_rate_hz=config.frame_rate_hz,
        layer=config.layer,
        padding=f"zeros {config.pad_samples}" if config.pad_samples else "none",
        codebook_sha256=codebook_sha256,
        num_units=config.num_units,
        deduplicated=True,
    )
