"""Disks that are full or may not be written: real refusals of the system, told in one sentence."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
import torch
from safetensors.torch import save_file

from alignslm import tables
from alignslm.shards import map_tasks
from alignslm.storage import StorageError, atomic_write, reraise_disk_errors
from tests.messages import names

FRAME = pl.DataFrame([("t", "p", "c")], schema=dict(tables.TEXTS.schema), orient="row")
KEPT = "kept"  # what is finished
FULL = ("No space left on device", KEPT)


def partial_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.partial")


def test_a_full_disk_met_by_a_table(tmp_path):
    path = tmp_path / "texts.parquet"
    partial_of(path).symlink_to("/dev/full")  # refuses every byte, as a full disk does
    with pytest.raises(StorageError) as told:
        tables.write(FRAME, tables.TEXTS, path)
    names(told.value, path, *FULL)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_met_by_a_shard(tmp_path):
    part = tmp_path / "part-00001.parquet"
    partial_of(part).symlink_to("/dev/full")
    made = map_tasks([1, 2, 3], lambda n: pl.DataFrame({"n": [n]}), folder=tmp_path, label="work")
    with pytest.raises(StorageError) as told:
        list(made)
    names(told.value, part, *FULL)
    again = map_tasks([1, 2, 3], lambda n: pl.DataFrame({"n": [n]}), folder=tmp_path, label="work")
    assert pl.concat(again)["n"].to_list() == [1, 2, 3]


LIMITED = """
import resource, sys
from pathlib import Path
import polars as pl, numpy as np
from safetensors.numpy import save_file  # Torch's writes by the same code, and takes seconds to import
from alignslm.storage import reraise_disk_errors
path = Path(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
weights, frame = {"x": np.zeros(10**5)}, pl.DataFrame({"a": range(10**5)})
with reraise_disk_errors(path):
    match sys.argv[1]:
        case "polars": frame.write_parquet(path)
        case "arrow": __import__("pyarrow.parquet").parquet.write_table(frame.to_arrow(), path)
        case "safetensors": save_file(weights, path)
        case "text": path.write_text("x" * 10**4)
"""


@pytest.mark.parametrize("library", ["polars", "arrow", "safetensors", "text"])
def test_every_library_is_understood(tmp_path, library):
    path = tmp_path / "file"
    done = subprocess.run([sys.executable, "-c", LIMITED, library, path], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    told = done.stderr.strip().splitlines()[-1]
    names(told, "File too large", "alignslm.storage.StorageError", path, KEPT)


def test_where_a_library_does_not_say_it_a_small_write_does(tmp_path):
    """Torch on a full disk speaks of an unexpected position. The limit is for this process alone, and put back."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    try:
        with (
            pytest.raises(StorageError, match="cannot be written: File too large"),
            reraise_disk_errors(tmp_path / "model"),
        ):
            raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_may_not_be_written():
    """/sys refuses root as well, read-only or not."""
    path = Path("/sys/alignslm/part.parquet")
    with pytest.raises(StorageError) as told:
        tables.write(FRAME, tables.TEXTS, path)
    refused = str(told.value)
    assert refused.startswith(f"{path} cannot be written: ")
    names(refused, KEPT)
    assert any(why in refused for why in ("Permission denied", "Read-only file system", "Operation not permitted"))


def test_a_read_only_work_folder_is_one_line_and_no_traceback(tmp_path):
    (tmp_path / ".work").symlink_to("/sys")
    code = (
        "from alignslm.progress import stage\n"
        "from alignslm.shards import work_folder\n"
        "import stages.pairs as script\n"
        "with stage('pairs@r1'), work_folder('pairs', script=script.__file__, params={}, inputs={}): pass\n"
    )
    root = Path(__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith(".work/pairs@r1.lock")
    names(line, KEPT)


def test_other_errors_stay_what_they_are(tmp_path):
    with pytest.raises(ArithmeticError), reraise_disk_errors(tmp_path / "file"):
        raise ArithmeticError
    with pytest.raises(FileNotFoundError), reraise_disk_errors(tmp_path / "file"):
        (tmp_path / "absent").read_text()
    assert list(tmp_path.iterdir()) == []


def half_replace(path):
    with atomic_write(path) as partial:
        partial.write_text("half of the new")
        raise KeyboardInterrupt


def test_a_file_takes_its_place_whole_or_not_at_all(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt):
        half_replace(path)
    assert path.read_text() == "old"
    with atomic_write(path) as partial:
        partial.write_text("new")
    assert path.read_text() == "new"
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_what_a_killed_process_left_half_written_is_swept_away_and_a_live_ones_is_not(tmp_path):
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)  # noqa: PLW1510
    unnoticed = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, unnoticed.pid, os.WEXITED | os.WNOWAIT)  # dead, and its number not given back
    dead, alive = int(gone.stdout), os.getppid()
    for pid in (dead, unnoticed.pid, alive):
        (tmp_path / f".texts.parquet.{pid}.partial").write_text("half")
        (tmp_path / f".folder.{pid}.partial").mkdir()
        (tmp_path / f".folder.{pid}.partial" / "part-00000.parquet").write_text("half")
    tables.write(FRAME, tables.TEXTS, tmp_path / "texts.parquet")
    tables.write_shards([FRAME], tables.TEXTS, tmp_path / "folder")
    left = {"folder", "texts.parquet", f".texts.parquet.{alive}.partial", f".folder.{alive}.partial"}
    assert {path.name for path in tmp_path.iterdir()} == left
    unnoticed.wait()


def test_safetensors_and_torch_still_write(tmp_path):
    with reraise_disk_errors(tmp_path):
        save_file({"x": torch.zeros(3)}, tmp_path / "a.safetensors")
        torch.save({"x": 1}, tmp_path / "b.pt")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.safetensors", "b.pt"]


def test_a_temporary_folder_goes_and_that_of_a_killed_process_is_removed_by_the_next(tmp_path):
    """That of a live process stays, and what is not ours."""
    code = (
        "import os, signal, sys; from alignslm.storage import temporary_folder\n"
        "with temporary_folder() as folder:\n"
        "    open(folder + '/data', 'w').close(); print(folder, flush=True); sys.stdin.readline()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    (tmp_path / "alignslm-of-somebody").mkdir()
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(Path(__file__).parent.parent)}
    command = [sys.executable, "-c", code]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment}
    with subprocess.Popen(command, **pipes) as killed, subprocess.Popen(command, **pipes) as alive:
        left, held = Path(killed.stdout.readline().strip()), Path(alive.stdout.readline().strip())
        killed.communicate("\n")
        assert left.is_dir()
        assert left.parent == tmp_path
        ended = "from alignslm.storage import temporary_folder\nwith temporary_folder(): pass"
        subprocess.run([sys.executable, "-c", ended], env=environment, check=True)
        assert {path.name for path in tmp_path.iterdir()} == {held.name, "alignslm-of-somebody"}
        alive.communicate("\n")


def test_speech_by_espeak_leaves_nothing(tmp_path):
    code = (
        "import numpy as np; from alignslm.storyworld import espeak\n"
        "espeak.require_voice('en-us'); espeak._data_of('en-us')\n"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(Path(__file__).parent.parent)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert list(tmp_path.iterdir()) == []


def test_no_module_makes_a_temporary_folder_by_itself():
    root = Path(__file__).parent.parent
    for file in [*(root / "alignslm").rglob("*.py"), *(root / "stages").rglob("*.py")]:
        if file.name != "storage.py":
            text = file.read_text()
            assert not [
                word for word in ("mkdtemp", "mkstemp", "TemporaryDirectory(", "NamedTemporary") if word in text
            ]
