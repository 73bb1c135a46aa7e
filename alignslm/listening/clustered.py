"""Means of ratings with errors clustered by rater and by prompt at once; no interval below two of either."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.stats

Labels = np.ndarray


class Mean(NamedTuple):
    """A mean or difference of means; `stderr` and `ci95` are None below two raters or two prompts."""

    value: float
    stderr: float | None
    ci95: tuple[float, float] | None


def mean(values: np.ndarray, raters: Labels, prompts: Labels, *, confidence: float) -> Mean:
    """Return the mean of ratings (n,); raters and prompts (n,) are both random samples."""
    value = float(values.mean())
    return _with_error(value, (values - value) / len(values), raters, prompts, confidence)


def differences(
    values: np.ndarray,
    systems: Labels,
    raters: Labels,
    prompts: Labels,
    pairs: Sequence[tuple[str, str]],
    *,
    confidence: float,
) -> list[Mean]:
    """Return the difference of each pair's means, as if all had been rated by the same raters on the same prompts.

    Least squares with one effect per system, rater and prompt, over all ratings: in a complete Latin square these are
    the differences of plain means; if ratings are missing, harsher raters do not bias a system. An effect of a rater
    or prompt on all systems adds no error, an effect on one system does.
    """
    known = np.unique(systems)
    design = np.hstack([_indicators(names) for names in (systems, raters, prompts)])
    solved = np.linalg.pinv(design)
    effects = solved @ values
    residuals = values - design @ effects
    freedom = max(len(values) - int(np.linalg.matrix_rank(design)), 1)
    found = []
    for system, against in pairs:
        contrast = (known == system).astype(float) - (known == against)
        influence = (contrast @ solved[: len(known)]) * residuals * np.sqrt((len(values) - 1) / freedom)
        found.append(_with_error(float(contrast @ effects[: len(known)]), influence, raters, prompts, confidence))
    return found


def _indicators(names: Labels) -> np.ndarray:
    known, which = np.unique(names, return_inverse=True)
    return np.eye(len(known))[which]


def _with_error(value: float, influence: np.ndarray, raters: Labels, prompts: Labels, confidence: float) -> Mean:
    """Two-way cluster-robust variance (Cameron, Gelbach and Miller, 2011) of a sum of influences.

    The variance over raters plus that over prompts minus that over (rater, prompt) cells, at least the larger of the
    first two. Student's t; its degrees of freedom are the smaller number of raters or prompts minus one.
    """
    fewest = min(len(np.unique(raters)), len(np.unique(prompts)))
    if fewest < 2:
        return Mean(value, None, None)
    cells = np.unique(raters, return_inverse=True)[1] * len(prompts) + np.unique(prompts, return_inverse=True)[1]
    one, other, both = (_variance(influence, names) for names in (raters, prompts, cells))
    stderr = float(np.sqrt(max(one + other - both, one, other)))
    half = float(scipy.stats.t.ppf((1 + confidence) / 2, fewest - 1)) * stderr
    return Mean(value, stderr, (value - half, value + half))


def _variance(influence: np.ndarray, names: Labels) -> float:
    _, which = np.unique(names, return_inverse=True)
    sums = np.bincount(which, weights=influence)
    return float(np.sum(sums**2)) * len(sums) / (len(sums) - 1) if len(sums) > 1 else 0.0
