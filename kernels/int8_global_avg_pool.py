"""Global average pooling of codes: the mean of each channel of a map.

x (N, H, W, C) uint8 with zero point `zero_in` -> y (N, C)::

    acc = sum of x[n, :, :, c] - H * W * zero_in      # int32
    y = float32(acc) * scale
    code = clip(rint(y) + zero, 0, 255)               # or y itself, float32, with as_float

The division by H * W is part of `scale` = scale of x / (H * W * scale of y), a float32 number;
with as_float leave out the scale of y.

| rung  | the one idea                                                         |
|-------|----------------------------------------------------------------------|
| naive | one channel after the other                                          |
| numpy | one sum over two axes                                                |
| fused | channels innermost: a row of sums for a map; maps on all threads     |
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .checks import Array, InputError, ShapeError
from .int8.arithmetic import code_of, requantised
from .int8.checks import check_factors, check_integers, check_zero
from .jit import chunks, exact, max_threads, parallel, prange, thread_id
from .ladder import Ladder
from .memory import empty

GRAIN = 1 << 15  # codes that make a chunk worth a thread
MOST_PIXELS = (1 << 31) // 255 - 1  # of a map, so that sums fit int32


def check(x: Array, *, scale: float, zero_in: int, zero: int, as_float: bool = False) -> None:
    """Raise unless x is (N, H, W, C) uint8 with pixels, few enough, and the factor is finite."""
    check_integers("x", x, np.uint8, ("N", "H", "W", "C"))
    pixels = x.shape[1] * x.shape[2]
    if pixels < 1:
        raise ShapeError(f"x: expected at least one pixel, got shape {x.shape}")
    if pixels > MOST_PIXELS:
        raise InputError(f"x: expected at most {MOST_PIXELS} pixels per map, got {pixels}")
    check_zero("zero_in", zero_in)
    one = np.ones(1, np.float32)
    check_factors(np.zeros(1, np.int32), one * np.float32(scale), one, 1, zero, as_float=as_float)


def _result(x: Array, as_float: bool) -> Array:
    return empty((x.shape[0], x.shape[3]), np.float32 if as_float else np.uint8)


def forward_naive(
    x: Array, *, scale: float, zero_in: int, zero: int, as_float: bool = False
) -> Array:
    """Add up one channel after the other, which jumps through memory."""
    y = _result(x, as_float)
    naive_loop(x, y, np.float32(scale), zero_in, zero)
    return y


@exact
def naive_loop(x: Array, y: Array, scale: Any, zero_in: int, zero: int) -> None:
    """See the module's docstring."""
    for n in range(y.shape[0]):
        for c in range(y.shape[1]):
            acc = np.int64(0)
            for iy in range(x.shape[1]):
                for ix in range(x.shape[2]):
                    acc += np.int64(x[n, iy, ix, c]) - zero_in
            real = np.float32(np.int32(acc)) * scale
            if y.itemsize == 4:
                y[n, c] = real
            else:
                y[n, c] = code_of(real, zero)


def forward_numpy(
    x: Array, *, scale: float, zero_in: int, zero: int, as_float: bool = False
) -> Array:
    """Sum over rows and columns, in int32."""
    acc = x.sum(axis=(1, 2), dtype=np.int32) - np.int32(x.shape[1] * x.shape[2] * zero_in)
    return requantised(acc, np.float32(scale), np.float32(1), zero, as_float=as_float)


@exact
def average(
    x: Array, y: Array, scale: Any, zero_in: int, zero: int, first: int, last: int,
    sums: Array,
) -> None:  # fmt: skip
    """Compute maps first .. last - 1; sums (C,) int32 is scratch; scale is float32."""
    pixels = x.shape[1] * x.shape[2]
    for n in range(first, last):
        rows, out = x[n].reshape(pixels, x.shape[3]), y[n]
        sums[:] = -pixels * zero_in
        for i in range(pixels):
            pixel = rows[i]
            for c in range(sums.size):
                sums[c] += np.int32(pixel[c])
        if y.itemsize == 4:
            for c in range(sums.size):
                out[c] = np.float32(sums[c]) * scale
        else:
            for c in range(sums.size):
                out[c] = code_of(np.float32(sums[c]) * scale, zero)


@parallel
def average_loop(
    x: Array, y: Array, scale: Any, zero_in: int, zero: int, n_chunks: int, sums: Array
) -> None:
    """Cut the maps into chunks, and run `average` on each; sums (threads, C) int32 is scratch."""
    maps = x.shape[0]
    for chunk in prange(n_chunks):
        average(
            x, y, scale, zero_in, zero, chunk * maps // n_chunks, (chunk + 1) * maps // n_chunks,
            sums[thread_id()],
        )  # fmt: skip


def forward_fused(
    x: Array, *, scale: float, zero_in: int, zero: int, as_float: bool = False
) -> Array:
    """Add pixels, all channels of them at once, on all threads."""
    y = _result(x, as_float)
    sums = np.empty((max_threads(), x.shape[3]), np.int32)
    n_chunks = chunks(len(x), max(1, GRAIN // max(1, x[0].size)))
    average_loop(x, y, np.float32(scale), zero_in, zero, n_chunks, sums)
    return y


forward = Ladder(
    "int8_global_avg_pool.forward",
    check=check,
    naive=forward_naive,
    numpy=forward_numpy,
    fused=forward_fused,
)
