"""Clustered means against closed forms, a slow bootstrap and simulated coverage."""

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignslm import statistics
from alignslm.config.models import Bootstrap
from alignslm.statistics import group_means, mean_interval, paired_difference, sign_test

B = Bootstrap(resamples=400, confidence=0.95)
ROWS = st.lists(st.tuples(st.one_of(st.none(), st.floats(-5, 5, width=32)), st.integers(0, 6)), min_size=1, max_size=30)


def slow_interval(values, clusters, *, resamples, confidence, seed):
    """Bootstrap written as it is told: draw clusters, pool their rows, average."""
    groups = {}
    for value, cluster in zip(values, clusters, strict=True):
        if value is not None:
            groups.setdefault(cluster, []).append(value)
    names = sorted(groups)
    generator = np.random.default_rng(seed)
    means = []
    for _ in range(resamples):
        rows = [value for c in generator.integers(0, len(names), len(names)) for value in groups[names[c]]]
        means.append(sum(rows) / len(rows))
    tail = (1 - confidence) / 2
    return np.quantile(means, [tail, 1 - tail])


def test_single_rows_have_the_textbook_error():
    values = np.random.default_rng(0).normal(2.0, 3.0, 4000)
    found = mean_interval(values, np.arange(4000), bootstrap=Bootstrap(resamples=4000, confidence=0.95), seed=1)
    stderr = values.std(ddof=1) / math.sqrt(4000)
    assert found.value == pytest.approx(values.mean())
    assert found.stderr == pytest.approx(stderr)
    assert found.low == pytest.approx(values.mean() - 1.96 * stderr, abs=0.1 * stderr)
    assert found.high == pytest.approx(values.mean() + 1.96 * stderr, abs=0.1 * stderr)
    assert (found.n, found.n_missing) == (4000, 0)


def test_copies_of_a_row_add_no_certainty():
    values = np.random.default_rng(0).normal(size=200)
    once = mean_interval(values, np.arange(200), bootstrap=B, seed=1)
    thrice = mean_interval(np.repeat(values, 3), np.repeat(np.arange(200), 3), bootstrap=B, seed=1)
    assert thrice.stderr == pytest.approx(once.stderr)
    assert (thrice.low, thrice.high) == pytest.approx((once.low, once.high))
    assert thrice.n == 600


def test_stderr_of_unequal_clusters_by_hand():
    # clusters a: 1, 3 (residuals -2, 0), b: 5 (residual 2); mean 3; sqrt(2/1 * (4 + 4)) / 3 = 4 / 3
    found = mean_interval([1, 3, 5], ["a", "a", "b"], bootstrap=B, seed=0)
    assert (found.value, found.stderr) == (3.0, pytest.approx(4 / 3))


@settings(max_examples=30, deadline=None)
@given(ROWS, st.integers(0, 99))
def test_equals_the_slow_bootstrap(rows, seed):
    values, clusters = zip(*rows, strict=True)
    measured = {c for v, c in rows if v is not None}
    found = mean_interval(values, clusters, bootstrap=B, seed=seed)
    if len(measured) > 1:
        expected = slow_interval(values, clusters, resamples=400, confidence=0.95, seed=seed)
        assert (found.low, found.high) == pytest.approx(tuple(expected), abs=1e-12)
    else:
        assert (found.stderr, found.low, found.high) == (None, None, None)
    assert found.n == sum(v is not None for v in values)
    assert found.n + found.n_missing == len(rows)


@settings(max_examples=30, deadline=None)
@given(ROWS, st.randoms(use_true_random=False))
def test_row_order_changes_no_bit(rows, chance):
    mixed = list(rows)
    chance.shuffle(mixed)
    first, second = (mean_interval(*map(list, zip(*some, strict=True)), bootstrap=B, seed=3) for some in (rows, mixed))
    assert first == second


def test_rows_of_a_cluster_are_added_in_one_order():
    rows = [1e16, 1.0, -1e16, 1.0]  # added as they stand these give 1 or 2 by order
    found = {mean_interval(some, ["a"] * 4, bootstrap=B, seed=0).value for some in (rows, rows[::-1], sorted(rows))}
    assert len(found) == 1


def test_memory_blocks_change_no_bit(monkeypatch):
    values, clusters = np.random.default_rng(0).normal(size=70), np.arange(70) // 2
    whole = mean_interval(values, clusters, bootstrap=B, seed=5)
    monkeypatch.setattr(statistics, "BLOCK", 35 * 7)
    assert mean_interval(values, clusters, bootstrap=B, seed=5) == whole


def test_interval_covers_the_truth_about_as_often_as_it_says():
    generator = np.random.default_rng(7)
    bootstrap, clusters = Bootstrap(resamples=300, confidence=0.95), np.repeat(np.arange(60), 3)
    hits = naive_hits = 0
    for seed in range(300):
        values = np.repeat(generator.normal(size=60), 3) + 0.3 * generator.normal(size=180)
        found = mean_interval(values, clusters, bootstrap=bootstrap, seed=seed)
        naive = mean_interval(values, np.arange(180), bootstrap=bootstrap, seed=seed)
        hits += found.low <= 0 <= found.high
        naive_hits += naive.low <= 0 <= naive.high
    assert 0.90 <= hits / 300 <= 0.98
    assert naive_hits / 300 < 0.88  # rows taken as independent promise too much


def test_missing_values_are_counted_not_scored():
    found = mean_interval([1.0, None, math.nan, 0.0], ["a", "b", "c", "d"], bootstrap=B, seed=0)
    assert (found.value, found.n, found.n_missing) == (0.5, 2, 2)
    nothing = mean_interval([None, None], ["a", "b"], bootstrap=B, seed=0)
    assert nothing == (None, None, None, None, 0, 2)
    column = pl.Series([1.0, None, 0.0])
    assert mean_interval(column, pl.Series(["a", "b", "c"]), bootstrap=B, seed=0).n_missing == 1


def test_paired_difference_cancels_what_both_share():
    generator = np.random.default_rng(0)
    hard = generator.normal(0, 5, 300)
    a, b = hard + 0.5 + 0.1 * generator.normal(size=300), hard + 0.1 * generator.normal(size=300)
    both = paired_difference(a, b, np.arange(300), bootstrap=B, seed=0)
    alone = mean_interval(a, np.arange(300), bootstrap=B, seed=0)
    assert both.low > 0.45
    assert both.stderr < alone.stderr / 20


def test_paired_difference_misses_a_row_where_either_side_is_missing():
    found = paired_difference([3, None, 2, 1], [1, 1, None, 1], list("abcd"), bootstrap=B, seed=0)
    assert (found.value, found.n, found.n_missing) == (1.0, 2, 2)


def test_unequal_lengths_are_refused():
    with pytest.raises(ValueError, match=r"^values have \(2,\) rows, clusters \(1,\); give one cluster a value$"):
        mean_interval([1, 2], ["a"], bootstrap=B, seed=0)
    with pytest.raises(ValueError, match=r"^a has \(2,\) rows, b \(1,\); join them by id before comparing$"):
        paired_difference([1, 2], [1], ["a", "b"], bootstrap=B, seed=0)


def test_voices_are_averaged_within_an_id_before_ids():
    ids, means = group_means([1, 0, None, 1, None], ["x", "x", "x", "y", "z"])
    assert ids.tolist() == ["x", "y", "z"]
    assert means.tolist()[:2] == [0.5, 1.0]
    assert math.isnan(means[2])  # no voice measured: missing, not 0
    assert mean_interval(means, ids, bootstrap=B, seed=0)[0] == 0.75  # the mean over rows would be 2 / 3


def slow_p(wins, losses):
    """Add up the probabilities of every split that is no more probable than this one."""
    n = wins + losses
    return sum(math.comb(n, k) for k in range(n + 1) if math.comb(n, k) <= math.comb(n, wins)) / 2**n


def test_exact_test_by_hand():
    # 9 of 11 discordant: 2 * (C(11,0) + C(11,1) + C(11,2)) / 2^11 = 2 * (1 + 11 + 55) / 2048
    a, b = [1] * 9 + [0] * 2 + [1] * 4 + [0] * 5 + [math.nan], [0] * 9 + [1] * 2 + [1] * 4 + [0] * 5 + [1]
    assert sign_test(a, b) == (9, 2, 9, pytest.approx(134 / 2048))
    assert sign_test([1, 0.5, 0.5], [0.5, 0.5, 0]) == (2, 0, 1, pytest.approx(0.5))  # 2 * 1 / 2^2
    assert sign_test([1, math.nan], [1, 0]) == (0, 0, 1, 1.0)
    assert sign_test([0.1 + 0.2], [0.3]) == (0, 0, 1, 1.0)  # unequal in the last bit alone


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(*[st.sampled_from([0, 0.5, 1, math.nan])] * 2), min_size=1, max_size=30), st.randoms())
def test_exact_test_equals_the_slow_one_in_any_order_and_from_both_sides(rows, chance):
    a, b = zip(*rows, strict=True)
    found, turned = sign_test(a, b), sign_test(b, a)
    wins, losses = sum(x > y for x, y in rows), sum(x < y for x, y in rows)
    assert found[:2] == (wins, losses)
    assert found.p == pytest.approx(slow_p(wins, losses))
    assert turned == (losses, wins, found.ties, pytest.approx(found.p))
    assert sign_test(*zip(*chance.sample(rows, len(rows)), strict=True)) == found


def test_exact_test_rejects_no_more_often_than_it_says():
    generator = np.random.default_rng(0)
    rejected = sum(sign_test(*generator.integers(0, 2, (2, 60))).p <= 0.05 for _ in range(400))
    assert rejected / 400 <= 0.06


def test_exact_test_of_unequal_lengths_is_refused():
    with pytest.raises(ValueError, match=r"^a has \(2,\) rows, b \(1,\); join them by id before comparing$"):
        sign_test([1, 2], [1])
