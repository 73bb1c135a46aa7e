"""Means with honest errors: clustered, missing values counted, never scored 0."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from alignslm.config.models import Bootstrap

Floats = npt.NDArray[np.float64]
EQUAL = 1e-9  # means of equal values, added in another order, differ by less
BLOCK = 1 << 24  # resampled clusters held in memory at once; the result does not depend on it


class Estimate(NamedTuple):
    """A mean over `n` measured rows; `n_missing` more rows were not measured and take no part.

    `stderr`, `low` and `high` are None below two clusters: there is nothing to estimate an error from.
    """

    value: float | None
    stderr: float | None
    low: float | None
    high: float | None
    n: int
    n_missing: int

    @property
    def ci95(self) -> tuple[float, float] | None:
        """The interval's two ends."""
        return None if self.low is None or self.high is None else (self.low, self.high)


class SignTest(NamedTuple):
    """In how many pairs a - b is above, below and at 0, and the probability of a split so uneven by chance."""

    wins: int
    losses: int
    ties: int
    p: float


def mean_interval(values: npt.ArrayLike, clusters: npt.ArrayLike, *, bootstrap: Bootstrap, seed: int) -> Estimate:
    """Estimate the mean of `values` (rows,), with rows of one cluster (rows,) taken as dependent.

    null, None and NaN are missing. The mean weighs rows equally (sum of cluster sums over sum of cluster sizes).
    `stderr` is the cluster-robust linearisation sqrt(C / (C - 1) * sum_c (s_c - mean * n_c)^2) / n; the interval
    is the percentile bootstrap over whole clusters. To weigh ids equally whatever their number of voices, call
    `group_means` first. Row order changes no bit of the result.
    """
    rows, names = _column(values), np.asarray(clusters)
    if rows.shape != names.shape:
        raise ValueError(f"values have {rows.shape} rows, clusters {names.shape}; give one cluster a value")
    measured = ~np.isnan(rows)
    n, n_missing = int(measured.sum()), int((~measured).sum())
    if n == 0:
        return Estimate(None, None, None, None, 0, n_missing)
    sums, sizes = _cluster_sums(rows[measured], names[measured])
    value = float(sums.sum() / n)
    count = len(sums)
    if count < 2:
        return Estimate(value, None, None, None, n, n_missing)
    stderr = float(np.sqrt(count / (count - 1) * np.sum((sums - value * sizes) ** 2)) / n)
    means = _resampled_means(sums, sizes, resamples=bootstrap.resamples, seed=seed)
    tail = (1 - bootstrap.confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Estimate(value, stderr, float(low), float(high), n, n_missing)


def paired_difference(
    a: npt.ArrayLike, b: npt.ArrayLike, clusters: npt.ArrayLike, *, bootstrap: Bootstrap, seed: int
) -> Estimate:
    """Estimate the mean of a - b over rows (rows,) that belong together; missing where either side is missing.

    What a and b share, such as hard prompts, cancels; two separate intervals that overlap do not say so.
    """
    left, right = _column(a), _column(b)
    if left.shape != right.shape:
        raise ValueError(f"a has {left.shape} rows, b {right.shape}; join them by id before comparing")
    return mean_interval(left - right, clusters, bootstrap=bootstrap, seed=seed)


def sign_test(a: npt.ArrayLike, b: npt.ArrayLike) -> SignTest:
    """Test exactly, on both sides, whether a is above b as often as below; rows where either is missing take no part.

    Under the null hypothesis wins are binomial in wins + losses with 1/2; ties say nothing and stand apart (Conover's
    reading, and McNemar's: where a and b are 0 or 1 this is his exact test of the discordant pairs). A pair whose
    likelihoods tie counts 1/2 in an accuracy; here it wins against 0 and loses against 1. Rows must be independent:
    average the voices of an item first. The test sees how often, not by how much; `paired_difference` sees the mean.
    """
    left, right = _column(a), _column(b)
    if left.shape != right.shape:
        raise ValueError(f"a has {left.shape} rows, b {right.shape}; join them by id before comparing")
    differences = left - right
    wins, losses = int((differences > EQUAL).sum()), int((differences < -EQUAL).sum())
    ties = int((~np.isnan(differences)).sum()) - wins - losses
    from scipy.stats import binomtest  # imported where it is used: most of a report's importing time otherwise

    p = binomtest(wins, wins + losses, 0.5).pvalue if wins + losses else 1.0
    return SignTest(wins, losses, ties, float(p))


def mean_over_runs(means: npt.ArrayLike, *, confidence: float) -> Estimate:
    """Estimate the mean of one figure a training run (runs,): what another run of the same items would give.

    The interval is Student's t with one degree of freedom less than runs, wide for few: with three runs it reaches
    4.3 standard errors to each side.
    """
    column = _column(means)
    measured = column[~np.isnan(column)]
    n, n_missing = len(measured), len(column) - len(measured)
    if n == 0:
        return Estimate(None, None, None, None, 0, n_missing)
    value = float(np.sort(measured).mean())
    if n < 2:
        return Estimate(value, None, None, None, n, n_missing)
    from scipy.stats import t

    stderr = float(np.sort(measured).std(ddof=1) / np.sqrt(n))
    half = float(t.ppf((1 + confidence) / 2, n - 1)) * stderr
    return Estimate(value, stderr, value - half, value + half, n, n_missing)


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
        raise ValueError(f"expected one value a row, got shape {column.shape}")
    return column


def _cluster_sums(rows: Floats, names: np.ndarray) -> tuple[Floats, Floats]:
    """Return sums and sizes (clusters,); rows are added in sorted order, so their order cannot change a bit."""
    _, inverse = np.unique(names, return_inverse=True)
    order = np.lexsort((rows, inverse))
    sums = np.bincount(inverse[order], weights=rows[order])
    return sums.astype(np.float64), np.bincount(inverse).astype(np.float64)


def _resampled_means(sums: Floats, sizes: Floats, *, resamples: int, seed: int) -> Floats:
    generator = np.random.default_rng(seed)
    count = len(sums)
    block = max(1, BLOCK // count)
    means = []
    for start in range(0, resamples, block):
        drawn = generator.integers(0, count, (min(block, resamples - start), count))
        means.append(sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1))
    return np.concatenate(means)
