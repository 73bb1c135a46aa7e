"""Units from the states of a Whisper encoder's layer: a semantic tokenizer fitted on one's own speech.

Whisper pads speech to 30 s; here an utterance is encoded as long as it is, by itself, filled up with zeros to a whole
unit. So its units depend on nothing but itself, in a tenth of the time.
"""

import math
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from torch.nn import functional as F

from alignslm.config.model import Config
from alignslm.config.whisper_kmeans import FRAME_SAMPLES, WhisperKMeansConfig
from alignslm.device import exact_float32, resolve_device
from alignslm.encoder import Encoded
from alignslm.encoder.codebook import fit_centroids, nearest
from alignslm.encoder.waveforms import EncoderError, require_waveforms
from alignslm.encoder.windows import Framing, windows
from alignslm.fetching import download, download_recorded
from alignslm.integrity import read_json
from alignslm.loading.whisper import PATTERNS, PICKLED, read_model, read_processor
from alignslm.provenance import UnitContract, file_sha256
from alignslm.speed.onednn import fast_linear
from alignslm.storage import atomic_write, write_text
from alignslm.units import deduplicate

_CODEBOOK, _CONFIG, _SOURCE = "codebook.safetensors", "encoder.json", "source.json"


class Origin(Config):
    """What the checkpoint's files were when k-means was fitted; see `alignslm.fetching.Fetched.identity`."""

    weights: str


class WhisperStates:
    """The states of one layer, as many as the speech is long."""

    def __init__(self, config: WhisperKMeansConfig, path: Path, *, device: str) -> None:
        self._config, self.device = config, torch.device(resolve_device(device))
        self._extractor: Any = read_processor(path).feature_extractor
        encoder = read_model(path, config.dtype).get_encoder()
        found = (len(encoder.layers), self._extractor.sampling_rate, encoder.embed_positions.num_embeddings)
        if config.layer > found[0]:
            raise EncoderError(f"layer is {config.layer}, but the encoder of {path} has {found[0]} layers")
        if found[1] != config.sample_rate_hz or config.window_s > found[2] * FRAME_SAMPLES / found[1]:
            raise EncoderError(
                f"{path} hears {found[2] * FRAME_SAMPLES / found[1]:g} s at {found[1]} Hz, "
                f"expected window_s ({config.window_s:g}) at {config.sample_rate_hz} Hz"
            )
        self._last = config.layer == found[0]
        encoder.layers = encoder.layers[: config.layer]
        self._encoder: Any = encoder.to(self.device)

    def frames(self, waveform: np.ndarray) -> torch.Tensor:
        """Return (units, width) float32: the means of `frames_per_unit` states each.

        Speech beyond `window_s` is encoded in overlapping windows, so memory is bounded.
        """
        hop, rate_hz = self._config.hop_samples, self._config.sample_rate_hz
        samples = np.pad(waveform, (0, -len(waveform) % hop))
        plan = windows(
            len(samples),
            Framing(hop, hop),
            window_samples=math.floor(self._config.window_s * rate_hz),
            overlap_samples=math.floor(self._config.overlap_s * rate_hz),
        )
        return torch.cat([self._means(samples[one.start : one.stop])[one.kept(hop)] for one in plan])

    @torch.inference_mode()
    def _means(self, samples: np.ndarray) -> torch.Tensor:
        mel = self._extractor(
            samples, sampling_rate=self._config.sample_rate_hz, padding=False, truncation=False, return_tensors="pt"
        )["input_features"]
        with exact_float32():
            states = self._states(mel.to(self.device, self._encoder.conv1.weight.dtype))
        return states.float().unflatten(0, (-1, self._config.frames_per_unit)).mean(1)

    def _states(self, mel: torch.Tensor) -> torch.Tensor:
        """Do what the encoder's `forward` does, which takes nothing but 30 s."""
        heard = F.gelu(self._encoder.conv2(F.gelu(self._encoder.conv1(mel)))).transpose(1, 2)
        states = heard + self._encoder.embed_positions.weight[: heard.shape[1]]
        for layer in self._encoder.layers:
            states = layer(states, None)
        return (self._encoder.layer_norm(states) if self._last else states)[0]


def fit(config: WhisperKMeansConfig, waveforms: Iterable[np.ndarray], folder: Path, *, device: str) -> None:
    """Fetch the checkpoint, fit k-means on the states of `fit_utterances` waveforms, and write it into `folder`.

    No more than twice `fit_frames` frames are held at once, whatever the size of the corpus.
    """
    fetched = download(config.weights, patterns=PATTERNS, pickled=PICKLED)
    states = WhisperStates(config, fetched.path, device=device)
    with fast_linear(states.device):
        points = _drawn(config, (states.frames(one).cpu().numpy() for one in islice(waveforms, config.fit_utterances)))
    codebook = fit_centroids(points, num_units=config.num_units, seed=config.seed)
    with atomic_write(folder / _CODEBOOK) as partial:
        save_file({"codebook": codebook}, partial)
    write_text(folder / _CONFIG, config.model_dump_json(indent=2) + "\n")
    write_text(folder / _SOURCE, Origin(weights=fetched.identity).model_dump_json(indent=2) + "\n")


def _drawn(config: WhisperKMeansConfig, utterances: Iterable[np.ndarray]) -> np.ndarray:
    """Return `fit_frames` frames of all utterances, each as likely as any other, or all if there are fewer."""
    rng = np.random.default_rng(config.seed)
    kept, keys = np.zeros((0, 1), np.float32), np.zeros(0)
    for rows in utterances:
        kept = np.concatenate([kept, rows]) if len(kept) else rows
        keys = np.concatenate([keys, rng.random(len(rows))])
        if len(keys) > 2 * config.fit_frames:
            kept, keys = _smallest(kept, keys, config.fit_frames)
    return _smallest(kept, keys, config.fit_frames)[0]


def _smallest(rows: np.ndarray, keys: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    chosen = np.sort(np.argsort(keys, kind="stable")[:count])
    return rows[chosen], keys[chosen]


class WhisperKMeansEncoder:
    """A checkpoint's layer and the codebook that was fitted over it."""

    def __init__(
        self, config: WhisperKMeansConfig, states: WhisperStates, codebook: np.ndarray, contract: UnitContract
    ) -> None:
        self.config, self.contract = config, contract
        self._states, self._codebook = states, torch.from_numpy(codebook)

    @classmethod
    def load(cls, folder: Path, *, device: str) -> "WhisperKMeansEncoder":
        """Load what `fit` wrote, and the very checkpoint it was fitted with."""
        config, origin = read_json(folder / _CONFIG, WhisperKMeansConfig), read_json(folder / _SOURCE, Origin)
        path = download_recorded(config.weights, origin.weights, patterns=PATTERNS, pickled=PICKLED)
        contract = UnitContract(
            encoder=config.kind,
            revision=f"{origin.weights} {config.dtype} window {config.window_s:g}s overlap {config.overlap_s:g}s",
            sample_rate_hz=config.sample_rate_hz,
            frame_rate_hz=config.frame_rate_hz,
            layer=config.layer,
            padding="zeros to a unit",
            codebook_sha256=file_sha256(folder / _CODEBOOK),
            num_units=config.num_units,
            deduplicated=True,
        )
        states = WhisperStates(config, path, device=device)
        return cls(config, states, load_file(folder / _CODEBOOK)["codebook"], contract)

    def encode(self, waveforms: Sequence[np.ndarray]) -> list[Encoded]:
        """Return units and durations of every mono float32 waveform at the contract's sample rate."""
        require_waveforms(waveforms)
        with fast_linear(self._states.device):
            return [Encoded(*deduplicate(self.frames(waveform))) for waveform in waveforms]

    def frames(self, waveform: np.ndarray) -> np.ndarray:
        """Return the unit of every frame before deduplication, (frames,) int64."""
        return nearest(self._states.frames(waveform), self._codebook).cpu().numpy()
