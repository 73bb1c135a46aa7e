"""Two systems side by side: hand-made answers, other orders, what is refused."""

import io
import json
import math

import numpy as np
import pytest
import scipy.stats
from rich.console import Console
from typer.testing import CliRunner

from alignslm import tables
from alignslm.cli import app
from alignslm.cli.terminal import fitted
from alignslm.figures.columns import ReportError
from alignslm.report.compare import compare
from alignslm.report.formatting import probability
from alignslm.report.inputs import read_inputs
from alignslm.report.metrics import Comparison
from alignslm.report.writing import report_of
from tests.messages import names
from tests.report_world import EXPERIMENT, build
from tests.sample_experiment import write_experiment
from tests.small_evaluations import write_evaluation


def row(found, benchmark, metric):
    (only,) = [some for some in found.rows if (some.benchmark, some.metric) == (benchmark, metric)]
    return only


def write_two(artifacts):
    """Nine pairs right in r1 alone, two in base alone, one a tie against a wrong answer, one missing in base."""
    answers = {f"w{i}": (1.0, 0.0) for i in range(8)} | {f"l{i}": (0.0, 1.0) for i in range(2)}
    answers |= {"tie": (0.5, 0.0), "same": (1.0, 1.0), "gone": (1.0, None)}
    scores = {"p": ([3.0, 4.0], [2.0, 3.0]), "q": ([4.0, None], [4.5, 3.5]), "r": ([5.0, 5.0], [None, None])}
    for place, model in enumerate(("r1", "base")):
        judged = {prompt: both[place] for prompt, both in scores.items()}
        write_evaluation(artifacts, model, judged, {pair: both[place] for pair, both in answers.items()})
    return artifacts


def test_by_hand(tmp_path):
    found = compare(write_two(tmp_path), "r1", "base")
    swuggy = row(found, "swuggy", "accuracy")
    assert (swuggy.above, swuggy.below, swuggy.equal) == (9, 2, 1)
    # sum 6.5; squares 10.25 of 11 unequal pairs, and of two more of their mean square; Student's t of 11
    error = math.sqrt((10.25 * (1 + 2 / 11) / 14 - (6.5 / 14) ** 2) / 14)
    assert swuggy.p == pytest.approx(2 * scipy.stats.t.sf(6.5 / 14 / error, 11))
    assert swuggy.p_corrected == swuggy.p  # two judged prompts are too few to be tested
    assert (swuggy.value, swuggy.against_value) == (pytest.approx(9.5 / 12), pytest.approx(3 / 12))
    assert (swuggy.delta, swuggy.n, swuggy.n_missing) == (pytest.approx(6.5 / 12), 12, 1)
    assert swuggy.ci95[0] < swuggy.delta < swuggy.ci95[1]
    judge = row(found, "continuation", "judge_score")
    assert (judge.value, judge.against_value, judge.delta) == (3.75, 3.25, 0.5)
    assert (judge.above, judge.below, judge.equal, judge.p, judge.ci95) == (1, 0, 1, None, None)
    assert (judge.n, judge.n_missing) == (2, 1)


def test_voices_are_averaged_before_a_pair_is_above_or_below(tmp_path):
    ours = {"x/a": 1.0, "x/b": 1.0, "x/c": 0.0, "y/a": 0.0, "y/b": 1.0}
    theirs = {"x/a": 0.0, "x/b": 0.0, "x/c": 1.0, "y/a": 1.0, "y/b": 0.0}
    write_evaluation(tmp_path, "r1", {"p": [3.0]}, ours)
    write_evaluation(tmp_path, "base", {"p": [3.0]}, theirs)
    found = row(compare(tmp_path, "r1", "base"), "swuggy", "accuracy")
    assert (found.above, found.below, found.equal, found.n) == (1, 0, 1, 2)  # x by 2 voices of 3, y by none
    assert found.delta == pytest.approx((1 / 3 + 0) / 2)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return build(tmp_path_factory.mktemp("artifacts"))


def test_differences_are_those_of_the_report(world):
    report = report_of(read_inputs(world, EXPERIMENT))
    found = compare(world, "r2", "sft")
    reported = [c for c in report.comparisons if (c.model, c.against) == ("r2", "sft")]
    assert [dict(c) for c in reported] == [
        {name: getattr(r, name) for name in Comparison.model_fields} for r in found.rows
    ]
    assert [c.significant for c in reported] == [r.significant for r in found.rows]
    for some in found.rows:
        assert some.delta == pytest.approx(some.value - some.against_value)
        assert some.above + some.below + some.equal == some.n


def test_sides_swap(world):
    there, back = (compare(world, *names) for names in (("r2", "base"), ("base", "r2")))
    for one, other in zip(there.rows, back.rows, strict=True):
        assert (one.above, one.below, one.p) == (other.below, other.above, pytest.approx(other.p))
        assert one.delta == pytest.approx(-other.delta)


def test_order_of_rows_changes_no_bit(world, monkeypatch):
    expected = compare(world, "r2", "base")
    read, chance = tables.read, np.random.default_rng(3)
    monkeypatch.setattr(
        tables, "read", lambda *given: read(*given).sample(fraction=1.0, shuffle=True, seed=int(chance.integers(99)))
    )
    assert compare(world, "r2", "base") == expected


@pytest.mark.parametrize(
    ("model", "against", "expected"),
    [
        ("r1", "r1", ("'r1'", "two systems")),
        ("r1", "odd", ("'r1'", "'odd'", "/eval")),
        ("r9", "r1", ("dvc repro", "base, odd, r1", "'r9'")),
    ],
)
def test_refused(tmp_path, model, against, expected):
    write_two(tmp_path)
    write_evaluation(tmp_path, "odd", {})
    with pytest.raises(ReportError) as raised:
        compare(tmp_path, model, against)
    names(raised.value, *expected)


def test_nothing_was_evaluated(tmp_path):
    with pytest.raises(ReportError) as raised:
        compare(tmp_path, "r1", "base")
    names(raised.value, tmp_path, "'r1'", "eval", "dvc repro")


def test_predicted_scores_and_distinct_texts_are_optional(world, tmp_path):
    whole = compare(world, "r2", "base")
    (tmp_path / "eval").symlink_to(world / "eval")
    bare = compare(tmp_path, "r2", "base")
    left_out = {(r.benchmark, r.metric) for r in whole.rows} - {(r.benchmark, r.metric) for r in bare.rows}
    assert left_out == {
        ("continuation", "unique_ratio"), ("continuation", "unique_ratio_per_index"),
        ("continuation", "distinct_1"), ("continuation", "distinct_2"),
        ("speech", "dnsmos_bak"), ("speech", "dnsmos_ovrl"),
    }  # fmt: skip
    uncorrected = ({r.model_copy(update={"p_corrected": None}) for r in found.rows} for found in (bare, whole))
    assert next(uncorrected) < next(uncorrected)
    assert whole.absent == ()
    assert bare.absent == tuple(
        str(tmp_path / path)
        for name in ("r2", "base")
        for path in (f"samples/{name}/transcripts.parquet", f"mos/{name}.parquet")
    )


def test_the_command_prints_a_table_and_json(tmp_path):
    write_two(write_experiment(tmp_path) / "artifacts")
    told = CliRunner().invoke(app, ["compare", "r1", "base", "-C", str(tmp_path)])
    assert told.exit_code == 0, told.output
    head, *lines = [" ".join(line.split()) for line in told.output.splitlines()]
    assert head == "r1 base difference 95 % interval p corrected n above below equal missing"
    assert lines[0] == "training judge (points of the scale) 3.75 3.25 +0.50 too few – – 2 1 0 1 1"
    assert lines[1].startswith("swuggy (percentage points) 79.2 25.0 +54.2 n.s. [")
    assert lines[1].endswith("] 0.054 0.054 12 9 2 1 1")
    told = CliRunner().invoke(app, ["compare", "r1", "base", "-C", str(tmp_path), "--json"])
    assert [some["metric"] for some in json.loads(told.output)["rows"]] == ["judge_score", "accuracy"]


@pytest.mark.parametrize(
    ("width", "shown"), [(80, ["p"]), (92, ["p", "corrected", "n"]), (200, ["p", "corrected", "n", "above", "below"])]
)
def test_a_narrow_terminal_has_fewer_columns_and_wraps_labels_between_words(width, shown):
    headings = ("", "r1", "base", "difference", "95 % interval", "p", "corrected", "n", "above", "below")
    label = "predicted MOS of the background (points of the scale)"
    cells = ("2.79", "2.07", "+0.72 n.s.", "[+0.52, +0.93]", "<0.001", "<0.001", "100", "76", "24")
    console = Console(width=width, file=io.StringIO())
    console.print(fitted(headings, [(label, *cells)], optional=5, width=width))
    head, *lines = console.file.getvalue().splitlines()
    assert head.split()[6:] == shown
    assert max(map(len, map(str.rstrip, [head, *lines]))) <= width
    assert set(label.split()) <= set(" ".join(lines).split())
    assert set(cells[: 4 + len(shown)]) <= {cell.strip() for line in lines for cell in line.split("  ")}
    left_out = ("p", "corrected", "n", "above", "below")[len(shown) :]
    assert not left_out or lines[-1].rstrip().endswith(f"also shows: {', '.join(left_out)}")


def test_no_probability_is_zero():
    assert (probability(2.0**-40), probability(0.0654), probability(1.0)) == ("<0.001", "0.065", "1.000")
    assert probability(None) == "–"
