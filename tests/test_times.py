"""Where a run's time went: the parts add up, whichever way stages end."""

import json

import pytest
from typer.testing import CliRunner

from alignslm import times
from alignslm.cli import app
from alignslm.cli.times import clock
from alignslm.progress import stage


def note(root, run, *stages):
    for name, started, began, ended in stages:
        file = root / times.FOLDER / run / f"{name}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"name": name, "started": started, "began": began, "ended": ended}))


def test_work_start_up_and_between_add_up_to_the_run(tmp_path):
    note(tmp_path, "99.000", ("old", 100, 101, 500))
    note(tmp_path, "1000.000", ("corpus", 1002, 1003, 1013), ("pairs@r1", 1015, 1015.5, 1020))
    run = times.last_run(tmp_path)
    assert (run.total, run.working, run.starting, run.between) == (20, 14.5, 1.5, 4)
    assert [item.name for item in run.stages] == ["corpus", "pairs@r1"]


def test_the_longest_stages_come_first_and_the_rest_is_one_line(tmp_path):
    (tmp_path / "params.yaml").touch()
    note(tmp_path, "0.000", *((f"s{n}", 10 * n, 10 * n, 10 * n + n) for n in range(12)))
    lines = CliRunner().invoke(app, ["times", "-C", str(tmp_path)]).output.splitlines()
    named = [line.split()[0] for line in lines if line.strip().startswith("s") and line.strip()[1].isdigit()]
    assert named[:8] == [f"s{n}" for n in range(11, 3, -1)]
    assert any("4 other stages" in line and "6.0 s" in line for line in lines)


def test_without_a_run_that_is_said(tmp_path):
    (tmp_path / "params.yaml").touch()
    done = CliRunner().invoke(app, ["times", "-C", str(tmp_path)])
    assert done.exit_code == 0
    assert "make repro" in done.output


@pytest.mark.parametrize("noted", [True, False])
def test_a_stage_notes_its_time_in_a_run_alone(tmp_path, monkeypatch, noted):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(times.RUN, raising=False)
    monkeypatch.delenv(times.STARTED, raising=False)
    if noted:
        monkeypatch.setenv(times.RUN, "1.000")
        monkeypatch.setenv(times.STARTED, "5.000")
    with stage("pairs@r1"):
        pass
    run = times.last_run()
    assert (run is not None) == noted
    if run:
        (found,) = run.stages
        assert (found.name, found.started) == ("pairs@r1", 5.0)
        assert found.began <= found.ended


def test_a_stage_that_fails_notes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(times.RUN, "1.000")
    with pytest.raises(RuntimeError), stage("pairs@r1"):
        raise RuntimeError
    assert times.last_run() is None


@pytest.mark.parametrize(("seconds", "text"), [(3.21, "3.2 s"), (59.94, "59.9 s"), (247.9, "4 min 07 s")])
def test_clock(seconds, text):
    assert clock(seconds) == text
