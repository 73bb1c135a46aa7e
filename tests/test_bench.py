"""Every benchmark compares equal answers, and its figures are what they are called. No time is asserted."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from tests.bench.__main__ import app
from tests.bench.case import Case, Cost, MismatchError, max_abs_difference, mismatch_rate
from tests.bench.harness import Spread, measure
from tests.bench.judge import work
from tests.bench.machine import Machine
from tests.bench.memory import peak_bytes
from tests.bench.models import SHAPES, decoder, token_flop
from tests.bench.scaling import plot_scaling
from tests.bench.stages import STAGES, UnknownStageError, run
from tests.messages import names

MACHINE = Machine("test", 2, 2, 1 << 30, torch.__version__, "cpu", "float32", 1e9, 1e9)


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
