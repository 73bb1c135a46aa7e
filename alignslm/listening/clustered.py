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
    """Return the mean of ratings (n,) whose raters and prompts (n,) are both samples of more."""
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
    """Return the difference of each pair's means, as if all had been heard by the same raters on the same prompts.

    Least squares with one effect a system, rater and prompt, over all ratings: in a complete Latin square these are
    the differences of plain means; where ratings are missing, a system heard by harsher raters is not blamed for them.
    What one rater or prompt does to all systems alike adds no error, what they do to one system does.
    """
    known = np.unique(systems)
    design = np.hstack([_indicators(names) for names in (systems, raters, prompts)])
    solved = np.linalg.pinv(design)
    effects = solved @ values
    residuals = values - design @ effects
    freedom = max(len(values) - int(np.linalg.matrix_rank(design)), 1)
    found = []
    for ours, theirs in pairs:
        contrast = (known == ours).astype(float) - (known == theirs)
        influence = (contrast @ solved[: len(known)]) * residuals * np.sqrt((len(values) - 1) / freedom)
        found.append(_with_error(float(contrast @ effects[: len(known)]), influence, raters, prompts, confidence))
    return found


def _indicators(names: Labels) -> np.ndarray:
    known, which = np.unique(names, return_inverse=True)
    return np.eye(len(known))[which]


def _with_error(value: float, influence: np.ndarray, raters: Labels, prompts: Labels, confidence: float) -> Mean:
    """Two-way cluster-robust variance (Cameron, Gelbach and Miller, 2011) of a sum of influences.

    Raters' plus prompts' less that of (rater, prompt) cells; never below either alone, which the difference can be by
    chance. Student's t with as many degrees of freedom as the fewer of raters and prompts, less one.
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
