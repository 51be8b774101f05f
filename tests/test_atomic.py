"""Numbers that threads share: everyone takes another one, and who waits sees what was written."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from minidnn.kernels.atomic import give, take, wait_for
from minidnn.kernels.jit import kernel

pytestmark = pytest.mark.skipif(
    os.environ.get("NUMBA_DISABLE_JIT", "0") != "0", reason="these functions have no Python form"
)
SIZE = 1000


@kernel
def _take_many(counter: Any, taken: Any) -> None:
    for i in range(taken.size):
        taken[i] = take(counter.ctypes.data)


@kernel
def _write_and_give(counter: Any, n: int, data: Any) -> None:
    data[:] = n
    give(counter.ctypes.data, n)


@kernel
def _wait_and_read(counter: Any, n: int, data: Any) -> Any:
    wait_for(counter.ctypes.data, n)
    return data.sum()


def test_no_two_threads_take_the_same_number() -> None:
    counter, taken = np.zeros(1, np.int64), np.empty((4, SIZE), np.int64)
    _take_many(counter, taken[0])  # compiled
    counter[0] = 0
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda row: _take_many(counter, row), taken))
    assert np.array_equal(np.sort(taken.ravel()), np.arange(4 * SIZE))


@pytest.mark.parametrize("delay", [0, 0.05])  # seconds: before SPINS are over, and after
def test_who_waited_sees_what_was_written_before(delay: float) -> None:
    counter, data = np.zeros(1, np.int64), np.zeros(SIZE, np.int64)
    _write_and_give(counter, 3, data)
    assert _wait_and_read(counter, 3, data) == 3 * SIZE  # compiled
    counter[0] = 0
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(_wait_and_read, counter, 7, data)
        time.sleep(delay)
        _write_and_give(counter, 7, data)
        assert waiting.result(timeout=30) == 7 * SIZE
