"""Commands in front of a terminal."""

import contextlib
import os
import pty
import subprocess
from pathlib import Path
from typing import IO

ROOT = Path(__file__).parent.parent


def on_a_terminal(*command: str, cwd: Path = ROOT, stdout: IO[bytes] | None = None) -> bytes:
    """Return what a command that succeeds writes to a terminal, read to its end: all, or all but its `stdout`."""
    mine, its = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "200"}
    streams = {"stdin": its, "stdout": stdout or its, "stderr": its}
    with subprocess.Popen(command, cwd=cwd, env=environment, **streams) as process:
        os.close(its)
        said = b""
        with contextlib.suppress(OSError):  # Linux's way to say that the other end was closed
            while block := os.read(mine, 1 << 16):
                said += block
    os.close(mine)
    assert process.returncode == 0, said
    return said
