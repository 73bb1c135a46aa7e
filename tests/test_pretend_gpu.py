"""What runs on a GPU mixes no devices, and waits for nothing in a captured step: on a pretended one."""

import subprocess
import sys

from tests.micro import ROOT


def test_it_runs_on_a_pretended_gpu():
    """In a process of its own: torch has its further device to the end of the process."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests/cases_on_a_pretend_gpu.py"]
    done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
