"""The order in which files of tests begin."""

import pytest

# Each takes minutes and a whole worker: begun last, it would leave the other workers idle.
LONGEST = ("test_kill_ten.py", "test_pipeline_runs.py", "test_pipeline_paper.py")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the longest files first; leave out tests with published weights unless they are asked for by their mark."""
    if "real" not in config.option.markexpr:
        unasked = [item for item in items if item.get_closest_marker("real")]
        config.hook.pytest_deselected(items=unasked)
        items[:] = [item for item in items if item not in unasked]
    items.sort(key=lambda item: item.path.name not in LONGEST)
