"""Settings of the engines under test, and a Ray on loopback."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from alignslm.config.execution import Execution

HERE = Execution(
    device="cpu",
    engine="local",
    ray_address="auto",
    replicas=1,
    num_workers=1,
    batch_size=8,
    shard_size=100,
    batch_invariant=True,
    num_processes=1,
    fsdp="none",
)
TWO = HERE.model_copy(update={"replicas": 2, "shard_size": 2, "batch_size": 3})
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}  # no tokens, no usage figures sent
STORE_BYTES = 80 * 2**20  # of a Ray's objects
LOOPBACK = ("127.0.0.2", "127.0.0.3")  # for 127.0.0.1 Ray takes an address that others see


@contextmanager
def loopback_ray() -> Iterator[str]:
    """Run a Ray of two cores; give its address."""
    os.environ |= QUIET
    import ray

    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp") as place:  # sockets: a path of 107 letters at most
        context = ray.init(
            num_cpus=2,
            include_dashboard=False,
            object_store_memory=STORE_BYTES,
            _temp_dir=place,
            _node_ip_address=LOOPBACK[0],
            logging_level="ERROR",
        )
        yield context.address_info["gcs_address"]
        ray.shutdown()
