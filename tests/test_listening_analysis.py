"""Analysis of ratings: known effects recovered, intervals that hold what they promise, agreement against an oracle."""

import numpy as np
import polars as pl
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from alignslm import tables
from alignslm.cli.listen import _print_analysis, interval
from alignslm.config.listening import ListeningTestConfig
from alignslm.listening.analysis import (
    AnalysisError,
    _of_correlation,
    analyse,
    assigned_trials,
    automatic_scores,
    counts_of,
    ordinal_alpha,
    pearson,
    spearman,
)
from alignslm.listening.clustered import differences, mean
from alignslm.listening.storage import Rater
from alignslm.listening.study import Study, build_study, read_study
from alignslm.provenance import content_id
from tests.listening_world import STUDY, build, write_scores
from tests.messages import names

NO_SCORES = pl.DataFrame(
    schema={"system": pl.String, "continuation_id": pl.String, "metric": pl.String, "value": pl.Float64}
)
EFFECTS = {"base": 2.4, "sft": 3.0, "r1": 3.6, "ground-truth": 3.9, "original": 4.1}


def study_of(prompts, passes=1):
    choice = ListeningTestConfig.model_validate({**STUDY.model_dump(), "prompts": prompts, "trials_per_prompt": passes})
    return Study(choice=choice, prompts=tuple(f"p{number}" for number in range(prompts)), lufs=-23.0)


def raters_of(count):
    return [Rater(number, f"rater-{number:03d}", f"token-{number}") for number in range(count)]


def simulate(study, raters, *, seed, effects=EFFECTS, clip_spread=0.5):
    """Ratings with known system means, harsh and mild raters, hard and easy prompts, and clips that differ."""
    rng = np.random.default_rng(seed)
    harsh = dict(zip([r.rater_id for r in raters], rng.normal(0, 0.4, len(raters)), strict=True))
    hard = dict(zip(study.prompts, rng.normal(0, 0.3, len(study.prompts)), strict=True))
    clips = {(p, s): rng.normal(0, clip_spread) for p in study.prompts for s in study.choice.names}
    rows, truth = [], {}
    for rater_id, prompt, system, position in assigned_trials(study, raters).iter_rows():
        quality = effects[system] + hard[prompt] + clips[prompt, system]
        truth[content_id(system, prompt)] = (system, quality)
        score = int(np.clip(np.rint(quality + harsh[rater_id] + rng.normal(0, 0.5)), 1, 5))
        clip = content_id("clip", system, prompt)
        rows.append((rater_id, clip, prompt, system, content_id(system, prompt), position, score, 0, 1, 9.0, "now"))
    frame = pl.DataFrame(rows, schema=dict(tables.RATINGS.schema), orient="row")
    return tables.conform(frame, tables.RATINGS), truth


def test_a_known_effect_is_recovered():
    study, raters = study_of(20), raters_of(20)
    ratings, truth = simulate(study, raters, seed=1)
    rng = np.random.default_rng(5)
    scores = [(system, name, "judge_score", quality + rng.normal(0, 0.2)) for name, (system, quality) in truth.items()]
    scores += [(system, name, "noise", rng.normal()) for name, (system, _) in truth.items()]
    found = analyse(study, raters, ratings, pl.DataFrame(scores, schema=NO_SCORES.schema, orient="row"))
    assert [score.system for score in found.systems] == list(EFFECTS)
    assert (found.raters, found.raters_absent, found.ratings) == (20, 0, 400)
    for score in found.systems:
        assert (score.n, score.n_missing) == (80, 0)
        assert abs(score.mmos - EFFECTS[score.system]) < 3 * score.stderr
        assert score.ci95[0] < score.mmos < score.ci95[1] < score.ci95[0] + 1.2
    means = [score.mmos for score in found.systems]
    assert means == sorted(means)
    gain = next(d for d in found.differences if (d.system, d.against) == ("r1", "base"))
    assert gain.ci95[0] > 0
    assert gain.ci95[0] < 1.2 < gain.ci95[1]
    assert len(found.differences) == 10
    assert found.agreement.ci95[0] < found.agreement.alpha < found.agreement.ci95[1]
    assert 0.4 < found.agreement.alpha < 0.9
    judge, noise = found.correlations
    assert (judge.metric, judge.n, judge.n_missing) == ("judge_score", 100, 0)
    assert judge.spearman > 0.75
    assert abs(noise.spearman) < 0.3
    assert judge.spearman_ci95[0] < judge.spearman < judge.spearman_ci95[1]
    assert noise.pearson_ci95[0] < 0 < noise.pearson_ci95[1]
    assert judge.across_systems > 0.9


def test_intervals_of_differences_hold_the_true_one_as_often_as_they_say():
    """Raters who are harsh, prompts that are hard, clips that differ, a few raters who stopped half-way."""
    study, raters = study_of(12), raters_of(10)
    truth = EFFECTS["sft"] - EFFECTS["base"]
    held, errors, widths = [], [], []
    for seed in range(150):
        ratings, _ = simulate(study, raters, seed=seed)
        rows = ratings.filter((pl.col("rater_id") > "rater-001") | (pl.col("position") < 6))
        columns = (rows[name].to_numpy() for name in ("system", "rater_id", "prompt_id"))
        values = rows["score"].to_numpy().astype(float)
        (found,) = differences(values, *columns, [("sft", "base")])
        held.append(found.ci95[0] <= truth <= found.ci95[1])
        errors.append(found.value - truth)
        widths.append(found.stderr)
    assert 0.92 <= np.mean(held) <= 1.0
    assert 0.85 < np.mean(widths) / np.std(errors) < 1.4  # neither too sure nor needlessly unsure


def test_ignoring_clusters_would_promise_too_much():
    """The mean of one system when raters and prompts differ: naive intervals hold it far too seldom."""
    study, raters = study_of(12), raters_of(10)
    held, naive = [], []
    for seed in range(120):
        ratings, _ = simulate(study, raters, seed=seed, effects=dict.fromkeys(EFFECTS, 3.0))
        values = ratings["score"].to_numpy().astype(float)
        found = mean(values, ratings["rater_id"].to_numpy(), ratings["prompt_id"].to_numpy())
        half = 1.96 * values.std(ddof=1) / np.sqrt(len(values))
        held.append(found.ci95[0] <= 3.0 <= found.ci95[1])
        naive.append(abs(found.value - 3.0) <= half)
    assert np.mean(held) >= 0.9
    assert np.mean(naive) < 0.75


def slow_two_way(values, raters, prompts):
    """Sum over all pairs of ratings that share a rater or a prompt, as the definition has it."""
    n = len(values)
    residual = (values - values.mean()) / n

    def shared(same):
        return sum(residual[i] * residual[j] for i in range(n) for j in range(n) if same(i, j))

    def weighed(total, count):
        return total * count / (count - 1) if count > 1 else 0.0

    one = weighed(shared(lambda i, j: raters[i] == raters[j]), len(set(raters)))
    other = weighed(shared(lambda i, j: prompts[i] == prompts[j]), len(set(prompts)))
    cells = set(zip(raters, prompts, strict=True))
    both = weighed(shared(lambda i, j: raters[i] == raters[j] and prompts[i] == prompts[j]), len(cells))
    return np.sqrt(max(one + other - both, one, other))


@given(st.integers(0, 10_000), st.integers(4, 25))
@settings(max_examples=40, deadline=None)
def test_errors_are_clustered_both_ways(seed, count):
    rng = np.random.default_rng(seed)
    values = rng.integers(1, 6, count).astype(float)
    raters, prompts = rng.integers(0, 4, count), rng.integers(0, 5, count)
    found = mean(values, raters, prompts, fewest=3)
    fewest = min(len(set(raters)), len(set(prompts)))
    if fewest < 3:
        assert (found.stderr, found.ci95) == (None, None)
        return
    assert found.stderr == pytest.approx(slow_two_way(values, raters, prompts), abs=1e-12)
    if found.stderr > 1e-9:
        assert found.ci95[1] - found.value == pytest.approx(scipy.stats.t.ppf(0.975, fewest - 1) * found.stderr)


def test_a_difference_is_that_of_the_means_and_shared_noise_cancels():
    raters = np.repeat(np.arange(6), 8)
    prompts = np.tile(np.arange(8), 6)
    systems = np.where((raters + prompts) % 2 == 0, "a", "b")
    values = 3.0 + 0.7 * raters + 0.3 * prompts + (systems == "a")
    (found,) = differences(values, systems, raters, prompts, [("a", "b")])
    assert found.value == pytest.approx(1.0)
    assert (found.stderr, found.ci95) == (pytest.approx(0, abs=1e-12), None)  # no residual is no proof
    noisy = values + np.random.default_rng(0).normal(0, 1, len(values))
    (found,) = differences(noisy, systems, raters, prompts, [("a", "b")])
    assert found.value == pytest.approx(noisy[systems == "a"].mean() - noisy[systems == "b"].mean())
    assert found.stderr > 0.1


def test_few_ratings_have_means_and_no_intervals():
    study, raters = study_of(6), raters_of(6)
    ratings, truth = simulate(study, raters, seed=1)
    scores = [(system, name, "judge_score", value) for name, (system, value) in truth.items()]
    automatic = pl.DataFrame(scores, schema=NO_SCORES.schema, orient="row")
    few = analyse(study, raters, ratings.filter(pl.col("position") < 1), automatic)  # six ratings, no clip rated twice
    assert {score.ci95 for score in few.systems} == {None}
    assert {(d.stderr, d.ci95, d.p_corrected) for d in few.differences} == {(None, None, None)}
    assert [c.pearson_ci95 for c in few.correlations] == [None]
    many = analyse(study, raters, ratings, automatic)
    assert all(1 <= score.ci95[0] < score.mmos < score.ci95[1] <= 5 for score in many.systems)
    assert all(d.ci95[0] < d.delta < d.ci95[1] for d in many.differences)
    tested = sorted(d.p_corrected for d in many.differences)
    assert 0 < tested[0] < tested[-1] <= 1


@pytest.mark.parametrize(("raters", "prompts"), [(4, 8), (8, 4), (5, 5)])
def test_no_interval_with_fewer_than_five_raters_or_prompts(raters, prompts, capsys):
    """Below five clusters Student's t does not hold for scores: not for means, agreement or correlations either."""
    study, people = study_of(prompts, passes=5), raters_of(raters)
    ratings, truth = simulate(study, people, seed=1)
    scores = [(system, name, "judge_score", value) for name, (system, value) in truth.items()]
    found = analyse(study, people, ratings, pl.DataFrame(scores, schema=NO_SCORES.schema, orient="row"))
    intervals = [
        *(score.ci95 for score in found.systems),
        *(d.ci95 for d in found.differences),
        found.agreement.ci95,
        *(end for c in found.correlations for end in (c.spearman_ci95, c.pearson_ci95)),
    ]
    assert (found.raters, found.prompts, found.agreement.clips) == (raters, prompts, 5 * prompts)
    assert found.agreement.alpha > 0
    enough = min(raters, prompts) >= 5
    assert all((ends is not None) == enough for ends in intervals)
    _print_analysis(found)
    printed = " ".join(capsys.readouterr().out.split())
    shown = 5 + 10 + 1 + 1  # systems, differences, agreement, Spearman
    assert printed.count("too few") == 1 + (0 if enough else shown)
    names(printed, "5 raters", "5 prompts", f"{raters} raters", f"{prompts} prompts")


def test_what_has_no_value_is_a_dash_and_not_too_few():
    assert (interval(None, None), interval(1.0, None), interval(1.0, None, 0.0)) == ("–", "too few", "all equal")


def test_systems_that_nothing_connects_have_no_difference():
    raters, prompts = np.repeat(np.arange(12), 6), np.tile(np.arange(6), 12)
    systems = np.where(raters < 6, "a", "b")
    values = np.random.default_rng(0).integers(1, 6, 72).astype(float)
    connected, apart = (
        differences(values, systems, raters, names, [("a", "b")])[0] for names in (prompts, prompts + 6 * (raters >= 6))
    )
    assert (apart.value, apart.ci95) == (None, None)
    assert (connected.value, connected.ci95) == (None, None)  # a rater's harshness and the system are one thing


@pytest.mark.long
@pytest.mark.parametrize("prompts", [5, 8, 20])
def test_jackknifed_intervals_hold_as_often_as_they_say(prompts):
    rng, held = np.random.default_rng(prompts), []
    names = np.repeat(np.arange(prompts), 4)
    for _ in range(1000):
        a = 0.5 * rng.normal(size=prompts)[names] + rng.normal(size=len(names))
        own = 0.5 * rng.normal(size=prompts)[names] + rng.normal(size=len(names))
        low, high = _of_correlation(pearson, a, 0.6 * a + 0.8 * own, names)
        held.append(low <= 0.6 <= high)
    assert 0.93 <= np.mean(held) <= 0.98


@pytest.mark.long
@pytest.mark.parametrize(("raters", "prompts"), [(5, 5), (6, 10), (12, 20)])
def test_intervals_of_mmos_hold_from_five_raters_and_prompts_on(raters, prompts):
    study, people, held = study_of(prompts), raters_of(raters), []
    for seed in range(300):
        ratings, _ = simulate(study, people, seed=seed, effects=dict.fromkeys(EFFECTS, 3.0))
        rows = ratings.filter(system="r1")
        found = mean(rows["score"].to_numpy().astype(float), rows["rater_id"].to_numpy(), rows["prompt_id"].to_numpy())
        held.append(found.ci95 is not None and found.ci95[0] <= 3 <= found.ci95[1])
    assert np.mean(held) >= 0.93


def test_a_system_is_not_blamed_for_the_raters_it_was_heard_by():
    study, raters = study_of(10), raters_of(10)
    ratings, _ = simulate(study, raters, seed=0, effects=dict.fromkeys(EFFECTS, 3.0), clip_spread=0.0)
    harsh = pl.col("rater_id") < "rater-005"
    shifted = ratings.with_columns(score=pl.col("score") - 2 * harsh.cast(pl.Int32))
    rows = shifted.filter((pl.col("system") != "r1") | harsh)  # only the harsh ever answered about r1
    columns = [rows[name].to_numpy() for name in ("system", "rater_id", "prompt_id")]
    values = rows["score"].to_numpy().astype(float)
    (found,) = differences(values, *columns, [("r1", "base")])
    plain = values[columns[0] == "r1"].mean() - values[columns[0] == "base"].mean()
    assert plain < -0.6
    assert abs(found.value) < 0.4


# Krippendorff (2011), "Computing Krippendorff's alpha-reliability", section C: 4 observers, 12 units, missing values.
KRIPPENDORFF = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, 0, 0, 0],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, 0, 3],
    [0, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, 0],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, 0],
]


def long(matrix):
    rows = [(score, unit) for scores in matrix for unit, score in enumerate(scores) if score]
    return tuple(np.array(column) for column in zip(*rows, strict=True))


def test_alpha_is_the_published_example():
    assert ordinal_alpha(counts_of(*long(KRIPPENDORFF))) == pytest.approx(0.815, abs=5e-4)


@given(st.integers(0, 10_000), st.integers(2, 6), st.integers(2, 15))
@settings(max_examples=60, deadline=None)
def test_alpha_is_the_krippendorff_packages(seed, raters, units):
    import krippendorff

    rng = np.random.default_rng(seed)
    matrix = rng.integers(0, 6, (raters, units))
    scores, clips = long(matrix) if matrix.any() else (np.array([1]), np.array([0]))
    counts = counts_of(scores, clips)
    found = ordinal_alpha(counts)
    paired = counts[counts.sum(axis=1) >= 2]
    if len(paired) == 0 or (paired.sum(axis=0) > 0).sum() < 2:
        assert found is None
    else:
        assert found == pytest.approx(krippendorff.alpha(value_counts=counts, level_of_measurement="ordinal"), abs=1e-9)


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(-3, 3)), min_size=3, max_size=20))
def test_correlations_are_scipys(pairs):
    a, b = (np.array(column, float) for column in zip(*pairs, strict=True))
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        assert pearson(a, b) is spearman(a, b) is None
        return
    assert pearson(a, b) == pytest.approx(scipy.stats.pearsonr(a, b).statistic)
    assert spearman(a, b) == pytest.approx(scipy.stats.spearmanr(a, b).statistic)


def test_what_is_missing_is_counted():
    study, raters = study_of(5), raters_of(6)
    ratings, truth = simulate(study, raters[:5], seed=0)
    kept = ratings.filter(~((pl.col("rater_id") == "rater-000") & (pl.col("position") >= 3)))
    gone = len(ratings) - len(kept)
    scores = [
        (system, name, "judge_score", 1.0 if place else None) for place, (name, (system, _)) in enumerate(truth.items())
    ]
    found = analyse(study, raters, kept, pl.DataFrame(scores[:10], schema=NO_SCORES.schema, orient="row"))
    assert (found.raters, found.raters_absent, found.ratings) == (5, 1, len(kept))
    assert sum(score.n_missing for score in found.systems) == gone == 2
    (judge,) = found.correlations
    clips = kept["clip_id"].n_unique()
    assert judge.n + judge.n_missing == clips
    assert judge.n <= 9
    assert judge.spearman is judge.spearman_ci95 is None  # every score is 1.0


def test_row_order_changes_no_bit_and_nothing_is_no_analysis():
    study, raters = study_of(5), raters_of(5)
    ratings, _ = simulate(study, raters, seed=0)
    once = analyse(study, raters, ratings, NO_SCORES)
    again = analyse(study, raters, ratings.sample(fraction=1, shuffle=True, seed=3), NO_SCORES)
    assert once.model_dump_json() == again.model_dump_json()
    with pytest.raises(AnalysisError) as error:
        analyse(study, raters, ratings.clear(), NO_SCORES)
    names(error.value, "5")


def test_automatic_scores_are_those_of_the_same_continuations(tmp_path):
    artifacts = build(tmp_path / "artifacts")
    build_study(STUDY, artifacts, tmp_path / "study")
    study, clips = read_study(tmp_path / "study")
    ids = clips.filter(system="r1")["continuation_id"].to_list()
    write_scores(artifacts, {"r1": dict(zip(ids, [1.0, 2.0, 3.0, 4.0], strict=True))})
    heard = [
        ("original", name, "p", "dnsmos_ovrl", value, status)
        for name, value, status in (
            (clips.filter(system="original")["continuation_id"][0], 3.5, "ok"),
            ("x", None, "skipped"),
        )
    ]
    mos = pl.DataFrame(heard, schema=dict(tables.MOS.schema), orient="row")
    tables.write(mos, tables.MOS, artifacts / "mos" / "original-continuations.parquet")
    found = automatic_scores(artifacts, study)
    assert set(found["metric"]) == {"judge_score", "dnsmos_ovrl"}
    assert found.filter(metric="judge_score")["value"].sum() == 10.0
    assert found.filter(metric="dnsmos_ovrl").select("system", "value").rows() == [("original", 3.5)]
