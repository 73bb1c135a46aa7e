"""Means of ratings with errors clustered by rater and by prompt at once."""

from collections.abc import Sequence

import numpy as np

from alignslm.statistics import EQUAL, MIN_CLUSTERS, Estimate, Interval, t_interval, two_sided_p

Labels = np.ndarray
UNBOUNDED = (-np.inf, np.inf)


def mean(
    values: np.ndarray, raters: Labels, prompts: Labels, *, fewest: int = MIN_CLUSTERS, ends: Interval = UNBOUNDED
) -> Estimate:
    """Return the mean of ratings (n,); raters and prompts (n,) are both random samples.

    No error below `fewest` raters or prompts; the interval stays within `ends`.
    """
    value = float(values.mean())
    return _with_error(value, (values - value) / len(values), raters, prompts, fewest=fewest, ends=ends)


def differences(
    values: np.ndarray,
    systems: Labels,
    raters: Labels,
    prompts: Labels,
    pairs: Sequence[tuple[str, str]],
    *,
    ends: Interval = UNBOUNDED,
) -> list[Estimate]:
    """Return the difference of each pair's means, as if all had been rated by the same raters on the same prompts.

    Least squares with one effect per system, rater and prompt, over all ratings: in a complete Latin square these are
    the differences of plain means; if ratings are missing, harsher raters do not bias a system. An effect of a rater
    or prompt on all systems adds no error, an effect on one system does. No error if MIN_CLUSTERS ratings or fewer are
    left in addition to the effects, and no difference of systems that no raters and prompts connect.
    """
    known = np.unique(systems)
    design = np.hstack([_indicators(names) for names in (systems, raters, prompts)])
    solved = np.linalg.pinv(design)
    effects = solved @ values
    residuals = values - design @ effects
    freedom = len(values) - int(np.linalg.matrix_rank(design))
    found = []
    for system, against in pairs:
        contrast = np.zeros(design.shape[1])
        contrast[: len(known)] = (known == system).astype(float) - (known == against)
        if np.abs(contrast @ solved @ design - contrast).max() > EQUAL**0.5:
            found.append(Estimate(None, None, None, len(values), 0))
            continue
        value = float(contrast @ effects)
        influence = (contrast @ solved) * residuals * np.sqrt((len(values) - 1) / max(freedom, 1))
        fewest = MIN_CLUSTERS if freedom > MIN_CLUSTERS else len(values) + 1
        found.append(_with_error(value, influence, raters, prompts, fewest=fewest, ends=ends))
    return found


def _indicators(names: Labels) -> np.ndarray:
    known, which = np.unique(names, return_inverse=True)
    return np.eye(len(known))[which]


def _with_error(
    value: float, influence: np.ndarray, raters: Labels, prompts: Labels, *, fewest: int, ends: Interval
) -> Estimate:
    """Two-way cluster-robust variance (Cameron, Gelbach and Miller, 2011) of a sum of influences.

    The variance over raters plus that over prompts minus that over (rater, prompt) cells, at least the larger of the
    first two. Student's t; its degrees of freedom are the smaller number of raters or prompts minus one.
    """
    clusters = min(len(np.unique(raters)), len(np.unique(prompts)))
    if clusters < fewest:
        return Estimate(value, None, None, len(influence), 0)
    cells = np.unique(raters, return_inverse=True)[1] * len(prompts) + np.unique(prompts, return_inverse=True)[1]
    one, other, both = (_variance(influence, names) for names in (raters, prompts, cells))
    stderr = float(np.sqrt(max(one + other - both, one, other)))
    found = t_interval(value, stderr, clusters - 1)
    kept = found and (max(found[0], ends[0]), min(found[1], ends[1]))
    return Estimate(value, stderr, kept, len(influence), 0, two_sided_p(value, stderr, clusters - 1))


def _variance(influence: np.ndarray, names: Labels) -> float:
    _, which = np.unique(names, return_inverse=True)
    sums = np.bincount(which, weights=influence)
    return float(np.sum(sums**2)) * len(sums) / (len(sums) - 1) if len(sums) > 1 else 0.0
