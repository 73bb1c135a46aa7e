"""Sweeps: one DVC experiment per combination of values, each from the committed state, and one table of them.

DVC's own queue stashes and resets the workspace for every experiment that is queued, hands runs to workers that outlive
the terminal, and cannot see what git does not track. So the runs are made one after the other in a clone below .work/,
by `dvc exp run`, and fetched: what remains are DVC's ordinary experiments, and the workspace is never touched.
"""


class SweepError(ValueError):
    """A sweep cannot be run as requested."""
