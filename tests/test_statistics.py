"""Clustered means against scipy, slow loops, printed formulas and simulated coverage."""

import math

import numpy as np
import polars as pl
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from alignslm.statistics import (
    ANSWERS,
    MIN_CLUSTERS,
    POINTS,
    RATIO,
    count_pairs,
    group_means,
    holm,
    mean_interval,
    mean_over_runs,
    paired_difference,
)

ROWS = st.lists(st.tuples(st.one_of(st.none(), st.floats(-5, 5, width=32)), st.integers(0, 9)), min_size=1, max_size=40)
PAIRS = st.lists(st.tuples(*[st.sampled_from([0, 0.5, 1])] * 2), min_size=5, max_size=30)


def slow_interval(values, clusters):
    """The interval written as it is told: the mean without each cluster in turn, Student's t; None without spread."""
    groups = {}
    for value, cluster in zip(values, clusters, strict=True):
        if value is not None:
            groups.setdefault(cluster, []).append(value)
    rows = [value for some in groups.values() for value in some]
    mean, count = sum(rows) / len(rows), len(groups)
    others = [[v for name, some in groups.items() if name != out for v in some] for out in groups]
    stderr = math.sqrt((count - 1) / count * sum((sum(some) / len(some) - mean) ** 2 for some in others))
    half = scipy.stats.t.ppf(0.975, count - 1) * stderr
    return None if stderr < 1e-9 else (mean - half, mean + half)


def test_single_rows_have_the_textbook_interval_and_test():
    values = np.random.default_rng(0).normal(0.4, 1.0, 12)
    found, oracle = mean_interval(values, np.arange(12)), scipy.stats.ttest_1samp(values, 0)
    assert found.value == pytest.approx(values.mean())
    assert found.stderr == pytest.approx(scipy.stats.sem(values))
    assert found.ci95 == pytest.approx(tuple(oracle.confidence_interval(0.95)))
    assert (found.n, found.n_missing, found.p) == (12, 0, None)
    other = np.random.default_rng(1).normal(size=12)
    paired, oracle = paired_difference(values, other, np.arange(12)), scipy.stats.ttest_rel(values, other)
    assert paired.ci95 == pytest.approx(tuple(oracle.confidence_interval(0.95)))
    assert paired.p == pytest.approx(oracle.pvalue)


@pytest.mark.parametrize(("right", "n"), [(50, 50), (0, 7), (97, 100), (3, 5), (1, 200)])
def test_shares_have_wilsons_interval(right, n):
    found = mean_interval([1.0] * right + [0.0] * (n - right), np.arange(n), scale=ANSWERS)
    oracle = scipy.stats.binomtest(right, n).proportion_ci(0.95, "wilson")
    assert found.ci95 == pytest.approx((oracle.low, oracle.high), abs=1e-12)


def test_wilsons_interval_of_clustered_answers_has_as_many_rows_as_their_variance_says():
    # every prompt's two answers agree: as much as is known of 40 prompts, not of 80 rows
    right = np.repeat([1.0] * 30 + [0.0] * 10, 2)
    found = mean_interval(right, np.repeat(np.arange(40), 2), scale=ANSWERS)
    t, n, p = scipy.stats.t.ppf(0.975, 39), 40, 0.75
    centre, half = p + t * t / (2 * n), t * math.sqrt(p * (1 - p) / n + t * t / (4 * n * n))
    assert found.ci95 == pytest.approx(((centre - half) / (1 + t * t / n), (centre + half) / (1 + t * t / n)))


def test_a_scale_bounds_the_interval_and_equal_scores_prove_no_certainty():
    low, high = mean_interval([5.0] * 6, range(6), scale=POINTS).ci95
    assert (3 < low < 4.5, high) == (True, 5.0)
    assert 0 < mean_interval([0.5] * 6, range(6), scale=RATIO).ci95[0] < 0.3
    assert mean_interval([0.5] * 6, range(6)) == (0.5, 0.0, None, 6, 0, None)
    outside = mean_interval([4.0, 5.0, 6.0, 5.0, 5.0], range(5), scale=POINTS)  # a scale of one's own: Student's t
    assert outside == mean_interval([4.0, 5.0, 6.0, 5.0, 5.0], range(5))


@pytest.mark.parametrize("count", [1, MIN_CLUSTERS - 1])
def test_too_few_clusters_have_a_mean_and_nothing_else(count):
    rows, names = np.arange(2.0 * count), np.repeat(np.arange(count), 2)
    assert mean_interval(rows, names) == (rows.mean(), None, None, 2 * count, 0, None)
    assert mean_interval(rows % 2, names, scale=ANSWERS) == (0.5, None, None, 2 * count, 0, None)
    assert paired_difference(rows, -rows, names, scale=ANSWERS)[1:3] == (None, None)
    assert paired_difference(rows, -rows, names).p is None


def test_differences_of_answers_are_bonetts_and_prices():
    # 9 pairs won, 2 lost of 40: two more pairs, one won and one lost, then the variance of the 42
    a, b = [1] * 9 + [0] * 2 + [1] * 29, [0] * 9 + [1] * 2 + [1] * 29
    found = paired_difference(a, b, np.arange(40), scale=ANSWERS)
    won, lost, t = 10 / 42, 3 / 42, scipy.stats.t.ppf(0.975, 39)
    error = math.sqrt((won + lost - (won - lost) ** 2) / 42)
    assert found.value == pytest.approx(7 / 40)
    assert found.ci95 == pytest.approx((won - lost - t * error, won - lost + t * error))
    assert found.p == pytest.approx(2 * scipy.stats.t.sf((won - lost) / error, 39))


def test_pairs_of_several_answers_are_joined_by_two_as_large_as_the_unequal():
    a, b = [0.5, 0.25, 0.0, 0.5, 1.0, 1.0], [0.0, 0.5, 0.0, 0.5, 1.0, 0.75]
    found = paired_difference(a, b, range(6), scale=ANSWERS)
    size = math.sqrt((0.5**2 + 0.25**2 + 0.25**2) / 3)
    rows = np.array([0.5, -0.25, 0, 0, 0, 0.25, size, -size])
    half = scipy.stats.t.ppf(0.975, 5) * rows.std() / math.sqrt(8)
    assert found.ci95 == pytest.approx((rows.mean() - half, rows.mean() + half))


def test_equal_answers_of_all_pairs_do_not_prove_equality():
    low, high = paired_difference([1] * 40, [1] * 40, np.arange(40), scale=ANSWERS).ci95
    assert low == pytest.approx(-high)
    assert 0.05 < high < 0.15  # three in 40 could differ and none of these 40 do
    assert paired_difference([2.0] * 9, [2.0] * 9, range(9)) == (0.0, 0.0, None, 9, 0, 1.0)
    assert paired_difference([2.0] * 9, [1.5] * 9, range(9)) == (0.5, 0.0, None, 9, 0, None)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(*[st.sampled_from([0, 0.5, 1])] * 2), min_size=5, max_size=30), st.sampled_from([None, ANSWERS])
)
def test_interval_and_p_give_one_verdict(rows, scale):
    a, b = zip(*rows, strict=True)
    found = paired_difference(a, b, range(len(rows)), scale=scale)
    if found.ci95 is not None:
        assert (found.p < 0.05) == (not found.ci95[0] <= 0 <= found.ci95[1])


def test_copies_of_a_row_add_no_certainty():
    values = np.random.default_rng(0).normal(size=200)
    once = mean_interval(values, np.arange(200))
    thrice = mean_interval(np.repeat(values, 3), np.repeat(np.arange(200), 3))
    assert thrice.stderr == pytest.approx(once.stderr)
    assert thrice.ci95 == pytest.approx(once.ci95)
    assert thrice.n == 600


def test_stderr_of_unequal_clusters_by_hand():
    # clusters a: 1, 3, b: 5, c, d, e: 3; the mean is 3, without a 14 / 4, without b 13 / 5, otherwise 15 / 5
    found = mean_interval([1, 3, 5, 3, 3, 3], ["a", "a", "b", "c", "d", "e"])
    assert (found.value, found.stderr) == (3.0, pytest.approx(math.sqrt(4 / 5 * (0.5**2 + 0.4**2))))


@settings(max_examples=50, deadline=None)
@given(ROWS)
def test_equals_the_slow_interval(rows):
    values, clusters = zip(*rows, strict=True)
    measured = {c for v, c in rows if v is not None}
    found = mean_interval(values, clusters)
    if len(measured) >= MIN_CLUSTERS:
        assert found.ci95 == pytest.approx(slow_interval(values, clusters), abs=1e-9)
    else:
        assert (found.stderr, found.ci95) == (None, None)
    assert found.n == sum(v is not None for v in values)
    assert found.n + found.n_missing == len(rows)


@settings(max_examples=30, deadline=None)
@given(ROWS, st.randoms(use_true_random=False))
def test_row_order_changes_no_bit(rows, chance):
    mixed = list(rows)
    chance.shuffle(mixed)
    first, second = (mean_interval(*map(list, zip(*some, strict=True))) for some in (rows, mixed))
    assert first == second


def test_rows_of_a_cluster_are_added_in_one_order():
    rows = [1e16, 1.0, -1e16, 1.0]  # added as they stand these give 1 or 2 by order
    found = {mean_interval(some, ["a"] * 4).value for some in (rows, rows[::-1], sorted(rows))}
    assert len(found) == 1


def test_three_runs_or_none():
    half = 4.302652729911275 / math.sqrt(3)
    assert mean_over_runs([1, 3, 2, math.nan])[2] == pytest.approx((2 - half, 2 + half))
    assert mean_over_runs([1, 3]) == (2.0, None, None, 2, 0, None)
    assert mean_over_runs([2, 2, 2]) == (2.0, 0.0, None, 3, 0, None)


def test_holm_by_hand():
    assert holm([0.01, None, 0.04, 0.03, 0.005]) == pytest.approx([0.03, None, 0.06, 0.06, 0.02], nan_ok=True)
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


TRIALS = 2000  # 95 % of them: 1900, give or take 10


def covered(draw, truth):
    """The share of intervals that hold the truth; `draw` makes one estimate."""
    found = [draw().ci95 for _ in range(TRIALS)]
    return sum(ends is not None and ends[0] <= truth <= ends[1] for ends in found) / TRIALS


@pytest.mark.long
@pytest.mark.parametrize("clusters", [5, 8, 20, 100])
def test_a_null_difference_is_significant_in_five_of_a_hundred(clusters):
    rng, names = np.random.default_rng(clusters), np.arange(clusters)

    def scores():
        hard = rng.normal(size=clusters)
        return paired_difference(hard + rng.normal(size=clusters), hard + rng.normal(size=clusters), names)

    def answers():
        return paired_difference(*(rng.random((2, clusters)) < 0.7), names, scale=ANSWERS)

    assert 0.935 <= covered(scores, 0) <= 0.965
    assert covered(answers, 0) >= 0.94


@pytest.mark.long
@pytest.mark.parametrize("clusters", [5, 8, 20, 60])
def test_the_interval_of_a_mean_of_unequal_clusters_holds(clusters):
    rng = np.random.default_rng(clusters)

    def draw():
        names = np.repeat(np.arange(clusters), rng.integers(1, 5, clusters))
        return mean_interval(rng.normal(size=clusters)[names] + 0.5 * rng.normal(size=len(names)), names)

    assert 0.925 <= covered(draw, 0) <= 0.97


@pytest.mark.long
@pytest.mark.parametrize(("share", "n"), [(0.97, 50), (0.97, 20), (0.9, 20), (0.5, 10), (0.03, 100)])
def test_the_interval_of_a_share_holds_near_the_ends(share, n):
    rng, names = np.random.default_rng(n), np.arange(n)
    assert covered(lambda: mean_interval(rng.random(n) < share, names, scale=ANSWERS), share) >= 0.92

    def two_draws():
        prompt = np.repeat(rng.random(n), 2)  # half of the prompts answer twice alike
        mixed = np.where(np.repeat(rng.random(n) < 0.5, 2), prompt, rng.random(2 * n))
        return mean_interval(mixed < share, np.repeat(names, 2), scale=ANSWERS)

    assert covered(two_draws, share) >= 0.92


@pytest.mark.long
@pytest.mark.parametrize("n", [20, 50, 200])
def test_the_interval_of_a_rare_difference_holds(n):
    rng = np.random.default_rng(n)

    def draw():
        outcome = rng.choice([1, -1, 0], n, p=[0.04, 0.01, 0.95])
        return paired_difference(outcome > 0, outcome < 0, np.arange(n), scale=ANSWERS)

    def three_runs():
        outcome = rng.choice([1, -1, 0], (n, 3), p=[0.04, 0.01, 0.95]).mean(axis=1)
        return paired_difference(0.5 + outcome / 2, 0.5 - outcome / 2, np.arange(n), scale=ANSWERS)

    assert covered(draw, 0.03) >= 0.93
    assert covered(three_runs, 0.03) >= 0.93


def test_missing_values_are_counted_not_scored():
    found = mean_interval([1.0, None, math.nan, 0.0], ["a", "b", "c", "d"])
    assert (found.value, found.n, found.n_missing) == (0.5, 2, 2)
    nothing = mean_interval([None, None], ["a", "b"])
    assert nothing == (None, None, None, 0, 2, None)
    column = pl.Series([1.0, None, 0.0])
    assert mean_interval(column, pl.Series(["a", "b", "c"])).n_missing == 1


def test_paired_difference_cancels_what_both_share():
    generator = np.random.default_rng(0)
    hard = generator.normal(0, 5, 300)
    a, b = hard + 0.5 + 0.1 * generator.normal(size=300), hard + 0.1 * generator.normal(size=300)
    both = paired_difference(a, b, np.arange(300))
    alone = mean_interval(a, np.arange(300))
    assert both.ci95[0] > 0.45
    assert both.stderr < alone.stderr / 20


def test_paired_difference_misses_a_row_where_either_side_is_missing():
    found = paired_difference([3, None, 2, 1], [1, 1, None, 1], list("abcd"))
    assert (found.value, found.n, found.n_missing) == (1.0, 2, 2)


def test_unequal_lengths_are_refused():
    with pytest.raises(ValueError, match=r"^values have \(2,\) rows, clusters \(1,\); expected one cluster per value$"):
        mean_interval([1, 2], ["a"])
    with pytest.raises(ValueError, match=r"^a has \(2,\) rows, b \(1,\); join them by id before comparing$"):
        paired_difference([1, 2], [1], ["a", "b"])


def test_voices_are_averaged_within_an_id_before_ids():
    ids, means = group_means([1, 0, None, 1, None], ["x", "x", "x", "y", "z"])
    assert ids.tolist() == ["x", "y", "z"]
    assert means.tolist()[:2] == [0.5, 1.0]
    assert math.isnan(means[2])  # no voice measured: missing, not 0
    assert mean_interval(means, ids)[0] == 0.75  # the mean over rows would be 2 / 3


def test_pairs_are_counted_by_hand():
    a, b = [1] * 9 + [0] * 2 + [1] * 4 + [0] * 5 + [math.nan], [0] * 9 + [1] * 2 + [1] * 4 + [0] * 5 + [1]
    assert count_pairs(a, b) == (9, 2, 9)
    assert count_pairs([0.1 + 0.2], [0.3]) == (0, 0, 1)  # unequal in the last bit alone
