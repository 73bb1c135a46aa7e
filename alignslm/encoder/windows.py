"""Frames of strided convolutions, and long speech cut into windows with frames on the same grid."""

from itertools import pairwise
from typing import NamedTuple


class Framing(NamedTuple):
    """Frame i looks at samples [i * hop_samples, i * hop_samples + receptive_samples)."""

    hop_samples: int
    receptive_samples: int

    def num_frames(self, num_samples: int) -> int:
        """Return how many frames the convolutions make without padding."""
        return max(0, 1 + (num_samples - self.receptive_samples) // self.hop_samples)


class Window(NamedTuple):
    """Samples [start, stop) are encoded together; of their frames, [first, last) of the whole are kept."""

    start: int
    stop: int
    first: int
    last: int

    def kept(self, hop_samples: int) -> slice:
        """Return which of the window's own frames are kept."""
        before = self.start // hop_samples
        return slice(self.first - before, self.last - before)


def windows(num_samples: int, framing: Framing, *, window_samples: int, overlap_samples: int) -> list[Window]:
    """Cut a waveform so that every frame of the whole is kept from exactly one window; a short one is one window.

    All windows have equally many frames and begin on the grid of the whole's frames. A frame in an overlap comes from
    the window whose edge is farther. The last window ends with the samples and so overlaps more: none is too short to
    give its frames a context.
    """
    hop, total, size = framing.hop_samples, framing.num_frames(num_samples), framing.num_frames(window_samples)
    if total <= size:
        return [Window(0, num_samples, 0, total)]
    step = max(1, size - overlap_samples // hop)
    begins = [*range(0, total - size, step), total - size]
    cuts = [0, *((before + size + after) // 2 for before, after in pairwise(begins)), total]
    stops = [(begin + size - 1) * hop + framing.receptive_samples for begin in begins[:-1]]
    return [
        Window(begin * hop, stop, first, last)
        for begin, stop, (first, last) in zip(begins, [*stops, num_samples], pairwise(cuts), strict=True)
    ]
