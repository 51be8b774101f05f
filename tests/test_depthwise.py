"""Depthwise loops: the same bits in place, past the caches, and whatever the cut into tasks."""

from __future__ import annotations

import numpy as np
import pytest

from minidnn.kernels import memory
from minidnn.kernels.checks import Array
from minidnn.kernels.depthwise import simd, sliding, striding
from minidnn.kernels.simd import CACHE_LINE, VECTOR_BYTES, is_far

BEFORE = (1, 1)


def _drawn(*shape: int) -> Array:
    """Draw an array that begins at a cache line."""
    raw = memory.empty((int(np.prod(shape)) + 16,), np.float32)
    start = -raw.ctypes.data % CACHE_LINE // 4
    a = raw[start : start + int(np.prod(shape))].reshape(shape)
    a[...] = np.random.default_rng(sum(shape)).standard_normal(shape)
    return a


def _backward(x: Array, dx: Array, stride: int, far: bool = False) -> tuple[Array, Array]:
    """Return dx and dw of a random dy, computed in two calls."""
    size = [-(-n // stride) for n in x.shape[1:3]]
    dy, w = _drawn(len(x), *size, x.shape[3]), _drawn(3, 3, x.shape[3])
    sums, args = simd.new_sums(1, w)[0], (dy, x, sliding.padded(w), dx)
    channels = 0, x.shape[3]
    high = striding.pairs(x.shape[1], 1) if stride == 2 else x.shape[1]
    for low, end in ((0, 3), (3, len(x) * high)):
        if stride == 2:
            striding.backward_lines_by_2(*args, sums, low, end, BEFORE, channels)
        else:
            sliding.backward_lines(*args, sums, low, end, BEFORE, channels, far)
    return dx, simd.add_up(sums[None])


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("channels", [16, 21, 64])
def test_the_gradient_may_take_the_place_of_its_input(stride: int, channels: int) -> None:
    x = _drawn(2, 5, 6, channels)
    want = _backward(x, np.empty_like(x), stride)
    got = _backward(x, x, stride)
    assert got[0] is x
    for a, b in zip(got, want, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.skipif(VECTOR_BYTES != CACHE_LINE, reason="no vector is a cache line")
def test_what_is_written_past_the_caches_has_the_same_bits() -> None:
    x, w = _drawn(3, 5, 6, 64), sliding.padded(_drawn(3, 3, 64))
    near, far = np.empty_like(x), _drawn(3, 5, 6, 64)
    sliding.forward_lines(x, w, near, 0, 15, BEFORE, False)
    sliding.forward_lines(x, w, far, 0, 15, BEFORE, True)
    np.testing.assert_array_equal(far, near)
    want, got = _backward(x, near, 1), _backward(x, far, 1, far=True)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("channels", "n_parts"), [(3, 1), (64, 1), (200, 3), (1024, 16)])
def test_parts_cover_every_channel_once(channels: int, n_parts: int) -> None:
    ends = [simd.channels_of(part, n_parts, channels) for part in range(n_parts)]
    assert [start for start, _ in ends] == [0, *(end for _, end in ends[:-1])]
    assert ends[-1][1] == channels


def test_large_aligned_arrays_alone_are_far() -> None:
    large = memory.empty((64, 32, 32, 64), np.float32)
    assert is_far(large) == (VECTOR_BYTES == CACHE_LINE)
    assert not is_far(large[:2])
    odd = memory.empty((64, 32, 32, 65), np.float32)
    assert not is_far(odd)
