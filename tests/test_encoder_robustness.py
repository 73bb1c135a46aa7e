"""How steady units are: by hand, and of an encoder that knows nothing but loudness."""

import numpy as np
import pytest

from alignslm.encoder import Encoded
from alignslm.encoder.robustness import abx, robustness, unit_error

RATE_HZ = 16000


class Loudness:
    """One unit for every 20 ms: 1 where it is loud."""

    def encode(self, waveforms):
        units = [(np.abs(one[: len(one) // 320 * 320].reshape(-1, 320)).mean(1) > 0.1) for one in waveforms]
        return [Encoded(one.astype(np.int64), np.ones(len(one), np.int64)) for one in units]


def test_abx_by_hand():
    ours, theirs = [[1, 2, 3], [4, 5, 6]], [[1, 2, 9], [1, 5, 6]]
    # apart: ours 1 is 1/3 from its own, 1 - 1/3 = 2/3 from the other (they share a 1); ours 2 is 1/3 and 1
    assert abx(ours, theirs) == 1.0
    assert abx(ours, theirs[::-1]) == 0.0
    assert abx([[1], [1]], [[1], [1]]) == 0.5


def test_unit_error_by_hand():
    assert unit_error([[1, 2, 3], [4]], [[1, 9, 2, 3], [4, 5]]) == 0.5  # two more than four
    assert unit_error([[]], [[]]) == 0.0


def test_figures_tell_steady_units_from_those_of_noise():
    rng = np.random.default_rng(1)
    loud = [np.repeat(rng.random(50) < 0.5, 320).astype(np.float32) for _ in range(4)]
    found = robustness(Loudness(), loud, RATE_HZ)
    assert found["unit_error_noise"] == 1.0 - np.mean(np.concatenate(loud))  # noise at 10 dB is all above the limit
    assert found["abx_voice"] > 0.8  # the pattern of loud and quiet, a seventh faster
    assert 1 - 1 / 1.15 - 0.01 < found["unit_error_voice"] < 0.4  # a seventh of the frames are gone
    assert robustness(Loudness(), loud[:1], RATE_HZ) == {}


def test_noise_is_ten_decibels_below():
    heard = []

    class Listening(Loudness):
        def encode(self, waveforms):
            heard.append(waveforms)
            return super().encode(waveforms)

    tone = [np.sin(np.arange(16000, dtype=np.float32) * rate) for rate in (0.1, 0.2)]
    robustness(Listening(), tone, RATE_HZ)
    for plain, noisy, voiced in zip(*heard, strict=True):
        level = 10 * np.log10(np.mean(plain**2) / np.mean((noisy - plain) ** 2))
        assert level == pytest.approx(10, abs=0.2)
        assert len(voiced) == pytest.approx(16000 / 1.15, abs=2)
        crossings = [np.count_nonzero(np.diff(np.sign(one))) / len(one) for one in (plain, voiced)]
        assert crossings[1] / crossings[0] == pytest.approx(1.15, abs=0.02)
