"""Whatever writes meets a full and a read-only disk, real ones: one line says what, how much and what is kept."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.messages import names

ROOT = Path(__file__).parent.parent
WRITERS = {
    "text": "storage.write_text(place / 'counts.json', 'x' * 3_000_000)",
    "bytes": "storage.write_bytes(place / 'clip.flac', bytes(3_000_000))",
    "copy": "storage.copy_file(big(), place / 'copy')",
    "table": "tables.write(texts(), tables.TEXTS, place / 'texts.parquet')",
    "shards": "tables.write_shards([texts()], tables.TEXTS, place / 'texts', part_rows=500)",
    "weights": "with storage.atomic_write(place / 'model.safetensors') as partial: save_file(weights(), partial)",
    "checkpoint": "with storage.filling(place / 'base', 8_000_000) as partial: save_file(weights(), partial / 'a')",
    "folder": "with storage.replacing_folder(place / 'all') as partial: (partial / 'a').write_bytes(bytes(3_000_000))",
    "figure": "with storage.atomic_write(place / 'plot.svg') as partial: figure().savefig(partial, format='svg')",
    "reply": "replies(place)",
    "work": "pl.concat(shards.map_tasks([1, 2], lambda n: texts(), folder=place / 'work', label='scores'))",
}
LEAST_MB = {"text": 3, "bytes": 3, "copy": 3, "checkpoint": 8, "folder": 0.5}  # of those that know it, or have begun
CODE = """
import os, random, sys
from pathlib import Path
import numpy as np
import polars as pl
from alignslm import shards, storage, tables
from alignslm.progress import stage
from safetensors.numpy import save_file

place = Path(sys.argv[1])
letters = random.Random(0)

def texts():
    rows = [(f"{n:06d}", letters.randbytes(500).hex(), "c") for n in range(3000)]
    return pl.DataFrame(rows, schema=dict(tables.TEXTS.schema), orient="row")

def weights():
    return {"x": np.zeros(10**6)}

def big():
    Path("big").write_bytes(bytes(3_000_000))
    return Path("big")

def figure():
    from matplotlib.figure import Figure
    found = Figure()
    found.add_subplot().plot(np.random.default_rng(0).normal(size=100_000), "o")
    return found

def replies(place):
    os.environ["ALIGNSLM_CACHE"] = str(place)
    from alignslm.config.llm_judges import Budget
    from alignslm.judge.reply_store import LedgerEntry, ReplyStore
    store = ReplyStore("server and model", Budget(requests=10**9, tokens=10**9))
    while True:
        store.record(LedgerEntry(key="k" * 10_000, outcome="ok", prompt_tokens=1, completion_tokens=1))

with stage("probe"):
    exec(sys.argv[2])
"""


@pytest.fixture(params=["full", "read-only"])
def disk(request, tmp_path) -> Iterator[Path]:
    """Give a disk of one megabyte, or one that may only be read."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = ["mount", "-t", "tmpfs", "-o", "size=1m" if request.param == "full" else "ro", "tmpfs", str(place)]
    if subprocess.run(mounted, capture_output=True, check=False).returncode:
        pytest.skip("this process may mount nothing")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.parametrize("writer", WRITERS)
def test_each_writer_says_what_is_full_and_what_is_kept(disk, writer, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(disk), WRITERS[writer]],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith(f"{disk}/")
    names(line, "kept")
    if "Read-only file system" not in line:
        names(line, "No space left on device", "of 1.0 MB are free")
        wanted = re.search(r"at least ([\d.]+) MB are wanted", line)
        assert wanted
        assert float(wanted[1]) >= LEAST_MB.get(writer, 0)
    left = [path for path in disk.rglob("*") if path.is_file() and ".partial" in path.name]
    assert left == []


def test_a_file_that_may_not_be_read_is_no_traceback(tmp_path):
    if not Path("/proc/sys/kernel").exists():
        pytest.skip("no file that nobody may write")
    code = (
        "from alignslm.progress import stage\nwith stage('probe'): open('/proc/sys/kernel/osrelease', 'a').write('x')"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    names(line, "/proc/sys/kernel/osrelease")
