"""Rows on threads: in order, whatever the number, and with NumPy's own threads out of the way."""

import threading
import time

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from alignslm.threads import thread_map


def blas_threads(_: object) -> set[int]:
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


@pytest.mark.parametrize("threads", [None, 1, 3])
def test_rows_keep_their_order_whichever_is_done_first(threads):
    def slowly(row: int) -> int:
        time.sleep(0.01 * (5 - row))
        return row * row

    assert thread_map(slowly, range(5), threads=threads) == [0, 1, 4, 9, 16]


def test_matrix_products_have_one_thread_inside_and_what_they_had_outside():
    np.ones((2, 2)) @ np.ones((2, 2))
    before = blas_threads(None)
    assert before
    assert thread_map(blas_threads, [None, None], threads=2) == [{1}, {1}]
    assert blas_threads(None) == before


def test_every_thread_is_entered_once_before_its_first_row():
    entered: list[int] = []
    barrier = threading.Barrier(2)

    def row(_: int) -> int:
        barrier.wait(timeout=10)  # both threads are at work
        return threading.get_ident()

    rows = thread_map(row, range(4), threads=2, enter=lambda: entered.append(threading.get_ident()))
    assert sorted(entered) == sorted(set(rows))


def test_an_error_of_a_row_is_raised():
    with pytest.raises(ZeroDivisionError):
        thread_map(lambda row: 1 // row, [1, 0], threads=2)
