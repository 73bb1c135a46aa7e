"""A tiny HuBERT and its codebook in the public formats: a `save_pretrained` folder and a joblib-pickled k-means."""

import json
from collections.abc import Sequence
from pathlib import Path

import joblib
import numpy as np
import torch
from sklearn.cluster import KMeans
from transformers import HubertConfig, HubertModel

from alignslm.config.hubert import HubertEncoderConfig
from alignslm.config.sources import FolderSource
from alignslm.provenance import file_sha256

KERNELS, STRIDES = (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2)  # of HuBERT base: a frame of 400 samples every 320
LAYERS, WIDTH = 2, 16


def write_tiny_checkpoint(folder: Path, *, hop_samples: int = 640, seed: int = 0) -> Path:
    """Write a two-layer HubertModel of 640 (mHuBERT at 25 Hz) or 320 samples a frame, and the usual preprocessor file.

    As with facebook/hubert-base-ls960, that file asks for normalised input, which the codebooks were made without.
    """
    extra = {320: (), 640: (2,)}[hop_samples]
    config = HubertConfig(
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        intermediate_size=32,
        conv_dim=(WIDTH,) * (len(KERNELS) + len(extra)),
        conv_kernel=KERNELS + extra,
        conv_stride=STRIDES + extra,
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2,
        initializer_range=0.2,  # the usual 0.02 leaves so small a network almost deaf
    )
    torch.manual_seed(seed)
    HubertModel(config).save_pretrained(folder)
    preprocessor = {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "do_normalize": True, "sampling_rate": 16000}
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return folder


@torch.inference_mode()
def layer_features(checkpoint: Path, layer: int, waveform: np.ndarray) -> np.ndarray:
    """Return (frames, width) of a layer by the whole model's own account: the oracle of the encoder."""
    model = HubertModel.from_pretrained(checkpoint, dtype=torch.float32).eval()
    return model(torch.from_numpy(waveform)[None], output_hidden_states=True).hidden_states[layer][0].numpy()


def write_tiny_codebook(path: Path, points: np.ndarray, *, num_units: int, seed: int = 0) -> Path:
    """Fit k-means and pickle it with joblib, as the public `.bin` files are."""
    joblib.dump(KMeans(num_units, n_init=1, random_state=seed).fit(points), path)
    return path


def tiny_hubert(
    folder: Path, waveforms: Sequence[np.ndarray], *, num_units: int = 20, hop_samples: int = 640
) -> HubertEncoderConfig:
    """Write checkpoint and codebook, fitted on 16 kHz waveforms, into `folder`; return the choice of both."""
    checkpoint = write_tiny_checkpoint(folder / "checkpoint", hop_samples=hop_samples)
    points = np.concatenate([layer_features(checkpoint, LAYERS, waveform) for waveform in waveforms])
    codebook = write_tiny_codebook(folder / "km.bin", points, num_units=num_units)
    return HubertEncoderConfig(
        kind="hubert",
        weights=FolderSource(kind="folder", path=str(checkpoint)),
        layer=LAYERS,
        codebook=FolderSource(kind="folder", path=str(codebook), sha256=file_sha256(codebook)),
        num_units=num_units,
        sample_rate_hz=16000,
        hop_samples=hop_samples,
        normalise_input=False,
        pad_samples=0,
        dtype="float32",
        window_s=100.0,
        overlap_s=10.0,
    )
