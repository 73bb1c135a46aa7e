"""The pools of the engines: two processes, two actors of a real Ray. What is lost is redone, what is absent is told."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import polars as pl
import pytest

from alignslm.engine import EngineError, WorkerLostError, pool_of, ray_cluster
from alignslm.engine.local import ProcessPool
from alignslm.engine.work import LazyModel, ModelTask, lazy, with_contract
from alignslm.lm.checkpoint import load_lm, save_lm
from alignslm.provenance import ContractError
from alignslm.shards import map_tasks
from alignslm.tables import TableError
from tests import engine_work
from tests.engine_settings import HERE, TWO, loopback_ray
from tests.messages import names
from tests.tiny_lm import CONTRACT, VOCABULARY, tiny_lm


@pytest.fixture(scope="module")
def ray_address():
    with loopback_ray() as address:
        yield address


@pytest.fixture(params=["local", "ray"])
def pool(request):
    if request.param == "local":
        return ProcessPool(2, gpus=[], batch_invariant=True)
    address = request.getfixturevalue("ray_address")
    return pool_of(TWO.model_copy(update={"engine": "ray", "ray_address": address}))


def run(function, tasks, folder, pool=None):
    return pl.concat(map_tasks(tasks, function, folder=folder, label="work", pool=pool))


def test_a_killed_worker_is_replaced_and_its_shards_are_redone(pool, tmp_path):
    mortal = partial(engine_work.squared_by_mortals, flag=str(tmp_path / "deaths"), deaths=1)
    found = run(mortal, range(7), tmp_path / "pool", pool)
    assert (tmp_path / "deaths").stat().st_size == 2
    assert found.equals(run(engine_work.squared, range(7), tmp_path / "here"))
    parts = [sorted((tmp_path / place).glob("part-*")) for place in ("pool", "here")]
    assert [part.read_bytes() for part in parts[0]] == [part.read_bytes() for part in parts[1]]


def test_a_shard_that_kills_every_worker_ends_the_run_and_the_others_are_kept(pool, tmp_path, capsys):
    mortal = partial(engine_work.squared_by_mortals, flag=str(tmp_path / "deaths"), deaths=99)
    with pytest.raises(WorkerLostError, match=r"^work: (shard 3|one of the shards .*3.*) lost the process") as error:
        run(mortal, [0, 1, 2], tmp_path / "work", pool)
    names(error.value, "3 times", "replicas", "batch_size", "shard_size", "experiments/execution.yaml", "shards")
    assert 0 < (tmp_path / "deaths").stat().st_size <= 3  # Ray's worker can be lost before it takes up the shard
    capsys.readouterr()
    assert run(engine_work.squared, [0, 1, 2], tmp_path / "work").equals(
        run(engine_work.squared, [0, 1, 2], tmp_path / "here")
    )
    names(capsys.readouterr().out, "work: ", "of 3 shards")


def test_workers_are_other_processes_that_stand_in_the_same_folder(pool, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = run(engine_work.whose, range(20), tmp_path / "work", pool)
    assert found["n"].to_list() == list(range(20))
    assert os.getpid() not in found["process"]
    assert found["folder"].unique().to_list() == [str(tmp_path)]
    for process in found["process"].unique():
        give_up = time.monotonic() + 20
        while Path(f"/proc/{process}").exists() and "Z" not in Path(f"/proc/{process}/stat").read_text().split()[2]:
            assert time.monotonic() < give_up, "a worker outlived its work"
            time.sleep(0.05)


def test_an_error_of_the_work_itself_comes_as_it_was_raised_and_is_not_tried_again(pool, tmp_path):
    with pytest.raises(TableError) as error:
        run(engine_work.refused, [7], tmp_path / "work", pool)
    assert str(error.value) == "row 7 is wrong. Run `dvc repro`."


def test_a_model_is_loaded_once_a_process_and_never_travels(pool, tmp_path):
    log = tmp_path / "loads"
    model = lazy(engine_work.loading, str(log))
    model()  # a function inside a function: it could not travel
    assert run(ModelTask(model, engine_work.counted), range(12), tmp_path / "work", pool)["n"].to_list() == list(
        range(1, 13)
    )
    loads = log.read_text().split()
    assert len(loads) == len(set(loads)) <= 3


# --- one process ---


def test_one_process_is_no_pool(monkeypatch):
    assert pool_of(HERE) is None
    assert pool_of(HERE.model_copy(update={"replicas": "auto"})) is None
    assert isinstance(pool_of(TWO), ProcessPool)


def test_strict_gives_a_model_one_row_at_a_time():
    assert HERE.rows_at_once == 1
    assert HERE.model_copy(update={"batch_invariant": False}).rows_at_once == 8


def test_finished_shards_wait_on_disk_for_those_before_them(tmp_path):
    class Backwards:
        def run(self, function, tasks, *, label):
            yield from [(number, function(task)) for number, task in tasks][::-1]

    found = map_tasks([4, 5, 6], engine_work.squared, folder=tmp_path, label="work", pool=Backwards())
    assert next(found)["n"].to_list() == [4]
    assert len(list(tmp_path.glob("part-*.sha256"))) == 3
    assert [frame["n"][0] for frame in found] == [5, 6]


def test_a_model_of_other_units_is_refused_where_it_is_loaded(tmp_path):
    other = CONTRACT.model_copy(update={"codebook_sha256": "11"})
    save_lm(tiny_lm().model, VOCABULARY, CONTRACT, tmp_path / "base")
    model = with_contract(
        lazy(load_lm, tmp_path / "base", device="cpu"), other, mine=Path("mine"), theirs=Path("theirs")
    )
    assert isinstance(model, LazyModel)
    with pytest.raises(ContractError) as raised:
        model()
    names(raised.value, "codebook_sha256", "'00' in mine", "'11' in theirs")


PARENT = """
import sys
from functools import partial
from pathlib import Path
from alignslm.engine.local import ProcessPool
from alignslm.shards import map_tasks
from tests.engine_work import whose
if __name__ == "__main__":
    pool = ProcessPool(2, gpus=[], batch_invariant=True)
    for frame in map_tasks(range(9), whose, folder=Path(sys.argv[1]), label="work", pool=pool):
        print(frame["process"][0], flush=True)
        sys.stdin.readline()
"""


def test_workers_end_with_a_parent_that_is_killed(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    command = [sys.executable, str(script), str(tmp_path / "work")]
    parent = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    worker = int(parent.stdout.readline())
    assert worker != parent.pid
    parent.send_signal(signal.SIGKILL)
    parent.communicate()
    give_up = time.monotonic() + 20
    while Path(f"/proc/{worker}").exists() and Path(f"/proc/{worker}/stat").read_text().split()[2] != "Z":
        assert time.monotonic() < give_up
        time.sleep(0.05)


# --- what is not there ---


def test_a_cluster_too_small_is_told(ray_address):
    wide = TWO.model_copy(update={"engine": "ray", "ray_address": ray_address, "replicas": 5})
    with pytest.raises(EngineError) as error:
        pool_of(wide)
    names(error.value, "replicas", "5", "Ray", "4", "0 GPUs", "2 CPUs", "experiments/execution.yaml")
    with pytest.raises(EngineError) as raised:
        pool_of(wide.model_copy(update={"device": "cuda"}))
    names(raised.value, "cuda", "Ray", "GPU", "device: auto")


@pytest.mark.parametrize("address", ["127.0.0.1:1", "auto"])
def test_without_a_cluster_the_command_that_starts_one_is_named(monkeypatch, address):
    ray = pytest.importorskip("ray")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(EngineError) as error:
        ray_cluster.connect(address)
    names(
        error.value,
        "Connection refused",
        "ray start --head",
        "ray start --address=HOST:6379",
        "engine: local",
        "Ray",
        "127.0.0.1:1",
        "ray_address",
        "RAY_ADDRESS",
        "HOST:PORT",
        "experiments/execution.yaml",
    )
