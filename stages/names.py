"""The name of what a process is to make, of a stage that makes many things."""

import os
import sys
from typing import NoReturn


def requested_name() -> str:
    """Return the name that this process is to make: its argument, or the part behind the @ of DVC's stage.

    It never stands in a command, so no shell reads what a params.yaml calls it.
    """
    if len(sys.argv) > 1:
        return sys.argv[1]
    name = os.environ.get("DVC_STAGE", "").partition("@")[2]
    return name or _no_name()


def _no_name() -> NoReturn:
    sys.exit(f"Name the item: python -m {sys.orig_argv[2]} NAME, such as r1. `alignslm stages` lists all stages.")
