"""Means with honest errors: clustered, missing values counted, never scored 0.

Every interval and every p of the product comes from here. The procedure is Student's t over clusters; means on a scale
with ends have Wilson's interval, and differences of answers that are right or wrong the one of Bonett and Price.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import special

Floats = npt.NDArray[np.float64]
Interval = tuple[float, float]
CENTRAL = 0.975  # quantile of an interval of 95 %: every reported one is called ci95
MIN_CLUSTERS = 5  # no interval and no p below: t is exact for normal means, and scores are not normal
MIN_RUNS = 3  # of training; means over many items are nearly normal, so fewer will do
TOO_FEW = "too few"
ALL_EQUAL = "all equal"
EQUAL = 1e-9  # means of equal values, added in another order, differ by less


class Scale(NamedTuple):
    """The lowest and highest value of a metric. `answers`: rows are right or wrong, yes or no, or means of such."""

    low: float
    high: float
    answers: bool = False


ANSWERS = Scale(0, 1, answers=True)
RATIO = Scale(0, 1)
POINTS = Scale(1, 5)


class Estimate(NamedTuple):
    """A mean over `n` measured rows; `n_missing` more rows were not measured and take no part.

    `stderr` and `ci95` are None below MIN_CLUSTERS clusters (MIN_RUNS runs). If all clusters are equal, `stderr` is 0,
    and there is no interval unless the scale has ends: no observed spread does not mean there is none. `p` is for
    a difference: it is below 0.05 exactly if the interval excludes 0.
    """

    value: float | None
    stderr: float | None
    ci95: Interval | None
    n: int
    n_missing: int
    p: float | None = None


class Counts(NamedTuple):
    """In how many pairs a - b is above, below and at 0."""

    above: int
    below: int
    equal: int


def mean_interval(values: npt.ArrayLike, clusters: npt.ArrayLike, *, scale: Scale | None = None) -> Estimate:
    """Estimate the mean of `values` (rows,), with rows of one cluster (rows,) taken as dependent.

    null, None and NaN are missing. The mean weighs rows equally (sum of cluster sums over sum of cluster sizes).
    `stderr` is the delete-one-cluster jackknife's, sqrt((C - 1) / C * sum_c (mean without c - mean)^2); the interval
    is Student's t with C - 1 degrees of freedom, on a scale with ends Wilson's (see `_wilson`). To weigh ids equally
    whatever their number of voices, call `group_means` first. Row order changes no bit of the result.
    """
    rows, names = _column(values), np.asarray(clusters)
    if rows.shape != names.shape:
        raise ValueError(f"values have {rows.shape} rows, clusters {names.shape}; expected one cluster per value")
    measured = ~np.isnan(rows)
    n, n_missing = int(measured.sum()), int((~measured).sum())
    if n == 0:
        return Estimate(None, None, None, 0, n_missing)
    value, stderr, count = _jackknifed(*_cluster_sums(rows[measured], names[measured]))
    if count < MIN_CLUSTERS:
        return Estimate(value, None, None, n, n_missing)
    if scale is None or rows[measured].min() < scale.low or rows[measured].max() > scale.high:
        return Estimate(value, stderr, t_interval(value, stderr, count - 1), n, n_missing)
    return Estimate(value, stderr, _wilson(value, stderr, rows[measured], count, scale), n, n_missing)


def paired_difference(
    a: npt.ArrayLike, b: npt.ArrayLike, clusters: npt.ArrayLike, *, scale: Scale | None = None
) -> Estimate:
    """Estimate the mean of a - b over rows (rows,) that belong together; missing where either side is missing.

    Common effects, such as hard prompts, cancel; two separate intervals would not show that. The interval
    and `p` are those of the paired t test over clusters. For answers they are of Bonett and Price (2012): two more
    pairs, one won and one lost, count in the interval, so that few or no unequal pairs do not look like certainty. They
    are as large as the unequal pairs: 1 for plain answers, less (root mean square) where rows are means of several.
    """
    left, right = _column(a), _column(b)
    if left.shape != right.shape:
        raise ValueError(f"a has {left.shape} rows, b {right.shape}; join them by id before comparing")
    differences = left - right
    found = mean_interval(differences, clusters)
    if found.value is None or found.stderr is None:
        return found
    measured = ~np.isnan(differences)
    sums, sizes = _cluster_sums(differences[measured], np.asarray(clusters)[measured])
    centre, error, width = found.value, found.stderr, np.inf if scale is None else scale.high - scale.low
    if scale is not None and scale.answers:
        unequal = sums[np.abs(sums) > EQUAL] / sizes[np.abs(sums) > EQUAL]
        size = float(np.sqrt(np.mean(unequal**2))) if len(unequal) else width
        more = _jackknifed(np.append(sums, (size, -size)), np.append(sizes, (1, 1)))
        centre, error = more[0], more[1] * np.sqrt((more[2] - 1) / more[2])
    ends = t_interval(centre, error, len(sums) - 1)
    kept = ends and (max(ends[0], -width), min(ends[1], width))
    return found._replace(ci95=kept, p=two_sided_p(centre, error, len(sums) - 1))


def count_pairs(a: npt.ArrayLike, b: npt.ArrayLike) -> Counts:
    """Count the pairs with a above, below and equal to b (within EQUAL); a pair with a missing side is not counted."""
    differences = _column(a) - _column(b)
    above, below = int((differences > EQUAL).sum()), int((differences < -EQUAL).sum())
    return Counts(above, below, int((~np.isnan(differences)).sum()) - above - below)


def holm(probabilities: Sequence[float | None]) -> list[float | None]:
    """Return p corrected for all that are tested together (Holm, 1979), in their order; None is not tested.

    With every hypothesis true, the chance that any corrected p is below 0.05 is at most 5 %, however they depend.
    """
    tested = sorted((p, place) for place, p in enumerate(probabilities) if p is not None)
    corrected: list[float | None] = [None] * len(probabilities)
    highest = 0.0
    for rank, (p, place) in enumerate(tested):
        highest = max(highest, min(1.0, p * (len(tested) - rank)))
        corrected[place] = highest
    return corrected


def jackknife_values(whole: float, without: Floats) -> Floats:
    """Return one value per cluster (clusters,) from a metric and its values without each cluster in turn (clusters,).

    Their mean is `whole`, their standard error sqrt((C - 1) / C * sum (without - mean)^2), the jackknife's (Efron
    and Stein, 1981).
    """
    return whole + (len(without) - 1) * (without.mean() - without)


def mean_over_runs(means: npt.ArrayLike) -> Estimate:
    """Estimate the mean of one figure a training run (runs,): what another run of the same items would give.

    The interval is Student's t with one degree of freedom less than runs, wide for few: with three runs it reaches
    4.3 standard errors to each side.
    """
    column = _column(means)
    measured = np.sort(column[~np.isnan(column)])
    n, n_missing = len(measured), len(column) - len(measured)
    value = float(measured.mean()) if n else None
    if value is None or n < MIN_RUNS:
        return Estimate(value, None, None, n, n_missing)
    stderr = float(measured.std(ddof=1) / np.sqrt(n))
    return Estimate(value, stderr, t_interval(value, stderr, n - 1), n, n_missing)


def t_interval(value: float, stderr: float, freedom: int) -> Interval | None:
    """Return Student's interval; None without spread."""
    if stderr <= EQUAL * max(1.0, abs(value)):
        return None
    half = float(special.stdtrit(freedom, CENTRAL)) * stderr
    return value - half, value + half


def two_sided_p(value: float, stderr: float, freedom: int) -> float | None:
    """Return the two-sided p of Student's t; without spread 1 for no difference at all, otherwise none."""
    if stderr <= EQUAL * max(1.0, abs(value)):
        return 1.0 if abs(value) <= EQUAL else None
    return 2 * float(special.stdtr(freedom, -abs(value) / stderr))


def _wilson(value: float, stderr: float, rows: Floats, count: int, scale: Scale) -> Interval:
    """Return Wilson's interval (1927) with the effective number of rows (Korn and Graubard, 1998).

    The effective number is the one with the clustered variance as its binomial variance, at most that of the rows
    if these are right or wrong; without spread it is the number of clusters. Independent rows of 0 and 1 give the
    textbook interval; all others have Student's quantile, since their variance is itself estimated.
    """
    width = scale.high - scale.low
    share = (value - scale.low) / width
    binary = bool(np.isin(rows, (scale.low, scale.high)).all())
    variance = (stderr / width) ** 2 * (count - 1) / count
    size = share * (1 - share) / variance if variance > EQUAL**2 else float(count)
    size = min(size, len(rows)) if binary else size
    plain = binary and count == len(rows)
    quantile = float(special.ndtri(CENTRAL) if plain else special.stdtrit(count - 1, CENTRAL))
    added = quantile**2 / size
    centre = (share + added / 2) / (1 + added)
    half = quantile * np.sqrt(share * (1 - share) / size + added / (4 * size)) / (1 + added)
    low, high = (scale.low + width * min(max(float(end), 0.0), 1.0) for end in (centre - half, centre + half))
    return low, high


def _jackknifed(sums: Floats, sizes: Floats) -> tuple[float, float, int]:
    """Return the mean over rows, its jackknife error (0 for one cluster), and the number of clusters."""
    n, count = sizes.sum(), len(sums)
    value = float(sums.sum() / n)
    if count == 1:
        return value, 0.0, count
    moved = (sums - value * sizes) / (n - sizes)  # how far the mean moves without each cluster
    return value, float(np.sqrt((count - 1) / count * np.sum(moved**2))), count


def group_means(values: npt.ArrayLike, ids: npt.ArrayLike) -> tuple[np.ndarray, Floats]:
    """Average the measured rows of each id, such as its voices: ids (k,) in order, means (k,), NaN if none measured."""
    rows, names = _column(values), np.asarray(ids)
    known, inverse = np.unique(names, return_inverse=True)
    measured = ~np.isnan(rows)
    order = np.lexsort((rows[measured], inverse[measured]))
    which = inverse[measured][order]
    sums = np.bincount(which, weights=rows[measured][order], minlength=len(known))
    sizes = np.bincount(which, minlength=len(known))
    return known, np.divide(sums, sizes, out=np.full(len(known), np.nan), where=sizes > 0)


def _column(values: npt.ArrayLike) -> Floats:
    column = np.asarray(values, dtype=np.float64)
    if column.ndim != 1:
        raise ValueError(f"expected one value per row, got shape {column.shape}")
    return column


def _cluster_sums(rows: Floats, names: np.ndarray) -> tuple[Floats, Floats]:
    """Return sums and sizes (clusters,); rows are added in sorted order, so their order cannot change a bit."""
    _, inverse = np.unique(names, return_inverse=True)
    order = np.lexsort((rows, inverse))
    sums = np.bincount(inverse[order], weights=rows[order])
    return sums.astype(np.float64), np.bincount(inverse).astype(np.float64)
