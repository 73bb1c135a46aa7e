"""Speech that can be measured: unit u is a tone of its own pitch and always lasts u + 1 frames of 1/25 s."""

from collections.abc import Sequence

import numpy as np

from alignslm.provenance import UnitContract
from alignslm.units import deduplicate
from alignslm.vocoder import VocoderExample

FRAME_RATE_HZ = 25


def contract_of(rate_hz: int) -> UnitContract:
    """Return the contract of four such units."""
    return UnitContract(
        encoder="tones",
        revision="1",
        sample_rate_hz=rate_hz,
        frame_rate_hz=float(FRAME_RATE_HZ),
        layer=None,
        padding="none",
        codebook_sha256="0",
        num_units=4,
        deduplicated=True,
    )


def spoken(seed: int, pitches_hz: Sequence[float], rate_hz: int, *, speaker: str = "") -> VocoderExample:
    """Return an utterance of twelve random units, or fewer where one follows itself."""
    units = np.random.default_rng(seed).integers(0, 4, size=12)
    frames = np.concatenate([np.full(u + 1, u) for u in deduplicate(units)[0]])
    phase = np.cumsum(np.repeat(np.array(pitches_hz)[frames], rate_hz // FRAME_RATE_HZ)) * 2 * np.pi / rate_hz
    return VocoderExample(*deduplicate(frames), (0.3 * np.sin(phase)).astype(np.float32), speaker)
