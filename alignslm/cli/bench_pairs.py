"""`alignslm bench pairs`: time and memory of selection on simulated tables of any size."""

from pathlib import Path

from alignslm.bench.pairs import run, told

DRAWS = 5  # the paper's


def print_pairs(continuations: int, *, every_metric: bool, root: Path) -> None:
    """Simulate, select, and print what was measured."""
    measured = run(continuations, draws=DRAWS, seed=0, ranked=every_metric, root=root)
    for line in told(measured):
        print(line)
