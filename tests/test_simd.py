"""Vectors as values: each operation lane by lane, NaN included."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minidnn.kernels import memory, simd
from minidnn.kernels.checks import InputError
from minidnn.kernels.jit import kernel

NAN = np.float32(np.nan)


@kernel
def _each(a: Any, b: Any, c: Any, scalar: Any, codes: Any, y: Any) -> None:
    """a, b, c (LANES,) -> y (11, LANES), a row per operation."""
    u, v, w = simd.load(a.ctypes.data), simd.load(b.ctypes.data), simd.load(c.ctypes.data)
    simd.store(simd.zero(), y[0].ctypes.data)
    simd.store(simd.splat(scalar), y[1].ctypes.data)
    simd.store(simd.add(u, v), y[2].ctypes.data)
    simd.store(simd.multiply(u, v), y[3].ctypes.data)
    simd.store(simd.multiply_add(u, v, w), y[4].ctypes.data)
    simd.store(simd.maximum(u, v), y[5].ctypes.data)
    simd.store(simd.where_positive(u, v, w), y[6].ctypes.data)
    simd.store(u, y[7].ctypes.data)
    simd.store(simd.subtract(u, v), y[8].ctypes.data)
    simd.store(simd.where_beaten(u, v, w, u), y[9].ctypes.data)
    byte = simd.splat_byte(np.uint8(7))
    simd.store(simd.where_equal(byte, simd.load_bytes(codes.ctypes.data), v, w), y[10].ctypes.data)
    simd.prefetch(y.ctypes.data)
    simd.prefetch(0)


@kernel
def _total(a: Any) -> float:
    return simd.total(simd.load(a.ctypes.data))  # type: ignore[no-any-return]


@kernel
def _highest(a: Any) -> float:
    return simd.highest(simd.load(a.ctypes.data))  # type: ignore[no-any-return]


@kernel
def _powers(a: Any, y: Any) -> None:
    simd.store(simd.power_of_two(simd.load(a.ctypes.data)), y.ctypes.data)


@kernel
def _beaten_bytes(a: Any, b: Any, x: Any, y: Any) -> None:
    u, v = simd.load(a.ctypes.data), simd.load(b.ctypes.data)
    other = simd.splat_byte(np.uint8(250))
    simd.store_bytes(simd.where_beaten(u, v, other, simd.load_bytes(x.ctypes.data)), y.ctypes.data)


def _drawn() -> tuple[Any, ...]:
    rng = np.random.default_rng(5)
    # One number further on than memory is aligned: any address will do.
    a, b, c = (rng.standard_normal(simd.LANES + 1).astype(np.float32)[1:] for _ in range(3))
    a[0], b[1], a[2] = NAN, NAN, 0
    return a, b, c


def test_operations_work_lane_by_lane() -> None:
    a, b, c = _drawn()
    codes = np.arange(5, 5 + simd.LANES, dtype=np.uint8)
    y = np.empty((11, simd.LANES), np.float32)
    _each(a, b, c, np.float32(1.5), codes, y)
    exact = [0 * c, 0 * c + 1.5, a + b, a * b, None, np.maximum(a, b), np.where(a > 0, b, c), a]
    exact += [a - b, np.where((b > a) | np.isnan(b), c, a), np.where(codes == 7, b, c)]
    for got, want in zip(y, exact, strict=True):
        if want is not None:
            np.testing.assert_array_equal(got, want)
    np.testing.assert_allclose(y[4], a.astype(np.float64) * b + c, rtol=0, atol=1e-6)


@kernel
def _transpose(a: Any, y: Any) -> None:
    simd.transpose_block(a.ctypes.data, 4 * a.shape[1], y.ctypes.data, 4 * y.shape[1])


def test_a_block_is_transposed_and_nothing_around_it_touched() -> None:
    n = simd.LANES
    a = np.arange((n + 1) * (n + 3), dtype=np.float32).reshape(n + 1, n + 3)
    y = np.full((n + 2, n + 5), -1, np.float32)
    _transpose(a, y)
    assert np.array_equal(y[:n, :n], a[:n, :n].T)
    y[:n, :n] = -1
    assert (y == -1).all()


def test_the_total_counts_every_lane_once() -> None:
    a = 2.0 ** np.arange(simd.LANES).astype(np.float32)
    assert _total(a) == 2**simd.LANES - 1
    a[1] = NAN
    assert np.isnan(_total(a))


def test_the_highest_lane_wins_and_nan_over_all() -> None:
    for lane in range(simd.LANES):
        a = -np.arange(5, 5 + simd.LANES, dtype=np.float32)
        a[lane] = 3
        assert _highest(a) == 3
        a[lane] = NAN
        assert np.isnan(_highest(a))


def test_powers_of_two_are_exact() -> None:
    for first in range(-126, 128 - simd.LANES):
        n = np.arange(first, first + simd.LANES, dtype=np.float32)
        y = np.empty(simd.LANES, np.float32)
        _powers(n + np.float32(1.5 * 2**23), y)
        assert (y == np.exp2(n)).all()


def test_bytes_are_chosen_lane_by_lane() -> None:
    a, b, _ = _drawn()
    x = np.arange(200, 200 + simd.LANES, dtype=np.uint8)
    y = np.full(simd.LANES + 1, 99, np.uint8)
    _beaten_bytes(a, b, x, y)
    assert y.tolist() == [*np.where((b > a) | np.isnan(b), 250, x), 99]


@kernel
def _copy_part(x: Any, y: Any, count: int) -> None:
    simd.store_part(simd.load_part(simd.address(x), count), simd.address(y), count)


@kernel
def _copy_past_the_caches(x: Any, y: Any) -> None:
    simd.stream(simd.load(simd.address(x)), simd.address(y))
    simd.fence()


def test_a_part_of_a_vector_touches_no_more() -> None:
    a = _drawn()[0]
    for count in range(simd.LANES):
        y = np.full(simd.LANES, 7, np.float32)
        _copy_part(a[:count].copy(), y, count)
        np.testing.assert_array_equal(y, [*a[:count], *[7] * (simd.LANES - count)])


def test_a_streamed_vector_arrives() -> None:
    a, y = _drawn()[0], memory.empty((1 << 18,), np.float32)
    _copy_past_the_caches(a, y)
    np.testing.assert_array_equal(y[: simd.LANES], a[: simd.LANES])


@pytest.mark.parametrize("channels", [1, 15, 16, 17, 33, 64])
def test_whole_vectors_count_float32_alone(channels: int) -> None:
    x = np.zeros((2, channels), np.float32)
    assert simd.whole_vectors(x) == channels // simd.LANES * simd.LANES * 4
    assert simd.whole_vectors(x.astype(np.float64)) == 0


def test_an_unknown_forced_instruction_set_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIDNN_SIMD", "sse9")
    with pytest.raises(InputError, match="sse9"):
        simd.instruction_set()
