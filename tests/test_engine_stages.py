"""Real stages through the engines: the same bytes by one process, two processes, and two actors of a real Ray.

Every process or actor costs a start of torch, so not every stage goes through both (units through actors:
test_engine_machines.py). What the engines do to any shard is in test_engine.py.
"""

import hashlib
import importlib
from functools import partial

import pytest

from alignslm.config.execution import Execution
from alignslm.engine.local import ProcessPool
from alignslm.engine.ray_cluster import RayPool
from tests import engine_work, engine_world
from tests.engine_settings import HERE, TWO, loopback_ray
from tests.messages import names

STAGES = {
    "units": "units.parquet",
    "prompt_transcripts": "prompt_transcripts.parquet",
    "continuations r1": "continuations/r1.parquet",
    "speech r1": "speech/r1/*.parquet",
    "transcripts r1": "transcripts/r1.parquet",
    "scores r1": "[rs][ec]*/r1.parquet",  # scores, and replies
    "samples r1": "samples/r1/**/*.parquet",
    "samples base": "samples/base/**/*.parquet",
    "samples ground-truth": "samples/ground-truth/**/*.parquet",
    "eval base": "eval/base/*.parquet",
    "mos": "mos/*.parquet",
}
"""In the order of the pipeline, with what each makes, below artifacts/."""


@pytest.fixture(scope="module")
def ray_address():
    with loopback_ray() as address:
        yield address


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return engine_world.make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def alone(made):
    with pytest.MonkeyPatch.context() as patch:
        return run_stages(made, HERE, patch, *STAGES)


@pytest.fixture
def pooled(monkeypatch):
    """The labels of what was given to a pool."""
    labels = []
    for pool in (ProcessPool, RayPool):
        monkeypatch.setattr(pool, "run", spied(pool.run, labels))
    return labels


def spied(run, labels):
    def noting(self, function, tasks, *, label):
        labels.append(label)
        return run(self, function, tasks, label=label)

    return noting


def tables_of(root, stage: str) -> list:
    return sorted(root.glob(f"artifacts/{STAGES[stage]}"))


def run_stages(root, execution: Execution, monkeypatch, *stages: str) -> dict[str, str]:
    """Run stages in `root` under these settings; return the hash of every table that there is then."""
    monkeypatch.chdir(root)
    for old in [path for stage in stages for path in tables_of(root, stage)]:
        old.unlink()
    engine_world.edit_yaml(root / "experiments/execution.yaml", execution.model_dump())
    for stage in stages:
        name, *arguments = stage.split()
        importlib.import_module(f"stages.{name}").main(*arguments)
        assert tables_of(root, stage)
    assert not list(root.glob(".work/**/part-*"))
    files = [path for stage in STAGES for path in tables_of(root, stage)]
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def mortal(monkeypatch, module: str, name: str, flag) -> None:
    """Let the worker that comes third to a stage's function of a shard kill itself instead."""
    stage = importlib.import_module(module)
    monkeypatch.setattr(stage, name, partial(engine_work.third_dies, getattr(stage, name), flag=str(flag)))


def test_other_shards_and_batches_change_nothing_in_one_process(made, alone, monkeypatch):
    assert run_stages(made, HERE.model_copy(update={"shard_size": 4, "batch_size": 1}), monkeypatch, *STAGES) == alone
    assert len(alone) == 24


def test_two_processes_make_the_bytes_of_one(made, alone, monkeypatch, pooled):
    done = run_stages(made, TWO, monkeypatch, "continuations r1")
    assert done == alone
    assert pooled == ["continuations@r1"]


@pytest.mark.long
def test_two_processes_make_the_bytes_of_one_though_one_is_killed(made, alone, monkeypatch, pooled, tmp_path, capsys):
    mortal(monkeypatch, "stages.samples", "synthesize_rows", tmp_path / "calls")
    done = run_stages(made, TWO, monkeypatch, "units", "prompt_transcripts", "speech r1", "samples base", "mos")
    assert done == alone
    drawn, spoken, heard = (f"samples@base {what}" for what in ("drawn", "spoken", "heard"))
    assert pooled == ["units", "prompt_transcripts", "speech@r1", drawn, spoken, heard, "mos"]
    assert f"{spoken}: a worker was lost; " in capsys.readouterr().out


@pytest.mark.long
def test_two_actors_of_a_ray_make_the_bytes_of_one_process_though_one_is_killed(
    made, alone, monkeypatch, pooled, tmp_path, ray_address, capsys
):
    mortal(monkeypatch, "stages.eval", "_score", tmp_path / "calls")
    actors = TWO.model_copy(update={"engine": "ray", "ray_address": ray_address})
    done = run_stages(made, actors, monkeypatch, "transcripts r1", "scores r1", "eval base")
    assert done == alone
    evaluated = [f"eval@base {what}" for what in ("sound", "judge_score", "heldout_judge_score", "items")]
    assert pooled == ["transcripts@r1", "scores@r1", *evaluated]
    names(capsys.readouterr().out, "eval@base items", "worker", "shard")
