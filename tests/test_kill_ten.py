"""Minutes, not seconds: run with `pytest -m long -s tests/test_kill_ten.py` to see it work.

Six of the ten kills that `python -m tests.kill_ten` makes, for each costs a start of DVC and of every library.
"""

import pytest

from tests import kill_ten


@pytest.mark.long
def test_stages_killed_at_random_moments_end_in_the_bytes_of_a_run_from_nothing(tmp_path):
    assert kill_ten.main(0, tmp_path, kills=6) == []
