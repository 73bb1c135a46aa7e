"""Artifacts are compared with what was written: which file, what is wrong, and what helps."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
import yaml
from pydantic import BaseModel
from typer.testing import CliRunner

from alignslm import integrity, tables
from alignslm.cli import app
from alignslm.integrity import DamagedError, LockError, read_json, reading, require_intact
from tests.messages import names

CURE = ("dvc repro", "dvc checkout")
# Made by DVC 3.67: `dvc add folder` of two files, a holding "one\n" and deep/b holding "two\n".
FOLDER_MD5 = "41f313f9295d8ed13b76f154d171a639.dir"


class Counts(BaseModel):
    rows: int


@pytest.fixture
def experiment(tmp_path, monkeypatch):
    """Give an experiment whose dvc.lock names a folder, a file in a folder of many, and a file."""
    monkeypatch.chdir(tmp_path)
    for name, text in {
        "made/a": "one\n",
        "made/deep/b": "two\n",
        "many/x": "1",
        "many/y": "234",
        "n.json": '{"rows": 3}',
    }.items():
        path = Path("artifacts", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    Path("dvc.yaml").write_text("stages: {}\n")
    outs = [
        {"path": path, "md5": integrity.tree_md5(integrity.listing(Path(path)))}
        for path in ("artifacts/made", "artifacts/many/x", "artifacts/many/y", "artifacts/n.json")
    ]
    Path("dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": {"make": {"cmd": "x", "outs": outs}}}))
    return tmp_path


def keep_listing():
    """Keep the listing of artifacts/made where DVC keeps it."""
    files = integrity.listing(Path("artifacts/made"))
    total = integrity.tree_md5(files)
    place = Path(".dvc/cache/files/md5", total[:2], total[2:])
    place.parent.mkdir(parents=True)
    place.write_text(json.dumps([{"md5": files[name], "relpath": name} for name in sorted(files)]))


def test_a_folders_hash_is_dvcs(experiment):
    assert require_intact(Path("artifacts/made")) == FOLDER_MD5


DAMAGES = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "empty": lambda path: path.write_bytes(b""),
    "junk": lambda path: path.write_bytes(os.urandom(40)),
    "flipped": lambda path: path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:]),
    "missing": Path.unlink,
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(
    ("file", "asked"),
    [
        ("artifacts/made/deep/b", "artifacts/made"),
        ("artifacts/made/deep/b", "artifacts/made/deep/b"),
        ("artifacts/many/y", "artifacts/many/y"),
        ("artifacts/n.json", "artifacts/n.json"),
    ],
)
def test_each_damage_is_told_with_its_file_and_cure(experiment, file, asked, damage):
    keep_listing()
    require_intact(Path(asked))
    DAMAGES[damage](Path(file))
    with pytest.raises(DamagedError) as told:
        require_intact(Path(asked))
    names(told.value, file, "dvc repro")
    assert ("is empty" in str(told.value)) == (damage == "empty")


def test_a_file_in_a_folder_of_many_outputs_is_told_and_a_lost_one_is_its_readers_affair(experiment):
    assert require_intact(Path("artifacts/many"))
    DAMAGES["flipped"](Path("artifacts/many/x"))
    with pytest.raises(DamagedError) as told:
        require_intact(Path("artifacts/many"))
    names(told.value, "artifacts/many/x", *CURE)
    Path("artifacts/many/z").mkdir()
    Path("artifacts/many/z/part").write_text("3")
    with integrity.stage("make@z", [], ["artifacts/many/z"]):
        pass
    Path("artifacts/many/x").write_text("1")
    assert require_intact(Path("artifacts/many"))
    Path("artifacts/many/z/part").unlink()
    with pytest.raises(DamagedError) as told:
        require_intact(Path("artifacts/many"))
    names(told.value, "artifacts/many/z/part", *CURE)
    shutil.rmtree("artifacts/many/z")
    Path("artifacts/many/x").unlink()  # of an item that params.yaml may no longer have
    assert require_intact(Path("artifacts/many"))


def test_a_lost_output_of_the_pipeline_is_told(experiment, monkeypatch):
    monkeypatch.delenv("DVC_ROOT", raising=False)
    outputs = ["artifacts/many/x", "artifacts/many/y", "artifacts/other/z"]
    integrity.require_outputs(["artifacts/many", "artifacts/made"], outputs)
    Path("artifacts/many/y").unlink()
    with pytest.raises(DamagedError) as told:
        integrity.require_outputs(["artifacts/many", "artifacts/made"], outputs)
    names(told.value, "artifacts/many/y", "dvc repro", "dvc pull")
    integrity.require_outputs(["artifacts/made"], outputs)


def test_without_dvcs_listing_the_folder_and_its_files_are_named(experiment):
    DAMAGES["flipped"](Path("artifacts/made/a"))
    with pytest.raises(DamagedError) as told:
        require_intact(Path("artifacts/made"))
    names(told.value, "artifacts/made", "a", "deep/b", *CURE)


def test_a_file_that_is_new_in_a_folder_is_told(experiment):
    keep_listing()
    Path("artifacts/made/c").write_text("stray")
    with pytest.raises(DamagedError) as told:
        require_intact(Path("artifacts/made"))
    names(told.value, "artifacts/made/c", *CURE)


def test_after_a_push_to_a_remote_that_keeps_versions_the_lock_lists_files(experiment):
    """DVC then writes the files of a folder into dvc.lock instead of the folder's hash."""
    lock = yaml.safe_load(Path("dvc.lock").read_text())
    made = lock["stages"]["make"]["outs"][0]
    del made["md5"]
    made["files"] = [{"relpath": name, "md5": md5} for name, md5 in integrity.listing(Path("artifacts/made")).items()]
    Path("dvc.lock").write_text(yaml.safe_dump(lock))
    require_intact(Path("artifacts/made"))
    DAMAGES["flipped"](Path("artifacts/made/deep/b"))
    with pytest.raises(DamagedError) as told:
        require_intact(Path("artifacts/made"))
    names(told.value, "artifacts/made/deep/b", *CURE)


def test_what_a_stage_wrote_by_hand_is_as_good_as_what_dvc_knows(experiment):
    """It replaced an output that dvc.lock still has in its older form; both may be read, damage of neither."""
    older = Path("artifacts/n.json").read_text()
    with integrity.stage("make@hand/one", ["artifacts/made"], ["artifacts/n.json", "artifacts/absent"]) as inputs:
        assert inputs == {"artifacts/made": FOLDER_MD5}
        assert integrity.VERIFIED in os.environ
        Path("artifacts/n.json").write_text('{"rows": 4}')
    assert integrity.VERIFIED not in os.environ
    assert read_json(Path("artifacts/n.json"), Counts).rows == 4
    Path("artifacts/n.json").write_text(older)
    assert read_json(Path("artifacts/n.json"), Counts).rows == 3
    Path("artifacts/n.json").write_text('{"rows": 5}')
    with pytest.raises(DamagedError):
        read_json(Path("artifacts/n.json"), Counts)


def test_what_a_failed_stage_wrote_is_not_recorded(experiment):
    def fail():
        with integrity.stage("make", [], ["artifacts/n.json"]):
            raise ArithmeticError

    with pytest.raises(ArithmeticError):
        fail()
    assert integrity.VERIFIED not in os.environ
    assert not integrity.WRITTEN.exists()


def test_a_stage_with_a_damaged_input_does_not_begin(experiment):
    DAMAGES["cut"](Path("artifacts/n.json"))
    with pytest.raises(DamagedError), integrity.stage("next", ["artifacts/n.json"], []):
        raise AssertionError("it began")


@pytest.mark.parametrize("text", ["", "{", '{"rows": "many"}', "\xff\x00", "[]"])
def test_what_no_record_is_of_is_told_when_it_cannot_be_read(tmp_path, text):
    """A folder that somebody was given, outside of every experiment."""
    path = tmp_path / "counts.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(DamagedError) as told:
        read_json(path, Counts)
    names(told.value, path, *CURE)


def test_errors_while_reading_are_told_only_where_the_content_may_be_to_blame(experiment, tmp_path):
    def fail(path: Path, error: Exception):
        with reading(path):
            raise error

    foreign = tmp_path.parent / f"{tmp_path.name}-foreign"
    foreign.mkdir()
    with pytest.raises(DamagedError, match="KeyError"):
        fail(foreign, KeyError("weights"))
    with pytest.raises(KeyError):  # what was written is there: the code is to blame
        fail(Path("artifacts/made"), KeyError("weights"))
    with pytest.raises(LockError):
        fail(foreign, LockError("told already"))


@pytest.mark.parametrize(
    "text", ["<<<<<<< HEAD\nstages:\n=======\n>>>>>>> x\n", "stages:\n  a: [\n", "", "stages: 3\n"]
)
def test_a_lock_that_is_none_is_told(experiment, text):
    Path("dvc.lock").write_text(text)
    with pytest.raises(LockError) as told:
        require_intact(Path("artifacts/n.json"))
    names(told.value, "dvc.lock")


def test_outside_of_a_stage_a_model_is_compared_and_inside_it_was(experiment):
    """As a process: one line, no traceback."""
    code = (
        "from pathlib import Path; from alignslm.integrity import reading\n"
        "from alignslm.user_errors import report_user_errors\n"
        "with report_user_errors(), reading(Path('artifacts/made')): print('read')"
    )
    keep_listing()
    DAMAGES["flipped"](Path("artifacts/made/a"))
    root, command = Path(__file__).parent.parent, [sys.executable, "-c", code]
    for variables, expected in (({}, (1, "")), ({integrity.VERIFIED: "stage"}, (0, "read\n"))):
        environment = {**os.environ, "PYTHONPATH": str(root), **variables}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == expected
        if not variables:
            (line,) = done.stderr.splitlines()
            names(line, "artifacts/made/a", *CURE)


def test_show_says_which_table_is_damaged(tmp_path, monkeypatch):
    """Of an experiment, and a file that somebody was given; each damage, and the parts of a folder."""
    frame = pl.DataFrame([(f"t{n}", "p", "c") for n in range(50)], schema=dict(tables.TEXTS.schema), orient="row")
    monkeypatch.chdir(tmp_path)
    tables.write(frame, tables.TEXTS, Path("texts.parquet"))
    tables.write_shards([frame], tables.TEXTS, Path("texts"), part_rows=30)
    for file, asked in (("texts.parquet", "texts.parquet"), ("texts/part-00000.parquet", "texts")):
        whole = Path(file).read_bytes()
        for damage in ("cut", "empty", "junk"):
            DAMAGES[damage](Path(file))
            done = CliRunner().invoke(app, ["show", asked])
            assert done.exit_code == 1, (file, damage)
            assert isinstance(done.exception, SystemExit), (file, damage, done.exception)
            names(done.output, asked, *CURE)
            Path(file).write_bytes(whole)
