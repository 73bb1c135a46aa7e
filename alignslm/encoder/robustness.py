"""How steady units are under another voice and under noise: for choosing an encoder, its layer and K by measurement."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from rapidfuzz.distance import Levenshtein

from alignslm.audio import resample, rms
from alignslm.encoder import Encoder

NUM_UTTERANCES = 20
OTHER_VOICE = 1.15  # of the pitch, formants and tempo
NOISE_BELOW_DB = 10.0  # white noise below the speech


def robustness(encoder: Encoder, waveforms: Sequence[np.ndarray], rate_hz: int) -> dict[str, float]:
    """Return figures of a few training utterances (samples,), each against itself altered.

    `unit_error_noise` and `unit_error_voice` are edits per unit under white noise at 10 dB and with pitch, formants and
    tempo raised by 15 % (as Gat et al., 2023, "Augmentation invariant discrete representation", measure them).
    `abx_voice` is how often an utterance's units are nearer to its own in that voice than to another utterance's;
    .5 is guessing.
    """
    if len(waveforms) < 2:
        return {}
    rng = np.random.default_rng(0)
    noisy = [one + _noise(one, rng) for one in waveforms]
    voiced = [resample(one, from_hz=round(rate_hz * OTHER_VOICE), to_hz=rate_hz) for one in waveforms]
    plain, noised, other = ([one.units.tolist() for one in encoder.encode(side)] for side in (waveforms, noisy, voiced))
    return {
        "abx_voice": abx(plain, other),
        "unit_error_voice": unit_error(plain, other),
        "unit_error_noise": unit_error(plain, noised),
    }


def _noise(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    level = rms(waveform) / 10 ** (NOISE_BELOW_DB / 20)
    return (level * rng.standard_normal(len(waveform))).astype(np.float32)


def unit_error(plain: Sequence[Sequence[int]], altered: Sequence[Sequence[int]]) -> float:
    """Return edits per unit of the plain utterances."""
    return sum(map(Levenshtein.distance, plain, altered)) / max(1, sum(map(len, plain)))


def abx(ours: Sequence[Sequence[int]], theirs: Sequence[Sequence[int]]) -> float:
    """Return how often a sentence is nearer to itself in the other voice than to another sentence there, ties half.

    Nearer by edits over the longer's length; both voices are asked in turn. `ours` and `theirs` are the same sentences.
    """
    apart = np.array([[Levenshtein.normalized_distance(a, b) for b in theirs] for a in ours])
    return float(np.mean([_nearer(apart), _nearer(apart.T)]))


def _nearer(apart: npt.NDArray[np.float64]) -> float:
    same, unequal = np.diag(apart)[:, None], ~np.eye(len(apart), dtype=bool)
    return float(((same < apart) + 0.5 * (same == apart))[unequal].mean())
