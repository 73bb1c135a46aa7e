"""Every benchmark compares equal answers, and its figures are what they are called. No time is asserted."""

import json
import time
from contextlib import suppress
from dataclasses import replace
from io import StringIO

import numpy as np
import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from tests.bench import preference, suite
from tests.bench.__main__ import app, print_result
from tests.bench.case import Case, Cost, MismatchError, max_abs_difference, mismatch_rate
from tests.bench.harness import Spread, measure
from tests.bench.judge import work
from tests.bench.machine import Machine, describe
from tests.bench.memory import peak_bytes
from tests.bench.models import SHAPES, decoder, token_flop
from tests.bench.scaling import plot_scaling
from tests.bench.stages import STAGES, UnknownStageError, run
from tests.messages import names

MACHINE = Machine("test", 2, 2, 1 << 30, torch.__version__, "cpu", {"float32": 1e9, "bfloat16": 5e8}, 1e9)


@pytest.mark.parametrize("stage", STAGES)
def test_paths_of_every_benchmark_answer_alike(stage):
    [result] = run([stage], size="tiny", scales=[1], repeats=1, machine=MACHINE, told=lambda _: None)
    assert result.stage == stage
    assert result.paths[0].path == "ours"
    assert len(result.paths) > 1
    assert result.flop_share > 0


@pytest.mark.parametrize("stage", STAGES)
def test_answers_are_loud_enough_to_show_a_difference(stage):
    """What is compared varies by far more than the tolerance."""
    case = STAGES[stage]("tiny", scale=1, device="cpu")
    values = np.concatenate([row.astype(float).ravel() for row in case.paths["ours"]()])
    assert np.ptp(values) > 10 * case.tolerance


def test_questions_share_the_rubric_alone():
    """A tokenizer that knew none of the judge's probing words would make one head of rubric and first words."""
    judge, [story, *_] = work("tiny", "cpu", prompts=1)
    head, parted = judge.questions.parted(story)
    assert head == judge.questions.head()
    assert judge.questions.tokenizer.decode(head).split()[-2:] == ["w19", "w1"]
    assert len(parted.stem) == len(story.prompt.split()) + 1
    assert len(parted.leaf) == len(story.continuation.split()) + 3


def toy(ours, theirs, **changes):
    case = Case(
        stage="toy",
        shape="two rows",
        model=torch.nn.Linear(3, 2),
        counted="rows",
        amount=2,
        paths={"ours": lambda: ours, "theirs": lambda: theirs},
        difference=max_abs_difference,
        tolerance=0.5,
        cost=Cost(4e9, 2e9),
    )
    return replace(case, **changes)


def test_unequal_answers_are_refused():
    case = toy([np.array([1.0]), np.array([2.0])], [np.array([1.0]), np.array([3.0])])
    with pytest.raises(MismatchError) as error:
        measure(case, size="tiny", scale=1, repeats=1, machine=MACHINE)
    names(error.value, "toy", "1", "0.5")


@pytest.mark.parametrize("theirs", [[np.array([np.nan])], [np.array([1.0, 1.0])], []])
def test_nan_another_shape_and_a_missing_row_are_unequal(theirs):
    with pytest.raises(MismatchError):
        measure(toy([np.array([1.0])], theirs), size="tiny", scale=1, repeats=1, machine=MACHINE)


def test_paths_take_turns_after_one_untimed_call_each():
    calls = []
    paths = {name: lambda name=name: calls.append(name) or [np.zeros(1)] for name in ("ours", "theirs", "others")}
    result = measure(toy([], [], paths=paths), size="tiny", scale=1, repeats=2, machine=MACHINE)
    assert calls == ["ours", "theirs", "others"] * 3
    assert result.paths[0].ratio == Spread(1, 1, 1)
    assert result.parameters == 8
    taken = result.paths[0].seconds.median
    assert result.paths[0].per_s == pytest.approx(2 / taken)
    assert result.flop_share == pytest.approx(4 / taken)
    assert result.bytes_share == pytest.approx(2 / taken)


def test_no_third_turn_begins_after_the_patience():
    calls = []
    paths = {name: lambda name=name: calls.append(name) or [np.zeros(1)] for name in ("ours", "theirs")}
    options = {"size": "tiny", "scale": 1, "repeats": 9, "machine": MACHINE}
    result = measure(toy([], [], paths=paths), **options, patience_s=0.0)
    assert (result.repeats, len(calls)) == (2, 6)
    assert measure(toy([], [], paths=paths), **options, patience_s=60.0).repeats == 9


def test_the_first_call_is_timed_and_tells_amount_and_shapes_of_attention():
    attention = "scaled_dot_product_attention"
    plain = getattr(torch.nn.functional, attention)
    waits = [0.2, 0, 0, 0]

    def path():
        time.sleep(waits.pop(0) if waits else 0)
        for rows, length, width in ((1, 2, 8), (3, 2, 8), (3, 2, 8)):
            keys = torch.ones(rows, 1, 5, width)[:, :, :length]  # as a cache with room has them
            getattr(torch.nn.functional, attention)(torch.ones(rows, 1, 1, width), keys, keys, attn_mask=None)
        query = torch.ones(3, 1, 1, 8)
        getattr(torch.nn.functional, attention)(query, query.expand(3, 1, 2, 8), query.expand(3, 1, 2, 8))
        return [np.zeros(7)]

    case = toy([], [], paths={"ours": path}, done=lambda ours: (ours[0].size, Cost(5e9, None)))
    result = measure(case, size="tiny", scale=1, repeats=3, machine=MACHINE)
    [ours] = result.paths
    assert ours.first_call_s >= 0.2 > 5 * ours.seconds.most
    assert ours.shapes == 3  # of equal sizes, but other strides
    assert result.amount == 7
    assert result.flop_share == pytest.approx(5 / ours.seconds.median)
    assert getattr(torch.nn.functional, attention) is plain


def test_each_model_is_compared_with_the_rate_of_its_own_dtype():
    result = measure(toy([], [], model=torch.nn.Linear(3, 2).bfloat16()), size="", scale=1, repeats=1, machine=MACHINE)
    assert result.dtype == "bfloat16"
    assert result.flop_share == pytest.approx(4e9 / result.paths[0].seconds.median / 5e8)
    assert describe("cpu", torch.float32).flop_per_s.keys() == {"float32"}
    console = Console(file=StringIO(), width=200)
    print_result(result, MACHINE, console)
    assert "of the bfloat16 matrix rate of this processor" in console.file.getvalue()


@pytest.mark.parametrize("stage", ["hubert", "vocoder"])
def test_plain_paths_of_float32_models_round_nothing_to_tf32(stage, monkeypatch):
    case = STAGES[stage]("tiny", scale=1, device="cpu")
    seen = []
    for name in ("conv1d", "conv_transpose1d"):
        real = getattr(torch.nn.functional, name)
        noted = lambda *x, real=real, **o: seen.append(torch.backends.cudnn.allow_tf32) or real(*x, **o)  # noqa: E731
        monkeypatch.setattr(torch.nn.functional, name, noted)
    forward = torch.nn.Conv1d.forward
    noted_layer = lambda self, x: seen.append(torch.backends.cudnn.allow_tf32) or forward(self, x)  # noqa: E731
    monkeypatch.setattr(torch.nn.Conv1d, "forward", noted_layer)
    [plain] = [path for name, path in case.paths.items() if name != "ours"]
    plain()
    assert len(seen) > 5
    assert not any(seen)


# --- the suite ---


def suite_of(tmp_path, *words):
    file = tmp_path / "suite.json"
    said = CliRunner().invoke(app, ["--suite", "--size", "tiny", "--device", "cpu", "--json", str(file), *words])
    assert said.exit_code == 0, said.output
    return said.output, json.loads(file.read_text())["results"]


def test_the_suite_measures_every_benchmark(tmp_path):
    output, results = suite_of(tmp_path, "-n", "1", "--budget", "600")
    assert not [one for one in results if "not_measured" in one]
    assert {one["stage"] for one in results} == set(STAGES)
    assert [one["shape"].split(", ")[-1] for one in results if one["stage"] == "sampling"] == [
        f"{rows} rows at once" for rows in (255, 1025, 65)
    ]
    assert sum(one["stage"] == "preference" for one in results) == 4
    assert "padded, 65536 tokens a pass" in output
    assert "generate and parse" not in output


def test_an_exhausted_budget_leaves_all_cases_not_measured(tmp_path):
    output, results = suite_of(tmp_path, "sampling", "judge", "--budget", "0")
    assert len(results) == 4
    for one in results:
        assert set(one) == {"stage", "size", "work", "not_measured"}
        names(one["not_measured"], "budget", "0 s")
    names(output, "sampling, tiny, rows 255: not measured: the budget of 0 s")


def test_a_case_that_fails_or_takes_too_long_is_told_and_the_next_one_is_measured(tmp_path, monkeypatch):
    """And what was measured before is in the file already, with room for others made."""

    def swallowed(*_, **__):
        with suppress(Exception):  # as some libraries do
            time.sleep(60)
        time.sleep(60)

    def broken(*_, **__):
        [before] = json.loads((tmp_path / "suite.json").read_text())["results"]
        assert "not end within" in before["not_measured"]
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setitem(STAGES, "vocoder", broken)
    monkeypatch.setitem(STAGES, "hubert", lambda *_, **__: toy([np.zeros(1)], [np.zeros(1)]))
    monkeypatch.setitem(STAGES, "judge", swallowed)
    monkeypatch.setattr(suite, "SUITE", [suite.SuiteCase(name, "25m") for name in ("judge", "vocoder", "hubert")])
    monkeypatch.setattr(suite, "CASE_SHARE", 0.02)
    began = time.perf_counter()
    _, [slow, failed, measured] = suite_of(tmp_path, "--budget", "100")
    assert time.perf_counter() - began < 50
    names(slow["not_measured"], "did not end within 2 s")
    names(failed["not_measured"], "OutOfMemoryError", "no room")
    assert measured["stage"] == "toy"


def test_the_suite_holds_what_a_gpu_is_to_be_measured_on():
    everything = suite.cases(list(STAGES), None)
    assert {(one.stage, one.size) for one in everything} >= {
        (stage, size) for stage in STAGES for size in ("twist-1.3b", "twist-7b") if stage not in {"vocoder", "hubert"}
    }
    largest = max(
        one.work["pairs_at_once"] for one in everything if (one.stage, one.size) == ("preference", "twist-7b")
    )
    assert largest == preference.FEWER["twist-7b"] == 16
    assert len({(one.stage, str(one)) for one in suite.cases(["sampling"], "tiny")}) == 3
    with pytest.raises(UnknownStageError):
        suite.cases(["samplng"], None)


def test_differences_by_hand():
    assert max_abs_difference([np.array([1.0, 2.0]), np.zeros(0)], [np.array([1.5, 1.75]), np.zeros(0)]) == 0.5
    assert mismatch_rate([np.array([1, 2]), np.array([3])], [np.array([1, 2]), np.array([3, 4])]) == 0.5
    assert mismatch_rate([np.array([1])], []) == 1.0


def test_peak_memory_is_that_of_the_call_alone():
    held = torch.ones(10 << 20)  # 40 MB before
    peak = peak_bytes(lambda: float(torch.ones(25 << 20).sum()), device="cpu")
    again = peak_bytes(lambda: None, device="cpu")
    assert held.numel()
    if peak is None:
        pytest.skip("this system does not tell")
    assert 95 << 20 <= peak <= 130 << 20
    assert again < 10 << 20


def test_flop_of_a_token_is_twice_the_weights_it_meets():
    shape = SHAPES["25m"]
    model = decoder(shape, vocab_size=103, device="cpu")
    weights = sum(p.numel() for name, p in model.named_parameters() if "norm" not in name and "embed" not in name)
    assert token_flop(shape, vocab_size=103, positions=0) == 2 * weights
    assert token_flop(shape, vocab_size=103, positions=10) - 2 * weights == 10 * 4 * 6 * 512
    assert weights >= 20e6


def test_command_prints_and_writes(tmp_path):
    file, figure = tmp_path / "made" / "bench.json", tmp_path / "drawn" / "growth.svg"
    asked = ["sblimp", "--size", "tiny", "-n", "1", "--scale", "1,2", "--device", "cpu"]
    said = CliRunner().invoke(app, [*asked, "--json", str(file), "--figure", str(figure)])
    assert said.exit_code == 0, said.output
    assert "item by item" in said.output
    assert "GFLOP/s" in said.output
    content = json.loads(file.read_text())
    assert [result["scale"] for result in content["results"]] == [1, 2]
    assert [len(result["paths"]) for result in content["results"]] == [2, 1]
    assert content["machine"]["device"] == "cpu"
    assert figure.read_text().count("sblimp")


def test_growth_is_drawn_equal_for_equal_figures(tmp_path):
    results = run(["sblimp"], size="tiny", scales=[1], repeats=1, machine=MACHINE, told=lambda _: None)
    plot_scaling(results, tmp_path / "one.png")
    plot_scaling(results, tmp_path / "two.png")
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["sampling", "--size", "9b"], ("'9b'", "25m", "twist-1.3b", "twist-7b")),
        (["x", "--size", "tiny", "--scale", "0"], ("--scale", "'0'", "1,2,4,8")),
        (["--figure", "growth.xyz"], ("--figure", "growth.xyz", ".svg", ".png")),
        (["--suite"], ("--suite", "GPU", "--size tiny")),
    ],
)
def test_faults_are_told(asked, message):
    said = CliRunner().invoke(app, [*asked, "--device", "cpu"])
    assert said.exit_code == 2
    names(said.output, *message)


def test_an_unknown_benchmark_is_told_before_anything_runs():
    with pytest.raises(UnknownStageError) as raised:
        run(["sampling", "samplng"], size="tiny", scales=[1], repeats=1, machine=MACHINE, told=print)
    names(raised.value, "'samplng'", "sampling, storycloze")
