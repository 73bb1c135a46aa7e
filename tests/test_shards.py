"""Resumable work: durable shards, one run at a time, and what interrupted runs leave."""

import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import polars as pl
import pytest

from alignslm import tables
from alignslm.shards import FORM, map_shards, map_table, map_tasks, work_folder

ROWS = pl.DataFrame({"id": list(range(10))})
SCRIPT = str(Path(__file__).parent.parent / "stages" / "pairs.py")


def double(frame):
    return frame.with_columns(twice=pl.col("id") * 2)


def run(folder, function=double, shard_size=3):
    return pl.concat(map_shards(ROWS, function, folder=folder, shard_size=shard_size, label="work"))


def begin(*, script=SCRIPT, stage="scores", inputs=(), **params):
    return work_folder(stage, script=script, params=params, inputs=dict(inputs))


def fail(work, **options) -> Path:
    """Work in a stage that then fails, and return its folder."""
    with pytest.raises(ArithmeticError):
        _fail(work, options, folders := [])
    return folders[0]


def _fail(work, options, folders):
    with begin(**options) as folder:
        folders.append(folder)
        work(folder)
        raise ArithmeticError


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


# --- shards ---


@pytest.mark.parametrize("shard_size", [1, 3, 10, 99])
def test_the_result_does_not_depend_on_shard_size(tmp_path, shard_size):
    assert run(tmp_path, shard_size=shard_size).equals(double(ROWS))


def test_an_interrupted_run_is_taken_up(tmp_path, capsys):
    def dies_at_six(frame):
        if 6 in frame["id"]:
            raise KeyboardInterrupt
        return double(frame)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, dies_at_six)
    asked = []

    def remembers(frame):
        asked.extend(frame["id"])
        return double(frame)

    assert run(tmp_path, remembers).equals(double(ROWS))
    assert asked == [6, 7, 8, 9]
    assert capsys.readouterr().out == "work: 2 of 4 shards kept from an interrupted run\n"


DAMAGES = {
    "truncated": lambda data: data[:-7],
    "one bit": lambda data: data[:50] + bytes([data[50] ^ 1]) + data[51:],
    "emptied": lambda _: b"",
    "longer": lambda data: data + b"\0",
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("file", ["part-00001.parquet", "part-00001.sha256"])
def test_a_damaged_shard_or_seal_is_told_and_redone(tmp_path, capsys, damage, file):
    run(tmp_path)
    (victim,) = tmp_path.rglob(file)
    before = victim.read_bytes()
    victim.write_bytes(damage(before))
    asked = []

    def remembers(frame):
        asked.extend(frame["id"])
        return double(frame)

    assert run(tmp_path, remembers).equals(double(ROWS))
    assert victim.read_bytes() == before
    if file.endswith("parquet") or damage is not DAMAGES["longer"]:
        assert asked == [3, 4, 5]
        assert "work: shard 2 of 4 is damaged or incomplete; computed again\n" in capsys.readouterr().out


@pytest.mark.parametrize("half", ["part-00001.sha256", "part-00001.parquet"])
def test_a_shard_without_its_seal_or_a_seal_without_its_shard_is_redone(tmp_path, half):
    """Killed between the two renames, or between any two others."""
    run(tmp_path)
    next(tmp_path.rglob(half)).unlink()
    asked = []

    def remembers(frame):
        asked.extend(frame["id"])
        return double(frame)

    assert run(tmp_path, remembers).equals(double(ROWS))
    assert asked == [3, 4, 5]


def test_a_table_is_mapped_slice_by_slice_as_it_lies_on_disk(tmp_path):
    rows = [(f"t{n:02d}", "p", "c") for n in range(11)]
    frame = pl.DataFrame(rows, schema=dict(tables.TEXTS.schema), orient="row")
    tables.write_shards([frame], tables.TEXTS, tmp_path / "texts", part_rows=4)
    sizes = []

    def count(part):
        sizes.append(len(part))
        return part

    options = {"folder": tmp_path / "work", "shard_size": 3, "label": "work"}
    assert pl.concat(map_table(tables.TEXTS, tmp_path / "texts", count, **options)).equals(frame)
    assert sizes == [3, 1, 3, 1, 3]
    assert pl.concat(map_table(tables.TEXTS, tmp_path / "texts", count, **options)).equals(frame)
    assert len(sizes) == 5


# --- the work folder ---


def test_work_is_found_again_only_under_equal_parameters_inputs_and_science(here):
    for name, text in {"first": "", "commented": "# said otherwise\n", "another": "LIMIT = 1\n"}.items():
        (here / name / "stages").mkdir(parents=True)
        (here / name / "stages" / "stage.py").write_text(f"from alignslm import metrics\n{text}")

    def key(code="first", content="one", **params):
        script = str(here / code / "stages" / "stage.py")
        with begin(script=script, inputs={"artifacts/units.parquet": content}, **params) as folder:
            return folder

    first = key(seed=0)
    assert key(seed=0) == first
    assert key(seed=1) != first
    assert key(content="two", seed=0) != first
    assert key(code="commented", seed=0) == first
    assert key(code="another", seed=0) != first


def test_plumbing_is_no_part_of_the_key_and_the_form_of_a_shard_is():
    from alignslm.code_deps import code_dependencies

    package = Path(SCRIPT).parent.parent / "alignslm"
    found = code_dependencies(Path(SCRIPT))
    assert found == [package / "pairs", Path(SCRIPT)]
    assert {path.name for path in FORM} == {"shards.py", "tables"}


def test_a_run_that_ends_well_leaves_nothing_and_one_that_fails_leaves_its_shards(here):
    failed = fail(run, seed=0)
    assert len(list(failed.rglob("part-*.parquet"))) == 4
    with begin(seed=1) as other:
        assert other != failed
        assert failed.exists()
    assert not failed.exists()  # left by an earlier run of this stage, and of no use to the next
    assert not other.exists()


def test_stages_leave_each_others_work_alone(here):
    kept = fail(lambda _: None, stage="speech-r1")
    with begin(stage="speech-r2"):
        pass
    assert kept.exists()


def test_a_second_process_of_torchrun_shares_the_folder_and_does_not_remove_it(here, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    with begin(seed=0) as second:
        pass
    monkeypatch.setenv("RANK", "0")
    with begin(seed=0) as first:
        assert first == second
    assert not first.exists()


WORKER = textwrap.dedent(f"""
    import sys, time
    from pathlib import Path
    import polars as pl
    from alignslm.progress import stage
    from alignslm.shards import map_tasks, work_folder
    pause, seed = float(sys.argv[1]), int(sys.argv[2])

    def slowly(number):
        with open("calls.txt", "a") as stream:
            stream.write(f"{{number}}\\n")
        time.sleep(pause)
        return pl.DataFrame({{"n": [number * seed]}})

    with stage("toy"), work_folder("toy", script={SCRIPT!r}, params={{"seed": seed}}, inputs={{}}) as work:
        made = pl.concat(map_tasks(range(6), slowly, folder=work, label="toy"))
        Path(sys.argv[3]).write_text(str(made["n"].to_list()))
""")


def start(here, pause, seed, out):
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, str(pause), str(seed), out], cwd=here, stdout=subprocess.PIPE, text=True
    )


def wait_for_shards(here, count, process):
    give_up = time.monotonic() + 60
    while len(list((here / ".work").rglob("part-*.sha256"))) < count:
        assert time.monotonic() < give_up
        assert process.poll() is None
        time.sleep(0.005)


@pytest.mark.parametrize("seed", [2, 3], ids=["same work", "other parameters"])
def test_two_runs_of_a_stage_at_once_wait_for_each_other(here, seed):
    first = start(here, 1.5, 2, "first")
    wait_for_shards(here, 1, first)
    second = start(here, 0, seed, "second")
    said, _ = second.communicate(timeout=60)
    assert first.wait(timeout=60) == second.returncode == 0
    told = rf"toy: process {first.pid} \(.+\) has been running in this workspace since .+; waiting until it is done\n"
    assert re.match(told, said)
    assert "kept" not in said
    assert (here / "first").read_text() == str([n * 2 for n in range(6)])
    assert (here / "second").read_text() == str([n * seed for n in range(6)])
    assert not (here / ".work" / "toy").exists()


def test_a_killed_run_holds_no_lock_and_its_shards_are_taken_up(here):
    killed = start(here, 0.15, 2, "out")
    wait_for_shards(here, 3, killed)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    done = len((here / "calls.txt").read_text().split())
    kept = len(list((here / ".work").rglob("part-*.sha256")))
    again = start(here, 0, 2, "out")
    said, _ = again.communicate(timeout=60)
    assert said.startswith(f"toy: {kept} of 6 shards kept from an interrupted run\ntoy: 0 rows in")
    assert len((here / "calls.txt").read_text().split()) - done == 6 - kept
    assert (here / "out").read_text() == str([n * 2 for n in range(6)])


def test_shards_are_yielded_in_order_whatever_was_kept(tmp_path):
    list(map_tasks(["a", "b"], lambda name: pl.DataFrame({"n": [name]}), folder=tmp_path, label="work"))
    (tmp_path / "part-00000.parquet").unlink()
    made = map_tasks(["a", "b", "c"], lambda name: pl.DataFrame({"n": [name]}), folder=tmp_path, label="work")
    assert pl.concat(made)["n"].to_list() == ["a", "b", "c"]
