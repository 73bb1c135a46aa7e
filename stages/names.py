"""The item that a process makes, in a stage of many items."""

import os
import sys
from typing import NoReturn


def requested_name() -> str:
    """Return the item that this process makes: its argument, or the part after the @ of DVC's stage.

    No command contains it, so no shell interprets a name of params.yaml.
    """
    if len(sys.argv) > 1:
        return sys.argv[1]
    name = os.environ.get("DVC_STAGE", "").partition("@")[2]
    return name or _no_name()


def _no_name() -> NoReturn:
    sys.exit(f"Name the item: python -m {sys.orig_argv[2]} NAME, such as r1. `alignslm stages` lists all stages.")
