"""k-means over a layer of any speech encoder: a semantic tokenizer fitted on one's own speech.

Every utterance is encoded separately, padded with zeros to a whole unit, and in windows if longer than `window_s`.
"""

import math
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

from alignslm.config.model import Config
from alignslm.config.speech_kmeans import SpeechKMeansConfig
from alignslm.encoder import Encoded
from alignslm.encoder.codebook import fit_centroids, nearest
from alignslm.encoder.speech_states import SpeechStates, load_states
from alignslm.encoder.waveforms import require_waveforms
from alignslm.encoder.windows import Framing, windows
from alignslm.fetching import download, download_recorded
from alignslm.integrity import read_json
from alignslm.loading.whisper import PATTERNS, PICKLED
from alignslm.provenance import UnitContract, file_sha256
from alignslm.speed.onednn import fast_linear
from alignslm.storage import atomic_write, write_text
from alignslm.units import deduplicate

_CODEBOOK, _CONFIG, _SOURCE = "codebook.safetensors", "encoder.json", "source.json"


class Origin(Config):
    """Identity of the checkpoint's files when k-means was fitted; see `alignslm.fetching.Fetched.identity`."""

    weights: str


def fit(config: SpeechKMeansConfig, waveforms: Iterable[np.ndarray], folder: Path, *, device: str) -> None:
    """Fetch the checkpoint, fit k-means on the states of `fit_utterances` waveforms, and write it into `folder`.

    At most twice `fit_frames` frames are in memory at once, for any size of the corpus.
    """
    fetched = download(config.weights, patterns=PATTERNS, pickled=PICKLED)
    states = load_states(config, fetched.path, device=device)
    with fast_linear(states.device):
        used = islice(waveforms, config.fit_utterances)
        points = _drawn(config, (unit_frames(config, states, one).cpu().numpy() for one in used))
    codebook = fit_centroids(points, num_units=config.num_units, seed=config.seed)
    with atomic_write(folder / _CODEBOOK) as partial:
        save_file({"codebook": codebook}, partial)
    write_text(folder / _CONFIG, config.model_dump_json(indent=2) + "\n")
    write_text(folder / _SOURCE, Origin(weights=fetched.identity).model_dump_json(indent=2) + "\n")


def _drawn(config: SpeechKMeansConfig, utterances: Iterable[np.ndarray]) -> np.ndarray:
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


class SpeechKMeansEncoder:
    """A checkpoint's layer and the codebook that was fitted over it."""

    def __init__(
        self, config: SpeechKMeansConfig, states: SpeechStates, codebook: np.ndarray, contract: UnitContract
    ) -> None:
        self.config, self.contract = config, contract
        self._states, self._codebook = states, torch.from_numpy(codebook)

    @classmethod
    def load(cls, folder: Path, *, device: str) -> "SpeechKMeansEncoder":
        """Load what `fit` wrote, and the very checkpoint it was fitted with."""
        config, origin = read_json(folder / _CONFIG, SpeechKMeansConfig), read_json(folder / _SOURCE, Origin)
        path = download_recorded(config.weights, origin.weights, patterns=PATTERNS, pickled=PICKLED)
        level = "normalised" if config.normalise_input else "as-is"
        window = f"window {config.window_s:g}s overlap {config.overlap_s:g}s"
        contract = UnitContract(
            encoder=config.kind,
            revision=f"{origin.weights} {config.dtype} {level} {window}",
            sample_rate_hz=config.sample_rate_hz,
            frame_rate_hz=config.frame_rate_hz,
            layer=config.layer,
            padding="zeros to a unit",
            codebook_sha256=file_sha256(folder / _CODEBOOK),
            num_units=config.num_units,
            deduplicated=True,
        )
        states = load_states(config, path, device=device)
        return cls(config, states, load_file(folder / _CODEBOOK)["codebook"], contract)

    def encode(self, waveforms: Sequence[np.ndarray]) -> list[Encoded]:
        """Return units and durations of every mono float32 waveform at the contract's sample rate."""
        require_waveforms(waveforms)
        with fast_linear(self._states.device):
            return [Encoded(*deduplicate(self.frames(waveform))) for waveform in waveforms]

    def frames(self, waveform: np.ndarray) -> np.ndarray:
        """Return the unit of every frame before deduplication, (frames,) int64."""
        return nearest(unit_frames(self.config, self._states, waveform), self._codebook).cpu().numpy()


def unit_frames(config: SpeechKMeansConfig, states: SpeechStates, waveform: np.ndarray) -> torch.Tensor:
    """Return (units, width) float32: the means of `frames_per_unit` states each.

    Windows overlap by `overlap_s`, so memory is bounded; speech within `window_s` is one.
    """
    hop, rate_hz = config.hop_samples, config.sample_rate_hz
    samples = np.pad(waveform, (0, -len(waveform) % hop))
    plan = windows(
        len(samples),
        Framing(hop, hop),
        window_samples=math.floor(config.window_s * rate_hz),
        overlap_samples=math.floor(config.overlap_s * rate_hz),
    )
    parts = (states(samples[one.start : one.stop]).unflatten(0, (-1, config.frames_per_unit)).mean(1) for one in plan)
    return torch.cat([part[one.kept(hop)] for part, one in zip(parts, plan, strict=True)])
