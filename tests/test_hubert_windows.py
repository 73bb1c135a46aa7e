"""Frames of convolutions, and windows of long speech, against counting by hand and by force."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alignslm.encoder.checkpoint_info import framing_of
from alignslm.encoder.windows import Framing, windows
from tests.tiny_hubert import KERNELS, STRIDES

BASE, MHUBERT = framing_of(KERNELS, STRIDES), framing_of((*KERNELS, 2), (*STRIDES, 2))


def test_framing_of_the_public_models():
    assert tuple(BASE) == (320, 400)
    assert tuple(MHUBERT) == (640, 720)


@pytest.mark.parametrize(
    ("num_samples", "framing", "expected"),
    [
        (48000, BASE, 149),
        (48000 + 80, BASE, 150),  # slamkit's 40 zeros at either end add a frame to 3 s
        (48000, MHUBERT, 74),
        (48000 + 80, MHUBERT, 75),
        (400, BASE, 1),
        (399, BASE, 0),
        (0, BASE, 0),
    ],
)
def test_frames_of_three_seconds_and_of_too_little(num_samples, framing, expected):
    assert framing.num_frames(num_samples) == expected


CONVOLUTIONS = st.lists(st.tuples(st.integers(1, 5), st.integers(1, 3)), min_size=1, max_size=4)


@settings(max_examples=40, deadline=None)
@given(CONVOLUTIONS, st.integers(0, 200))
def test_frames_are_those_that_convolutions_make(convolutions, num_samples):
    kernels, strides = zip(*convolutions, strict=True)
    framing = framing_of(kernels, strides)
    signal = torch.zeros(1, 1, num_samples)
    for kernel, stride in convolutions:
        if signal.shape[-1] < kernel:
            signal = signal[..., :0]
            break
        signal = torch.nn.functional.conv1d(signal, torch.ones(1, 1, kernel), stride=stride)
    assert framing.num_frames(num_samples) == signal.shape[-1]
    assert framing.num_frames(framing.receptive_samples) == 1


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 6), st.integers(0, 9), st.integers(0, 60), st.integers(0, 400))
def test_every_frame_is_kept_once_from_the_window_with_the_farther_edge(hop, more, extra, num_samples):
    framing = Framing(hop, hop + more)
    overlap = extra // 3
    size = framing.receptive_samples + 2 * overlap + extra
    plan = windows(num_samples, framing, window_samples=size, overlap_samples=overlap)
    total = framing.num_frames(num_samples)
    kept = [frame for window in plan for frame in range(window.first, window.last)]
    assert kept == list(range(total))
    for window in plan:
        own = range(framing.num_frames(window.stop - window.start))
        assert window.start % hop == 0
        assert window.stop - window.start < size + hop
        assert window.stop <= num_samples
        assert len(own[window.kept(hop)]) == window.last - window.first
    spans = [(w.start // hop, w.start // hop + framing.num_frames(w.stop - w.start)) for w in plan]
    for window, span in zip(plan, spans, strict=True):
        for frame in range(window.first, window.last):
            best = max(context(frame, other, total) for other in spans if other[0] <= frame < other[1])
            assert context(frame, span, total) >= best - 1


def context(frame, span, total):
    """Frames to the nearer edge of a window; where the speech itself begins or ends is no edge."""
    left = frame - span[0] if span[0] else total
    right = span[1] - 1 - frame if span[1] < total else total
    return min(left, right)


def test_windows_by_hand():
    plan = windows(29, Framing(2, 3), window_samples=11, overlap_samples=5)
    # 14 frames; windows of 5 frames from frames 0, 3, 6 and, ending with the samples, 9.
    assert [tuple(window) for window in plan] == [(0, 11, 0, 4), (6, 17, 4, 7), (12, 23, 7, 10), (18, 29, 10, 14)]


def test_short_speech_is_one_window():
    assert windows(100, Framing(2, 3), window_samples=100, overlap_samples=9) == [(0, 100, 0, 49)]
