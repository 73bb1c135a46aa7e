"""The order in which files of tests begin."""

import pytest

# Each takes minutes and a whole worker: begun last, it would leave the other workers idle.
LONGEST = ("test_kill_ten.py", "test_pipeline_runs.py", "test_pipeline_paper.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first; all else keeps its order."""
    items.sort(key=lambda item: item.path.name not in LONGEST)
