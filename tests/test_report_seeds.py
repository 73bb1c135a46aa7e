"""Several training runs combined: hand-made runs, loops written from the definitions, simulated coverage."""

import json
import math
import shutil
import statistics

import numpy as np
import polars as pl
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from alignslm import tables
from alignslm.cli import app
from alignslm.figures.columns import ReportError
from alignslm.report.evaluated import Paired
from alignslm.report.seeds import _combine, compare_seeds, name_runs
from tests.messages import names
from tests.small_evaluations import write_evaluation

KEY = ("continuation", "judge_score")
T_2 = 4.302652729911275  # Student's t, .975, of a printed table


def write_run(folder, shift, *, prompts="abcde", correct=None):
    base = {prompt: [2.0, 3.0] for prompt in prompts}
    write_evaluation(folder, "base", base, {"x": 0.0, "y": 1.0})
    write_evaluation(folder, "r1", {p: [2.0 + shift, 3.0 + shift] for p in prompts}, correct or {"x": 1.0, "y": 1.0})
    return folder


def combined(differences):
    """Combine differences (runs, items) as they stand."""
    rows = np.asarray(differences, dtype=float)
    ids = np.array([f"p{i:04d}" for i in range(rows.shape[1])])
    return _combine(KEY, [Paired(ids, row, np.zeros(len(row))) for row in rows])


def test_three_runs_by_hand(tmp_path):
    folders = [write_run(tmp_path / f"seed-{i}" / "artifacts", shift) for i, shift in enumerate((0.5, 1.0, 1.5))]
    found = compare_seeds(folders, "r1", "base")
    judge, swuggy = found.rows[0], found.rows[-1]
    assert (found.runs, judge.benchmark, judge.metric) == (
        ("seed-0", "seed-1", "seed-2"),
        "continuation",
        "judge_score",
    )
    assert judge.by_run == pytest.approx((0.5, 1.0, 1.5))
    assert (judge.delta, judge.n, judge.n_missing) == (pytest.approx(1.0), 5, 0)
    assert judge.items_ci95 is None  # every prompt moves alike: nothing says how others would
    half = T_2 * 0.5 / math.sqrt(3)
    assert judge.runs_ci95 == pytest.approx((1 - half, 1 + half))
    assert judge.both_ci95 == pytest.approx((1 - half, 1 + half))
    assert (swuggy.benchmark, swuggy.metric, swuggy.by_run) == ("swuggy", "accuracy", (0.5, 0.5, 0.5))
    assert swuggy.runs_ci95 is None


def test_two_runs_are_too_few():
    found = combined(np.random.default_rng(0).normal(size=(2, 9)))
    assert found.items_ci95[0] < found.delta < found.items_ci95[1]
    assert (found.runs_ci95, found.both_ci95) == (None, None)


def slow_both(rows):
    """Variance of the mean by its definition: pairs of values that share a run, an item, or both."""
    values = {(r, i): value for r, run in enumerate(rows) for i, value in enumerate(run)}
    mean = statistics.fmean(values.values())

    def variance(label):
        groups = {}
        for cell, value in values.items():
            groups[label(cell)] = groups.get(label(cell), 0) + (value - mean) / len(values)
        return sum(total**2 for total in groups.values()) * len(groups) / (len(groups) - 1)

    run, item, cell = variance(lambda c: c[0]), variance(lambda c: c[1]), variance(lambda c: c)
    return mean, math.sqrt(max(run + item - cell, run, item))


def near(found, expected, spread):
    """Assert that an interval is the expected one, and none where there is no spread to speak of."""
    assert found == (None if spread < 1e-8 and found is None else pytest.approx(tuple(expected), abs=1e-9))


GRID = st.integers(3, 4).flatmap(
    lambda k: st.integers(5, 8).flatmap(
        lambda n: st.lists(st.lists(st.floats(-3, 3, width=32), min_size=n, max_size=n), min_size=k, max_size=k)
    )
)


@settings(max_examples=25, deadline=None)
@given(GRID)
def test_intervals_equal_slow_ones(rows):
    found = combined(rows)
    means = [statistics.fmean(run) for run in rows]
    assert found.by_run == pytest.approx(tuple(means), abs=1e-12)
    assert found.delta == pytest.approx(statistics.fmean(means), abs=1e-12)
    items = [statistics.fmean(run[i] for run in rows) for i in range(len(rows[0]))]
    near(found.items_ci95, scipy.stats.ttest_1samp(items, 0).confidence_interval(), statistics.stdev(items))
    stderr = statistics.stdev(means) / math.sqrt(len(means))
    t = {2: T_2, 3: 3.182446305284263}
    half = t[len(rows) - 1] * stderr
    near(found.runs_ci95, (found.delta - half, found.delta + half), stderr)
    mean, both = slow_both(rows)
    half = t[min(len(rows), len(rows[0])) - 1] * both
    near(found.both_ci95, (mean - half, mean + half), both)


def test_each_interval_covers_what_it_promises():
    """Effects of items, of runs and of cells: only `both` covers the recipe's effect, here 0, as often as it says."""
    generator = np.random.default_rng(5)
    hits = {"items": 0, "runs": 0, "both": 0, "drawn apart": 0}
    for _ in range(200):
        rows = generator.normal(0, 0.1, (4, 1)) + generator.normal(0, 1, 50) + generator.normal(0, 1, (4, 50))
        found = combined(rows)
        ends = {"items": found.items_ci95, "runs": found.runs_ci95, "both": found.both_ci95}
        apart = 1.96 * math.sqrt(sum(run.var(ddof=1) / 50 for run in rows)) / 4  # an item drawn in each run by itself
        ends["drawn apart"] = (found.delta - apart, found.delta + apart)
        for name, (low, high) in ends.items():
            hits[name] += low <= 0 <= high
    assert hits["both"] / 200 >= 0.93
    assert hits["drawn apart"] < hits["items"] < hits["both"]
    assert hits["runs"] / 200 < 0.9  # it takes the items as given
    assert hits["drawn apart"] / 200 < 0.85  # which the items of other runs, being the same, do not allow


def test_an_item_that_one_run_misses_is_left_out_of_all_and_counted():
    found = combined([[1, 2, math.nan], [3, 4, 100]])
    assert (found.by_run, found.delta, found.n, found.n_missing) == ((1.5, 3.5), 2.5, 2, 1)
    nothing = combined([[1, math.nan], [math.nan, 2]])
    assert (nothing.by_run, nothing.delta, nothing.runs_ci95, nothing.n, nothing.n_missing) == (
        (None, None), None, None, 0, 2,
    )  # fmt: skip
    single = combined([[1, math.nan], [2, 2], [4, 5]])
    assert (single.items_ci95, single.both_ci95) == (None, None)
    assert single.runs_ci95 is not None


def test_runs_on_other_items_are_refused_with_all_that_differs(tmp_path):
    first = write_run(tmp_path / "seed-0", 0.5)
    other = write_run(tmp_path / "seed-1", 1.0, prompts="abcdf")
    write_evaluation(other, "base", {p: [2.0] for p in "abcdf"})  # no answers of base, so no difference
    with pytest.raises(ReportError) as raised:
        compare_seeds([first, other], "r1", "base")
    _, judged, scored, cure = str(raised.value).splitlines()
    names(judged, "continuation judge_score", "2 items", "seed-0", "seed-1", "e")
    names(scored, "swuggy accuracy", "seed-1")
    names(cure, "seeds")


def test_many_faults_are_counted(tmp_path):
    first, other = write_run(tmp_path / "seed-0", 0.5), write_run(tmp_path / "seed-1", 1.0)
    for name in ("base", "r1"):
        path = first / "eval" / name / "item_scores.parquet"
        scores = tables.read(tables.ITEM_SCORES, path)
        copies = [scores.with_columns(benchmark=pl.lit(f"b{i}")) for i in range(10)]
        tables.write(pl.concat(copies), tables.ITEM_SCORES, path)
    with pytest.raises(ReportError) as raised:
        compare_seeds([first, other], "r1", "base")
    names(raised.value, "b7 accuracy", "seed-1", "3 more")
    assert "b8" not in str(raised.value)


def test_folders_are_named_by_what_tells_them_apart(tmp_path):
    runs = [write_run(tmp_path / name / "artifacts", 1.0) for name in ("one", "two")]
    assert name_runs(runs) == {"one": runs[0], "two": runs[1]}
    assert list(name_runs([run.parent for run in runs])) == ["one", "two"]
    assert name_runs([run.parent for run in runs])["two"] == runs[1]


def test_what_is_no_two_runs_is_refused(tmp_path):
    first = write_run(tmp_path / "seed-0", 0.5)
    shutil.copytree(first, tmp_path / "copy")
    cases = {
        (first, tmp_path / "copy"): ("'r1'", "seed-0", "copy", "identical", "dvc exp run -S seeds.training=1"),
        (first, first): ("2 folders", "1 different"),
        (first,): ("1 folders", "1 different"),
        (first, tmp_path): (tmp_path, "artifacts/eval/"),
    }
    for folders, facts in cases.items():
        with pytest.raises(ReportError) as raised:
            compare_seeds(folders, "r1", "base")
        names(raised.value, *facts)
    write_run(tmp_path / "seed-1", 1.0)
    with pytest.raises(ReportError) as raised:
        compare_seeds([first, tmp_path / "seed-1"], "r2", "base")
    names(raised.value, first, "'r2'", "base, r1", "dvc repro")


def test_order_of_runs_changes_no_interval(tmp_path):
    folders = [write_run(tmp_path / f"seed-{i}", shift) for i, shift in enumerate((0.25, 1.0, 0.5))]
    one, two = (compare_seeds(some, "r1", "base") for some in (folders, folders[::-1]))
    for row, turned in zip(one.rows, two.rows, strict=True):
        assert row == turned.model_copy(update={"by_run": turned.by_run[::-1]})


def test_the_command_prints_a_table_and_json(tmp_path):
    folders = [str(write_run(tmp_path / f"seed-{i}", shift)) for i, shift in enumerate((0.5, 1.0, 1.5))]
    told = CliRunner().invoke(app, ["compare-seeds", "r1", "base", *folders])
    assert told.exit_code == 0, told.output
    lines = [line.split() for line in told.output.splitlines()]
    assert " ".join(lines[0]) == "r1 minus base, 3 runs"
    assert lines[2][:2] == ["training", "judge"]
    assert " ".join(lines[2][6:]) == "+0.50 +1.00 +1.50 +1.00 all equal [−0.24, +2.24] [−0.24, +2.24] 5 0"
    assert "3 runs are few to estimate how much runs vary" in told.output
    told = CliRunner().invoke(app, ["compare-seeds", "r1", "base", *folders, "--json"])
    content = json.loads(told.output)
    assert (content["model"], content["runs"]) == ("r1", ["seed-0", "seed-1", "seed-2"])
    assert content["rows"][0]["by_run"] == [0.5, 1.0, 1.5]
