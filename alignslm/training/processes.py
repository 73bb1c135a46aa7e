"""Several processes that train one model together: started here through torch's own launcher, or by torchrun."""

import os
import sys
from collections.abc import Sequence
from datetime import timedelta

import torch
from torch import distributed

from alignslm.machine import cores
from alignslm.storage import temporary_folder
from alignslm.user_errors import report_user_errors

PATIENCE = timedelta(hours=12)  # the others wait while the first has a rollout judged; a lost process ends all at once
ATTEMPTS = 3  # a run that loses a process to a signal resumes from its last checkpoint, this many times in all


class ProcessesError(ValueError):
    """The processes that train together are not those asked for, or one of them was lost."""


def is_main_process() -> bool:
    """Return whether this process writes: the only one, or the first of several."""
    return os.environ.get("RANK", "0") == "0"


def num_processes() -> int:
    """Return how many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def wait_for_everyone() -> None:
    """Wait until every training process has reached this call; does nothing if there is only one.

    Call it before reading what the first process writes. Joins the process group on first use.
    """
    if num_processes() == 1:
        return
    if not distributed.is_initialized():
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo", timeout=PATIENCE)
    distributed.barrier()


def start_processes(module: str, arguments: Sequence[str], *, processes: int) -> bool:
    """Run `python -m module arguments` in several processes if configured and not done yet.

    Returns True when they have done the work, False if this process has to do it: alone, or as one of `processes`
    that torchrun or this function started. A run that loses a process to a signal is restarted and resumes from
    its last checkpoint. Ends the program with a message if the number of processes differs, or one is lost too
    often.
    """
    with report_user_errors():
        return _start(module, arguments, processes=processes)


def _start(module: str, arguments: Sequence[str], *, processes: int) -> bool:
    if "WORLD_SIZE" in os.environ:
        _require(int(os.environ["WORLD_SIZE"]), processes)
        return False
    if processes == 1:
        return False
    for attempt in range(1, ATTEMPTS + 1):
        lost = _launch(module, arguments, processes=processes)
        if lost is None:
            return True
        print(f"{module}: {lost}, attempt {attempt} of {ATTEMPTS}; finished checkpoints are kept", flush=True)
    raise ProcessesError(
        f"{module}: {lost}, {ATTEMPTS} times. Was it killed, or is memory too small? Lower micro_batch_size in the "
        "trainer's YAML or num_processes in experiments/execution.yaml and run the same command again."
    )


def _require(world: int, processes: int) -> None:
    if world != processes:
        raise ProcessesError(
            f"{world} processes train together (WORLD_SIZE), but num_processes is {processes} in "
            "experiments/execution.yaml; make the two equal, or leave torchrun out and let the stage start them"
        )


def _launch(module: str, arguments: Sequence[str], *, processes: int) -> str | None:
    """Run the processes to their end. Returns which one was lost to a signal, None if all succeeded.

    A process that failed by itself has printed its error: then this one ends with its status.
    """
    from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # One thread a process unless more are asked for: more than there are cores is slower than one.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores() // processes)))
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=f"{module}-{os.getpid()}",
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        local_addr="127.0.0.1",
        max_restarts=0,
    )
    try:
        with temporary_folder() as logs:
            config.logs_specs = DefaultLogsSpecs(log_dir=logs)
            elastic_launch(config, sys.executable)("-m", module, *arguments)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode < 0:
            return f"process {rank} of {processes} was lost ({failure.signal_name()})"
        raise SystemExit(failure.exitcode) from None
    return None
