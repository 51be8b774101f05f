"""The thread control: its limits, its errors, and that it touches nobody else's threads."""

from __future__ import annotations

import numba
import numpy as np
import pytest

from minidnn.kernels import jit, prelu
from minidnn.threads import max_threads, num_threads, set_num_threads


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jit, "_threads", None)


def test_starts_with_all_and_keeps_what_is_set() -> None:
    assert num_threads() == max_threads() >= 1
    set_num_threads(1)
    assert num_threads() == 1


@pytest.mark.parametrize("n", [0, -1, 10**6])
def test_refuses_counts_out_of_range_and_says_how_to_get_more(n: int) -> None:
    with pytest.raises(ValueError, match=f"expected 1 to {max_threads()}, got {n}.*NUMBA_NUM_"):
        set_num_threads(n)
    assert num_threads() == max_threads()


def test_leaves_the_threads_of_other_numba_code_alone() -> None:
    before = numba.get_num_threads()
    set_num_threads(1)
    prelu.forward(np.ones((4, 3), np.float32), np.ones(3, np.float32))
    assert numba.get_num_threads() == before
