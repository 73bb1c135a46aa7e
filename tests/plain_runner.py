"""Run dvc.yaml without DVC: every stage once, each after those whose outputs it reads.

    python -m alignslm.speed python -m tests.plain_runner

A stage finds its name in DVC_STAGE, as under DVC.
"""

import os
import shlex
import subprocess
import sys

from alignslm.pipeline import read_stages


def main() -> None:
    """Run the stages of the current folder."""
    for stage in read_stages():
        print(stage.name, flush=True)
        subprocess.run(shlex.split(stage.cmd), env={**os.environ, "DVC_STAGE": stage.name}, check=True)
    assert not [name for name in sys.modules if name.partition(".")[0] == "dvc"]


if __name__ == "__main__":
    main()
