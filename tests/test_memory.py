"""The arena hands memory out again when, and only when, nothing refers to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from minidnn.kernels import memory

SHAPE = (3, 1 << 18)  # 3 MiB of float32


@pytest.fixture(autouse=True)
def _fresh_arena() -> Iterator[None]:
    memory.release()
    yield
    memory.release()


def _address(a: NDArray[Any]) -> int:
    return int(a.ctypes.data)


def test_memory_of_a_deleted_array_is_used_again() -> None:
    a = memory.empty(SHAPE, np.float32)
    where = _address(a)
    del a
    assert _address(memory.empty(SHAPE, np.float32)) == where


def test_similar_shapes_share_blocks_and_other_dtypes_too() -> None:
    a = memory.empty(SHAPE, np.float32)
    where = _address(a)
    del a
    assert _address(memory.empty((3, (1 << 17) - 5), np.float64)) == where


@pytest.mark.parametrize(
    "keep",
    [
        lambda a: a[1:, ::2],
        lambda a: a.reshape(-1),
        lambda a: a.T,
        lambda a: memoryview(a),
        lambda a: lambda: a.sum(),
    ],
    ids=["slice", "reshape", "transpose", "memoryview", "closure"],
)
def test_a_view_or_closure_keeps_its_block(keep: Callable[[NDArray[Any]], object]) -> None:
    a = memory.empty(SHAPE, np.float32)
    where, kept = _address(a), keep(a)
    del a
    other = memory.empty(SHAPE, np.float32)
    assert _address(other) != where
    del kept, other
    assert memory.idle_bytes() > 0


def test_blocks_are_aligned_writable_contiguous_and_of_the_right_shape() -> None:
    for shape in ((1 << 19,), (7, 11, 13, 1021), (2, 1 << 20)):
        a = memory.empty(shape, np.float32)
        assert a.shape == shape
        assert a.dtype == np.float32
        assert a.flags.c_contiguous
        assert a.flags.writeable
        assert _address(a) % memory.ALIGNMENT == 0


def test_small_arrays_do_not_pass_through_the_arena() -> None:
    a = memory.empty((5, 5), np.float32)
    del a
    assert memory.idle_bytes() == 0


def test_idle_memory_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory._arena, "limit", 8 << 20)
    arrays = [memory.empty(SHAPE, np.float32) for _ in range(5)]
    del arrays
    assert 0 < memory.idle_bytes() <= 8 << 20


def test_two_live_arrays_never_overlap() -> None:
    for _ in range(3):
        a, b = memory.empty(SHAPE, np.float32), memory.empty(SHAPE, np.float32)
        a.fill(1)
        b.fill(2)
        assert (a == 1).all()
        assert (b == 2).all()
