"""HuBERT units: against transformers' model, utterance by utterance, and the nearest centroid by torch.cdist."""

import numpy as np
import torch
from transformers import HubertConfig, HubertModel

from alignslm.config.hubert import HubertEncoderConfig
from alignslm.config.sources import FolderSource
from alignslm.device import exact_float32
from alignslm.encoder.checkpoint_info import CheckpointInfo, framing_of
from alignslm.encoder.hubert import HubertEncoder
from alignslm.units import deduplicate
from tests.bench.case import Answer, Case, Cost, mismatch_rate, num_parameters
from tests.bench.models import RATE_HZ, SHAPES, Size, contract

UTTERANCES, LAYER, UNITS = 6, 11, 500
UNEQUAL = 0.03  # on a GPU: one in 48. torch.cdist takes another of two nearly equal centroids once in 70,000 frames
STRIDES = (5, 2, 2, 2, 2, 2, 4)  # the last is 2 in the original; 25 Hz as mHuBERT of TWIST has them


def _config(*, tiny: bool) -> HubertConfig:
    if not tiny:
        return HubertConfig(conv_stride=STRIDES)
    return HubertConfig(
        conv_stride=STRIDES,
        conv_dim=(16,) * 7,
        hidden_size=32,
        num_hidden_layers=12,
        num_attention_heads=2,
        intermediate_size=64,
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2,
    )


@torch.inference_mode()
def _plain(model: HubertModel, codebook: torch.Tensor, waveforms: list[np.ndarray]) -> Answer:
    """Take the layer from all hidden states."""
    found: Answer = []
    for waveform in waveforms:
        samples = torch.from_numpy(waveform)[None].to(codebook.device)
        with exact_float32():  # as ours: cuDNN would round to TF32, and other units would be nearest
            features = model(samples, output_hidden_states=True).hidden_states[LAYER][0]
        found.append(deduplicate(torch.cdist(features, codebook).argmin(-1).cpu().numpy())[0])
    return found


def case(size: Size, *, scale: int, device: str) -> Case:
    """Build the work: noise of 2 to 10 seconds. The reference has all 12 layers, as a checkpoint loads them."""
    tiny = size == "tiny"
    torch.manual_seed(0)
    settings = _config(tiny=tiny)
    plain = HubertModel(settings).eval().to(device)
    cut = HubertModel(settings).eval()
    cut.load_state_dict(plain.state_dict())
    cut.encoder.layers = cut.encoder.layers[:LAYER]
    codebook = np.random.default_rng(0).normal(size=(UNITS, settings.hidden_size)).astype(np.float32)
    framing = framing_of(settings.conv_kernel, settings.conv_stride)
    here = FolderSource(kind="folder", path=".")
    config = HubertEncoderConfig(
        kind="hubert",
        weights=here,
        layer=LAYER,
        codebook=here,
        num_units=UNITS,
        sample_rate_hz=RATE_HZ,
        hop_samples=framing.hop_samples,
        normalise_input=False,
        pad_samples=0,
        dtype="float32",
        window_s=100.0,
        overlap_s=10.0,
    )
    facts = CheckpointInfo(path=None, layers=12, width=settings.hidden_size, framing=framing, sample_rate_hz=RATE_HZ)  # type: ignore[arg-type]
    ours = HubertEncoder(config, cut, codebook, contract=contract(UNITS), facts=facts, device=device)
    rng = np.random.default_rng(0)
    count = scale * (2 if tiny else UTTERANCES * SHAPES[size].work)
    waveforms = [
        (0.1 * rng.standard_normal(int(length))).astype(np.float32)
        for length in rng.integers(RATE_HZ, 2 * RATE_HZ, count) * (1 if tiny else rng.integers(2, 6, count))
    ]
    frames = sum(framing.num_frames(len(one)) for one in waveforms)
    centroids = torch.from_numpy(codebook).to(device)
    return Case(
        stage="hubert",
        shape=f"{count} utterances of {min(map(len, waveforms)) / RATE_HZ:.0f} to "
        f"{max(map(len, waveforms)) / RATE_HZ:.0f} s, layer {LAYER}",
        model=plain,
        counted="seconds of audio",
        amount=sum(map(len, waveforms)) / RATE_HZ,
        paths={
            "ours": lambda: [one.units for one in ours.encode(waveforms)],
            "whole model": lambda: _plain(plain, centroids, waveforms),
        },
        difference=mismatch_rate,
        tolerance=0.0 if torch.device(device).type == "cpu" else UNEQUAL,
        unit="of all utterances",
        cost=Cost(frames * 2.0 * num_parameters(cut.encoder) + _conv_flop(settings, waveforms), None),
    )


def _conv_flop(settings: HubertConfig, waveforms: list[np.ndarray]) -> float:
    """Return flop of the convolutions that turn samples into frames."""
    flop, rate, inside = 0.0, 1.0, 1
    for width, kernel, stride in zip(settings.conv_dim, settings.conv_kernel, settings.conv_stride, strict=True):
        rate /= stride
        flop += 2.0 * rate * kernel * inside * width
        inside = width
    return flop * sum(map(len, waveforms))
