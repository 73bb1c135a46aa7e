"""Every system against one over several runs: means, corrected tests, and judge calls counted from the tables."""

import json
import shutil

import polars as pl
import pytest
from typer.testing import CliRunner

from alignslm import tables
from alignslm.artifacts import Artifacts
from alignslm.cli import app
from alignslm.config.loading import load_experiment
from alignslm.config.presets import apply_preset
from alignslm.figures.columns import ReportError
from alignslm.report.seeds import compare_seeds
from alignslm.report.ways import TESTED, compare_ways, judge_calls
from alignslm.statistics import holm
from tests.messages import names
from tests.sample_experiment import REPOSITORY
from tests.small_evaluations import write_evaluation

KEY = ("continuation", "judge_score")
MORE = "  from-rm: {init_from: sft-2, train_on: rewards/rm, trainer: online}\n"


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """The preset `ways` without results."""
    root = tmp_path_factory.mktemp("ways")
    shutil.copytree(REPOSITORY / "experiments", root / "experiments")
    shutil.copy(REPOSITORY / "params.yaml", root)
    apply_preset("ways", root)
    return root


def write_run(experiment, root, shift):
    """Write evaluations of every system: each scores higher than the one before, by how much depends on the prompt."""
    shutil.copytree(experiment, root)
    params = load_experiment(root).params
    for rank, name in enumerate(params.ordered_systems):
        scores = {
            prompt: [1.0 + place / 8 + (rank + 1) * (place % 3 + shift) / 16] for place, prompt in enumerate("abcdef")
        }
        if name in params.toplines:
            scores = {prompt: [4.0] for prompt in "abcdef"}
        write_evaluation(root / "artifacts", name, scores, {"x": 1.0, "y": 0.0, "z": 0.5})
    folder = root / "artifacts" / "scores"
    folder.mkdir()
    for name, rows in (("r1", 10), ("more", 3), ("r2", 6), ("sft-2", 4)):
        pl.DataFrame({"continuation_id": [str(row) for row in range(rows)]}).write_parquet(folder / f"{name}.parquet")
    for name, rows in (("five", 5), ("eighteen", 18)):
        scores = Artifacts(root / "artifacts").best_of(name, "scores")
        scores.parent.mkdir(parents=True)
        pl.DataFrame({"continuation_id": [str(row) for row in range(rows)]}).write_parquet(scores)
    rollouts = root / "artifacts" / "checkpoints" / "online" / "rollouts"
    rollouts.mkdir(parents=True)
    pl.DataFrame({"continuation_id": ["a"] * 7}).write_parquet(rollouts / "scores.parquet")
    return root


@pytest.fixture(scope="module")
def runs(experiment, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return [write_run(experiment, folder / f"seed-{i}", shift) for i, shift in enumerate((0.5, 1.0, 1.5))]


def test_each_difference_is_that_of_two_systems_and_p_is_corrected_over_all(runs):
    found = compare_ways(runs, "sft")
    assert found.runs == ("seed-0", "seed-1", "seed-2")
    ordered = load_experiment(runs[0]).params.ordered_systems
    assert [way.judge_calls for way in found.ways] == [0, 0, 5, *[10] * 7, *[13] * 5, 14, 16, 17, 18, None]
    for calls in {way.judge_calls for way in found.ways}:
        same = [way.system for way in found.ways if way.judge_calls == calls]
        assert same == [name for name in ordered if name in same]
    assert sorted(way.system for way in found.ways) == sorted(ordered)
    shown = []
    by_name = {way.system: way for way in found.ways}
    for way in map(by_name.__getitem__, ordered):
        if way.system in ("sft", "ground-truth"):
            assert way.differences == {}
            continue
        for row in compare_seeds(runs, way.system, "sft").rows:
            both = way.differences[row.benchmark, row.metric]
            assert both.model_dump(exclude={"p_corrected"}) == row.model_dump()
            shown.append((way.system, both))
    corrected = holm([both.both_p for _, both in shown])
    assert [both.p_corrected for _, both in shown] == pytest.approx(corrected)


def test_means_are_over_prompts_and_runs(runs):
    means = {way.system: way.means[KEY] for way in compare_ways(runs, "sft").ways}
    order = load_experiment(runs[0]).params.ordered_systems
    for rank, name in enumerate(order):
        expected = sum(
            1.0 + place / 8 + (rank + 1) * (place % 3 + shift) / 16 for place in range(6) for shift in (0.5, 1.0, 1.5)
        )
        assert means[name] == pytest.approx(4.0 if name == "ground-truth" else expected / 18)


def test_judge_calls_are_those_of_the_whole_way(runs):
    calls = {way.system: way.judge_calls for way in compare_ways(runs, "sft").ways}
    assert {calls[name] for name in ("sft", "r1", "dpo", "simpo", "kto", "best-of-5-rm")} == {10}
    assert {calls[f"{name}-more"] for name in ("sft", "r1", "dpo", "simpo", "kto")} == {13}
    assert (calls["base"], calls["base-low-temp"], calls["ground-truth"]) == (0, 0, None)
    assert (calls["best-of-5-judge"], calls["best-of-18-judge"]) == (5, 18)
    assert (calls["r2"], calls["sft-2"], calls["online"]) == (16, 14, 17)


def test_rewards_rest_on_what_they_were_made_from(runs, tmp_path):
    shutil.copytree(runs[0], tmp_path / "more")
    file = tmp_path / "more" / "params.yaml"
    text = file.read_text().replace("\ncheckpoints:\n", f"\ncheckpoints:\n{MORE}")
    file.write_text(text.replace("\nsystems:\n", "\nsystems:\n  from-rm: {source: checkpoints/from-rm}\n"))
    params, made = load_experiment(tmp_path / "more").params, Artifacts(tmp_path / "more" / "artifacts")
    assert judge_calls(made, params, "from-rm") == 14  # sft-2's 10 + 4; the reward model's 10 are among them


def test_runs_that_differ_in_their_systems_are_refused(runs, tmp_path):
    shutil.copytree(runs[1], tmp_path / "other")
    file = tmp_path / "other" / "params.yaml"
    file.write_text(file.read_text().replace("\nsystems:\n", "\nsystems:\n  again: {source: checkpoints/base}\n"))
    with pytest.raises(ReportError) as raised:
        compare_ways([runs[0], tmp_path / "other"], "sft")
    names(raised.value, "seed-0", "other", "'again'")
    for name in ("ground-truth", "nothing"):
        with pytest.raises(ReportError) as raised:
            compare_ways(runs, name)
        names(raised.value, repr(name), "sft")


def test_the_command_prints_tables_markdown_and_json(runs):
    folders = [str(run) for run in runs]
    told = CliRunner().invoke(app, ["compare-ways", "sft", *folders])
    assert told.exit_code == 0, told.output
    assert "judge calls" in told.output
    told = CliRunner().invoke(app, ["compare-ways", "sft", *folders, "--markdown"])
    lines = told.output.splitlines()
    assert lines[0].startswith("| system | judge calls | held-out judge vs sft | training judge")
    row = next(line for line in lines if line.startswith("| r2 |"))
    assert row.split(" | ")[1] == "16"
    content = json.loads(CliRunner().invoke(app, ["compare-ways", "sft", *folders, "--json"]).output)
    assert content["against"] == "sft"
    assert "continuation,judge_score" in content["ways"][0]["means"]
    assert ",".join(TESTED) not in content["ways"][0]["means"]  # these evaluations have no held-out judge


def test_the_plot_has_a_row_for_every_way(runs, tmp_path):
    """These evaluations have no held-out judge, so it is written as one."""
    for run in runs:
        again = tmp_path / run.name
        shutil.copytree(run, again)
        for path in again.glob("artifacts/eval/*/judged.parquet"):
            judged = tables.read(tables.CONTINUATION_METRICS, path)
            tables.write(judged.with_columns(metric=pl.lit(TESTED[1])), tables.CONTINUATION_METRICS, path)
    folders = [str(tmp_path / run.name) for run in runs]
    told = CliRunner().invoke(app, ["compare-ways", "sft", *folders, "--plot", str(tmp_path / "ways.svg")])
    assert told.exit_code == 0, told.output
    svg = (tmp_path / "ways.svg").read_text()
    assert all(name in svg for name in ("r2 (16)", "online (17)", "base (0)"))
    assert "ground-truth" not in svg
