"""What a stage prints, and which errors end it as a message."""

import re
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from alignslm import progress
from alignslm.config.problems import ConfigError, ConfigProblem
from alignslm.progress import StageLog, peak_memory_mb, progress_line, stage, summary_line, track
from alignslm.provenance import ContractError
from alignslm.tables import TableError
from alignslm.user_errors import is_user_error
from tests.terminals import on_a_terminal


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (TableError("x"), True),
        (ContractError("x"), True),
        (ConfigError([ConfigProblem("f", 1, "k", "m")]), True),
        (ValueError("x"), False),
        (KeyError("x"), False),
    ],
)
def test_told_errors_are_those_that_alignslm_defines(error, told):
    assert is_user_error(error) is told


def test_stage_prints_one_line(capsys):
    with stage("pairs@r1") as log:
        log.rows(inputs={"scores": 2500}, outputs={"pairs": 800, "skipped_prompts": 41})
        log.log_metrics({"loss": 0.123456})
    line = r"pairs@r1: 2500 scores in, 800 pairs and 41 skipped_prompts out, loss 0\.1235, 0\.0 s, peak \d+ MB\n"
    out, err = capsys.readouterr()
    assert re.fullmatch(line, out)
    assert err == ""


def test_summary_line():
    log = StageLog(inputs=3, outputs={})
    assert summary_line("s", log, seconds=61.26, peak_mb=812.4) == "s: 3 rows in, nothing out, 61.3 s, peak 812 MB"


def test_stage_ends_with_the_message_of_a_told_error(capsys):
    with pytest.raises(SystemExit) as ended, stage("s"):
        raise TableError("artifacts/x.parquet does not [bold]exist")
    assert ended.value.code == 1
    assert capsys.readouterr() == ("", "artifacts/x.parquet does not [bold]exist\n")


def test_stage_lets_a_bug_keep_its_traceback(capsys):
    with pytest.raises(ValueError, match="a bug"), stage("s"):
        raise ValueError("a bug")
    assert capsys.readouterr() == ("", "")


def test_peak_memory_counts_children():
    """A process starts with the peak of the one it was forked from, so the child goes 200 MB beyond that."""
    code = "from alignslm.progress import peak_memory_mb; import subprocess, sys; before = peak_memory_mb();"
    child = "subprocess.run([sys.executable, '-c', f'x = bytearray({int(before) + 200} << 20)'], check=True);"
    result = subprocess.run(
        [sys.executable, "-c", f"{code}{child}print(before, peak_memory_mb())"],
        capture_output=True,
        text=True,
        check=True,
    )
    before, after = map(float, result.stdout.split())
    assert before + 199 <= after < before + 300
    assert peak_memory_mb() > 10


def test_progress_line():
    assert progress_line("speech", 120, 500, 10.0) == "speech: 120/500 (24 %), 12.0/s, 32 s left"
    assert progress_line("fit", 2, 4, 8.0) == "fit: 2/4 (50 %), 4.0 s each, 8 s left"


def test_track_in_a_log_is_quiet_but_for_a_line_every_ten_seconds(capsys, monkeypatch):
    now = iter(range(0, 1000, 4))  # the clock is read once at the start and once an item: four seconds each
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(now)))
    assert list(track(iter("abcdef"), total=6, label="x")) == list("abcdef")
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == ["x: 3/6 (50 %), 4.0 s each, 12 s left"]


def test_track_of_nothing(capsys):
    assert list(track([], total=0, label="x")) == []
    assert capsys.readouterr() == ("", "")


def drawn_and_said(code: str, folder: Path) -> tuple[str, str]:
    """Run Python with a terminal as stderr."""
    with (folder / "said").open("wb") as file:
        drawn = on_a_terminal(sys.executable, "-c", code, stdout=file)
    return drawn.decode(), (folder / "said").read_text()


def test_track_on_a_terminal_draws_a_bar_on_stderr(tmp_path):
    code = "from alignslm.progress import track; print(sum(track(range(20), total=20, label='adding')))"
    drawn, said = drawn_and_said(code, tmp_path)
    assert said == "190\n"
    assert "adding" in drawn
    assert "20/20" in drawn


def test_a_terminal_has_a_second_bar_below_what_waits_for_it_and_no_third(tmp_path):
    third = "list(track(range(3), total=3, label='third'))"
    inner = f"[{third} for _ in track(range(2), total=2, label='inner')]"
    code = (
        f"from alignslm.progress import track; print([{inner} for _ in track('ab', total=2, label='outer')], {third})"
    )
    drawn, said = drawn_and_said(code, tmp_path)
    assert said == "[[[0, 1, 2], [0, 1, 2]], [[0, 1, 2], [0, 1, 2]]] [0, 1, 2]\n"
    assert drawn.index("outer") < drawn.index("inner") < drawn.index("third")
    assert drawn.rindex("inner") < drawn.index("third")  # inside, no third; afterwards, its own


def in_a_worker(count: int) -> list[int]:
    return list(track(range(count), total=count, label="worker's"))


def test_a_worker_leaves_progress_to_its_parent(capfd, monkeypatch):
    monkeypatch.setattr("alignslm.progress.QUIET_S", 0.0)
    with ProcessPoolExecutor(1, mp_context=get_context("fork")) as pool:
        assert pool.submit(in_a_worker, 3).result() == [0, 1, 2]
    assert "worker's" not in capfd.readouterr().err
    assert in_a_worker(3) == [0, 1, 2]
    assert "worker's: 1/3" in capfd.readouterr().err
