"""Two machines of a real Ray, each with an address of its own on loopback, and the loss of one in the middle."""

import os
import signal
import socket
import subprocess
import tempfile
import threading
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from alignslm.artifacts import Artifacts
from alignslm.provenance import file_sha256
from stages import units
from tests import engine_work, engine_world
from tests.engine_settings import HERE, LOOPBACK, QUIET, STORE_BYTES

pytestmark = pytest.mark.long

START_S = 60.0


def wait_until(done) -> None:
    give_up = time.monotonic() + START_S
    while not done():
        assert time.monotonic() < give_up
        time.sleep(0.05)


@contextmanager
def machine(address: str, *options: str):
    """Run `ray start`, as the documentation has it; kill whatever it started at the end."""
    command = ("ray", "start", "--block", "--num-cpus=1", f"--object-store-memory={STORE_BYTES}")
    process = subprocess.Popen(
        (*command, f"--node-ip-address={address}", *options),
        env={**os.environ, **QUIET},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        lose(process)


def lose(process) -> None:
    """Kill a machine: all at once, nothing told to anybody."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait()


def answers(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, timeout=1).close()
    except OSError:
        return False
    return True


@pytest.fixture
def cluster(monkeypatch):
    """A Ray of two machines: its address, the second one's process and node id."""
    import ray

    for name, value in QUIET.items():
        monkeypatch.setenv(name, value)
    with socket.socket() as found:
        found.bind((LOOPBACK[0], 0))
        address = found.getsockname()
    joined = f"{address[0]}:{address[1]}"
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp") as place:  # sockets: a path of 107 letters at most
        head = (LOOPBACK[0], "--head", f"--port={address[1]}", "--include-dashboard=false", f"--temp-dir={place}")
        with machine(*head):
            wait_until(partial(answers, address))
            with machine(LOOPBACK[1], f"--address={joined}") as other:
                ray.init(address=joined, logging_level="ERROR", _node_ip_address=LOOPBACK[0])
                wait_until(lambda: len(ray.nodes()) == len(LOOPBACK))
                ids = {node["NodeManagerAddress"]: node["NodeID"] for node in ray.nodes()}
                yield joined, other, ids[LOOPBACK[1]]
                ray.shutdown()


def make_units(root: Path, execution) -> str:
    engine_world.edit_yaml(root / "experiments/execution.yaml", execution.model_dump())
    units.main()
    assert not list(Path(".work").rglob("part-*"))
    return file_sha256(Artifacts().units)


# Ray takes some twenty seconds to declare a machine dead. Were that shortened here, its own retries would do, and the
# test would show nothing.
def test_a_machine_lost_in_the_middle_has_its_shards_redone_by_the_others(tmp_path, monkeypatch, cluster, capsys):
    address, other, doomed = cluster
    root = engine_world.make_world(tmp_path)
    monkeypatch.chdir(root)
    alone = make_units(root, HERE)
    Artifacts().units.unlink()
    stuck = partial(engine_work.stuck, units.encode_utterances, machine=doomed, flags=str(tmp_path))
    monkeypatch.setattr(units, "encode_utterances", stuck)
    threading.Thread(target=lambda: (wait_until((tmp_path / "stuck").exists), lose(other)), daemon=True).start()
    settings = {"engine": "ray", "ray_address": address, "replicas": "auto", "shard_size": 2}
    assert make_units(root, HERE.model_copy(update=settings)) == alone
    assert len(list(tmp_path.glob("*-first"))) == len(LOOPBACK)  # `auto` put a replica on either, and both worked
    assert "units: a worker was lost; shard" in capsys.readouterr().out
