"""Two processes that train together on loopback (gloo): one process's result, and a killed one taken up again."""

import os
import re
import signal
import threading
import time
from pathlib import Path

import polars as pl
import pytest
from safetensors.torch import load_file

from alignslm import tables
from alignslm.artifacts import Artifacts
from alignslm.device import resolve_device
from alignslm.lm.checkpoint import save_lm
from alignslm.provenance import file_sha256
from alignslm.training.processes import ProcessesError, _require, is_main_process, start_processes
from stages import train as train_stage
from tests.engine_world import edit_yaml
from tests.messages import names
from tests.sample_experiment import write_experiment
from tests.test_training import pairs
from tests.tiny_lm import CONTRACT, VOCABULARY, tiny_lm

pytestmark = pytest.mark.long

ROOT = Path(__file__).parent.parent
TRAINER = {"max_steps": 40, "batch_size": 4, "num_evals": 4, "min_pairs": 4, "learning_rate": 1e-2}
SHARED = "artifacts/checkpoints/base: 2 processes share its 22112 parameters, the first holds 11088\n"
TOLERANCE = 1e-4  # of a weight: gradients of two halves are added in another order than those of one whole


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A round's pairs and base model; 16 training pairs, whole batches of 4."""
    root = tmp_path_factory.mktemp("world")
    write_experiment(root)
    edit_yaml(root / "experiments/trainer/dpo.yaml", TRAINER)
    Artifacts(root / "artifacts").checked.parent.mkdir()
    Artifacts(root / "artifacts").checked.write_text("params.yaml is valid\n")
    lm = tiny_lm()
    save_lm(lm.model, VOCABULARY, CONTRACT, Artifacts(root / "artifacts").checkpoint("base"))
    drawn = pairs(21).with_row_index("number")
    named = {"pair_id": "p", "prompt_id": "q", "chosen_id": "c", "rejected_id": "r"}
    numbered = pl.col("number") + 10
    names = [pl.format("{}{}", pl.lit(letter), numbered).alias(column) for column, letter in named.items()]
    scores = [pl.lit(1.0).alias(name) for name in ("chosen_utility", "rejected_utility", "margin")]
    tables.write(
        drawn.with_columns(*names, *scores), tables.PAIRS, Artifacts(root / "artifacts").table("pairs", "r1"), CONTRACT
    )
    return root


def train(world, monkeypatch, processes: int, sharding: str = "none") -> tuple[dict, dict[str, str]]:
    """Run the stage; return the weights and the hash of every file that it published."""
    monkeypatch.chdir(world)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    edit_yaml(world / "experiments/execution.yaml", {"num_processes": processes, "fsdp": sharding})
    train_stage.main("r1")
    files = sorted(file for file in Artifacts().checkpoint("r1").rglob("*") if file.is_file())
    made = {str(file): file_sha256(file) for file in files}
    log = Artifacts().training("r1").read_text()
    assert not list(Path(".work").glob("train-*/*/*"))
    return load_file(Artifacts().checkpoint("r1") / "model.safetensors"), made | {"log": log}


@pytest.fixture(scope="module")
def alone(world):
    with pytest.MonkeyPatch.context() as patch:
        return train(world, patch, 1)


@pytest.fixture(scope="module")
def of_two(world, alone):
    """What two processes make: each with the whole model, and each with a part of it."""
    with pytest.MonkeyPatch.context() as patch:
        return {sharding: train(world, patch, 2, sharding) for sharding in ("none", "full_shard")}


@pytest.mark.parametrize("sharding", ["none", "full_shard"])
def test_two_processes_end_where_one_does(alone, of_two, sharding):
    before = tiny_lm().model.state_dict()
    found = of_two[sharding][0]
    assert alone[0].keys() == found.keys()
    moved = max(float((alone[0][name] - before[name]).abs().max()) for name in alone[0])
    apart = max(float((alone[0][name] - found[name]).abs().max()) for name in alone[0])
    assert moved > 100 * TOLERANCE
    assert apart < TOLERANCE


def test_sharing_a_model_changes_no_byte_of_what_is_published(of_two):
    assert of_two["full_shard"][1] == of_two["none"][1]


def kill_second(root: Path, killed: list[int]) -> None:
    """Kill the second process as soon as a checkpoint is sealed."""
    give_up = time.monotonic() + 200
    while not list(root.glob(".work/train-r1/*/sealed-*")):
        assert time.monotonic() < give_up
        time.sleep(0.002)
    for folder in Path("/proc").glob("[0-9]*"):
        if is_second(folder):
            killed.append(int(folder.name))
            os.kill(killed[-1], signal.SIGKILL)


def is_second(folder: Path) -> bool:
    try:
        parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        return parent == os.getpid() and b"\0RANK=1\0" in (folder / "environ").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize("sharding", ["none", "full_shard"])
def test_a_killed_process_is_started_again_and_ends_in_the_same_bytes(world, of_two, sharding, monkeypatch, capfd):
    killer = threading.Thread(target=kill_second, args=(world, killed := []))
    killer.start()
    _, again = train(world, monkeypatch, 2, sharding)
    killer.join()
    said = capfd.readouterr().out
    assert len(killed) == 1
    assert re.search(r"stages.train: process \d of 2 was lost \(SIG(KILL|ABRT)\), attempt 1 of 3", said)
    assert re.search(r"training goes on after step \d+ of an interrupted run", said)
    assert said.count("train@r1: 21 pairs in, 40 steps out") == 1
    assert again == of_two[sharding][1]
    assert (SHARED in said) == (sharding == "full_shard")


def test_the_number_of_processes_must_be_the_one_asked_for(monkeypatch):
    assert not start_processes("stages.base", [], processes=1)
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert not start_processes("stages.base", [], processes=4)
    with pytest.raises(ProcessesError) as error:
        _require(4, 2)
    names(error.value, "4", "WORLD_SIZE", "num_processes", "2", "experiments/execution.yaml", "torchrun")


def test_every_process_has_its_own_gpu_and_one_writes(monkeypatch):
    assert resolve_device("cuda") == "cuda"
    assert is_main_process()
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("RANK", "9")
    assert resolve_device("cuda") == "cuda:1"
    assert resolve_device("cpu") == "cpu"
    assert not is_main_process()
