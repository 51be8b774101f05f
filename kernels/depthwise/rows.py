"""Depthwise convolution by rows of pixels: the rung rows.

A row of pixels with their channels is one long vector, and so is what a tap of the kernel
sees of it: the row shifted by kx * C. The weights are repeated for a few pixels to match.
Rows are first copied, with their border of zeros, to a place that stays in cache. The copy
puts every stride-th pixel side by side, so that a tap's pixels are contiguous at any stride.

The rung runs on one thread. What `simd` is not made for (float64, kernels other than 3x3) runs
these loops on all threads.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..checks import Array
from ..jit import chunks, kernel, parallel, prange
from ..memory import empty
from ..windows import Pads, Pair
from .plain import new_output

# Products that make a chunk worth a thread: about 10 microseconds.
CHUNK = 1 << 16

# Length of the vectors that the innermost loops run over: long against the cost of a loop,
# and nine of them fit the first-level cache.
VECTOR = 512


def _pixels(width: int, channels: int) -> int:
    """Return how many pixels of a row the innermost loops take at once: equal parts."""
    parts = max(1, -(-width * channels // VECTOR))
    return -(-width // min(parts, width))


def _aligned(*shape: int, dtype: Any) -> Array:
    """Return an empty array that starts at a cache line, as vector loads like it."""
    raw = empty((math.prod(shape) * np.dtype(dtype).itemsize + 64,), np.uint8)
    start = -raw.ctypes.data % 64
    return np.ndarray(shape, dtype, raw, offset=start)


def _pitch(size: int) -> int:
    """Return the distance of rows: whole cache lines, and one more.

    Rows of 1024 channels would all begin at the same place of a page, where the first-level
    cache holds 8 of them only.
    """
    return (size // 16 + 2) * 16


def _repeated(w: Array, pixels: int) -> Array:
    """Repeat w (KH, KW, C) for that many pixels: (KH, KW, pitch), pixels * C of it used."""
    result = _aligned(*w.shape[:2], _pitch(pixels * w.shape[2]), dtype=w.dtype)
    result[..., : pixels * w.shape[2]] = np.tile(w, (1, 1, pixels))
    return result


def cut(lines: int, products: int) -> int:
    """Cut that many rows of maps, with that many products in all, into chunks by shape alone."""
    return chunks(lines, max(1, CHUNK * lines // max(1, products)))


def _ring(n_chunks: int, shape: tuple[int, ...], width: int, stride: int, dtype: Any) -> Array:
    """Return room for the rows a chunk works on, and a row of zeros after them.

    (chunks, KH + 1, stride, length) for a kernel of that shape (KH, KW, C), where the windows
    slid over a row are `width` pixels.
    """
    kh, kw, c = shape
    length = (width + (kw - 1) // stride) * c
    return _aligned(n_chunks, kh + 1, stride, _pitch(length), dtype=dtype)


def forward_rows(x: Array, w: Array, *, stride: Pair = (1, 1), pads: Pads = (0, 0, 0, 0)) -> Array:
    """Row reuse: a row is read once from far away, copied between zeros, and seen nine times.

    Saves: all border tests, and two of three reads of a row from beyond the first-level
    cache: a ring keeps the last three. Pixels and channels of a row are one vector, so the
    innermost loop is long even where channels are few.
    Measure: small maps and few channels, where most pixels are border.
    """
    return slide_rows(x, w, stride, pads, threads=False)


def slide_rows(x: Array, w: Array, stride: Pair, pads: Pads, *, threads: bool) -> Array:
    """Run the loops of `forward_rows`, on one thread or on all."""
    y = new_output(x, w, stride, pads)
    _slide(x, w, y, stride, (1, 1), (pads[0], pads[2]), threads)
    return y


def _slide(
    x: Array, w: Array, y: Array, stride: Pair, step: Pair, pads: Pair, threads: bool
) -> None:
    """Fill y with w slid over x in strides, where pixels of x stand `step` apart."""
    lines, width, c = y.shape[0] * y.shape[1], y.shape[2], y.shape[3]
    n_chunks = cut(lines, y.size * w.shape[0] * w.shape[1]) if threads else 1
    ring = _ring(n_chunks, w.shape, width, stride[1], w.dtype)
    pixels = _pixels(width, c)
    settings = pixels * c, stride[0], step, pads
    if threads:
        slide_loop(x, _repeated(w, pixels), y, ring, *settings)
    else:
        slide_lines(x, _repeated(w, pixels), y, ring[0], 0, lines, *settings)


@parallel
def slide_loop(
    x: Array, w: Array, y: Array, ring: Array, size: int, stride: int, step: Pair, pads: Pair
) -> None:
    """x (N, H, W, C), w (KH, KW, >= size), ring (chunks, KH + 1, stride, length) -> y.

    `size` numbers, whole pixels, are the vectors that the innermost loops run over.
    """
    n_chunks, lines = ring.shape[0], y.shape[0] * y.shape[1]
    for chunk in prange(n_chunks):
        low, high = chunk * lines // n_chunks, (chunk + 1) * lines // n_chunks
        slide_lines(x, w, y, ring[chunk], low, high, size, stride, step, pads)


@kernel
def slide_lines(
    x: Array, w: Array, y: Array, rows: Array, low: int, high: int, size: int, stride: int,
    step: Pair, pads: Pair,
) -> None:  # fmt: skip
    """Fill rows low .. high - 1 of the N * OH rows of y; rows (KH + 1, stride, length)."""
    lines, c = y.shape[0] * y.shape[1], y.shape[3]
    y_rows = y.reshape(lines, y.shape[2] * c)
    kh, newest = w.shape[0], -1  # the last row of x that was copied; they ascend
    rows[kh] = 0
    for line in range(low, high):
        n, first = line // y.shape[1], line % y.shape[1] * stride - pads[0]
        for ky in range(kh):
            iy = (first + ky) // step[0]
            if row_of(first + ky, step[0], x.shape[1], kh) < kh and n * x.shape[1] + iy > newest:
                newest = n * x.shape[1] + iy
                place_row(x[n, iy], rows[iy % kh], pads[1], step[1])
        if kh == 3 and w.shape[1] == 3 and step[0] == 1:
            above = rows[row_of(first, 1, x.shape[1], kh)]
            here = rows[row_of(first + 1, 1, x.shape[1], kh)]
            below = rows[row_of(first + 2, 1, x.shape[1], kh)]
            slide_nine(above, here, below, w, y_rows[line], size, c)
            continue
        y_rows[line] = 0
        for ky in range(kh):
            row = row_of(first + ky, step[0], x.shape[1], kh)
            if row < kh:
                slide_row(rows[row], w[ky], y_rows[line], size, c)


@kernel
def row_of(place: int, step: int, height: int, kh: int) -> int:
    """Return the row of the ring that holds what stands at that height; the last is zeros."""
    iy = place // step
    return iy % kh if iy * step == place and 0 <= iy < height else kh


@kernel
def place_row(x: Array, row: Array, offset: int, step: int) -> None:
    """x (W, C) -> row (stride, length): pixel i goes to place p = i * step + offset.

    Places that differ by `stride` are neighbours: p is the (p // stride)-th pixel of
    row[p % stride]. What no pixel goes to is zero.
    """
    (width, c), (stride, length) = x.shape, row.shape
    if step == 1 and stride == 1:
        low = min(max(0, offset * c), length)
        high = max(low, min(length, (offset + width) * c))
        row[0, :low] = 0
        copy(x.reshape(width * c)[low - offset * c : high - offset * c], row[0, low:high])
        row[0, high:] = 0
        return
    row[:] = 0
    for i in range(width):
        p = i * step + offset
        if 0 <= p < length // c * stride:
            start = p // stride * c
            copy(x[i], row[p % stride, start : start + c])


@kernel
def copy(x: Array, y: Array) -> None:
    """Copy x to y of the same length (a plain loop: slice assignment is slower here)."""
    for i in range(y.size):
        y[i] = x[i]


@kernel
def tap(row: Array, kx: int, start: int, c: int) -> Array:
    """What kernel column kx sees of a row (stride, length), from `start` of the output on."""
    stride = row.shape[0]
    return row[kx % stride, kx // stride * c + start :]


@kernel
def slide_nine(
    above: Array, here: Array, below: Array, w: Array, y: Array, size: int, c: int
) -> None:
    """A 3x3 kernel w (3, 3, >= size) slid along three rows -> y (OW * C,) in one pass."""
    for start in range(0, y.size, size):
        out = y[start : start + size]
        x0, x1, x2 = tap(above, 0, start, c), tap(above, 1, start, c), tap(above, 2, start, c)
        x3, x4, x5 = tap(here, 0, start, c), tap(here, 1, start, c), tap(here, 2, start, c)
        x6, x7, x8 = tap(below, 0, start, c), tap(below, 1, start, c), tap(below, 2, start, c)
        w0, w1, w2, w3, w4, w5 = w[0, 0], w[0, 1], w[0, 2], w[1, 0], w[1, 1], w[1, 2]
        w6, w7, w8 = w[2, 0], w[2, 1], w[2, 2]
        for i in range(out.size):
            top = x0[i] * w0[i] + x1[i] * w1[i] + x2[i] * w2[i]
            middle = x3[i] * w3[i] + x4[i] * w4[i] + x5[i] * w5[i]
            out[i] = top + middle + (x6[i] * w6[i] + x7[i] * w7[i] + x8[i] * w8[i])


@kernel
def slide_row(row: Array, w: Array, y: Array, size: int, c: int) -> None:
    """One kernel row w (KW, >= size) slid along row (stride, length): adds to y (OW * C,)."""
    for start in range(0, y.size, size):
        out = y[start : start + size]
        for kx in range(w.shape[0]):
            add_product(out, tap(row, kx, start, c), w[kx])


@kernel
def add_product(y: Array, a: Array, b: Array) -> None:
    """Add a * b to y, as long as y is."""
    for i in range(y.size):
        y[i] += a[i] * b[i]


def input_rows(
    dy: Array, w: Array, *, size: Pair, stride: Pair = (1, 1), pads: Pads = (0, 0, 0, 0)
) -> Array:
    """Row reuse: the turned kernel slid over rows of dy, which at a stride stand apart.

    Saves and measure: as forward, at any stride.
    """
    return slide_back(dy, w, size, stride, pads, threads=False)


def slide_back(
    dy: Array, w: Array, size: Pair, stride: Pair, pads: Pads, *, threads: bool
) -> Array:
    """Run the loops of `input_rows`, on one thread or on all."""
    dx = empty((len(dy), *size, w.shape[2]), dy.dtype)
    turned = w[::-1, ::-1]
    before = (w.shape[0] - 1 - pads[0], w.shape[1] - 1 - pads[2])
    _slide(dy, turned, dx, (1, 1), stride, before, threads)
    return dx


def weight_rows(
    dy: Array, x: Array, *, kernel_size: Pair, stride: Pair = (1, 1), pads: Pads = (0, 0, 0, 0)
) -> Array:
    """Row reuse: copied rows of x against rows of dy, two pixels of dy for three taps at once.

    Saves: as forward, and half the traffic on the sums. Measure: as forward; the sums still go
    through the first-level cache.
    """
    return sum_rows(dy, x, kernel_size, stride, pads, threads=False)


def sum_rows(
    dy: Array, x: Array, kernel_size: Pair, stride: Pair, pads: Pads, *, threads: bool
) -> Array:
    """Run the loops of `weight_rows`, on one thread or on all."""
    (kh, kw), c = kernel_size, x.shape[3]
    lines, width = dy.shape[0] * dy.shape[1], dy.shape[2]
    # A chunk's own dw is written and read once more: keep them few against the input.
    n_chunks = cut(lines, dy.size * kh * kw) if threads else 1
    n_chunks = min(n_chunks, max(1, x.size // (4 * kh * kw * c)))
    # dw keeps a sum for each pixel of the vector; they are added up at the end.
    size = _pixels(width, c) * c
    sums = _aligned(n_chunks, kh, kw, _pitch(size), dtype=x.dtype)
    ring = _ring(n_chunks, (kh, kw, c), width, stride[1], x.dtype)
    settings = size, stride[0], (pads[0], pads[2])
    if threads:
        weight_loop(dy, x, sums, ring, *settings)
    else:
        weight_lines(dy, x, sums[0], ring[0], 0, lines, *settings)
    total = sums[..., :size].sum(axis=0, dtype=np.float64)
    dw: Array = total.reshape(kh, kw, -1, c).sum(axis=2).astype(x.dtype)
    return dw


@parallel
def weight_loop(
    dy: Array, x: Array, sums: Array, ring: Array, size: int, stride: int, pads: Pair
) -> None:
    """dy (N, OH, OW, C), x (N, H, W, C) -> sums (chunks, KH, KW, >= size)."""
    n_chunks, lines = ring.shape[0], dy.shape[0] * dy.shape[1]
    for chunk in prange(n_chunks):
        low, high = chunk * lines // n_chunks, (chunk + 1) * lines // n_chunks
        weight_lines(dy, x, sums[chunk], ring[chunk], low, high, size, stride, pads)


@kernel
def weight_lines(
    dy: Array, x: Array, dw: Array, ring: Array, low: int, high: int, size: int, stride: int,
    pads: Pair,
) -> None:  # fmt: skip
    """Rows low .. high - 1 of the N * OH rows of dy -> dw (KH, KW, >= size)."""
    dy_rows = dy.reshape(dy.shape[0] * dy.shape[1], dy.shape[2] * dy.shape[3])
    dw[:] = 0
    newest = -1
    for line in range(low, high):
        n, oy = line // dy.shape[1], line % dy.shape[1]
        for ky in range(dw.shape[0]):
            iy = oy * stride + ky - pads[0]
            if 0 <= iy < x.shape[1]:
                row = ring[iy % dw.shape[0]]
                if n * x.shape[1] + iy > newest:
                    newest = n * x.shape[1] + iy
                    place_row(x[n, iy], row, pads[1], 1)
                weight_row(row, dy_rows[line], dw[ky], size, x.shape[3])


@kernel
def weight_row(row: Array, dy: Array, dw: Array, size: int, c: int) -> None:
    """Row (stride, length) against dy (OW * C,): adds to one kernel row dw (KW, >= size)."""
    start = 0
    while start + 2 * size <= dy.size and dw.shape[0] == 3:
        add_six(row, dy[start : start + size], dy[start + size : start + 2 * size], dw, start, c)
        start += 2 * size
    while start < dy.size:
        part = dy[start : start + size]
        for kx in range(dw.shape[0]):
            add_product(dw[kx, : part.size], tap(row, kx, start, c), part)
        start += size


@kernel
def add_six(row: Array, g: Array, h: Array, dw: Array, start: int, c: int) -> None:
    """Two neighbouring vectors of dy, g and h, for three taps: half the traffic on dw."""
    x0, x1, x2 = tap(row, 0, start, c), tap(row, 1, start, c), tap(row, 2, start, c)
    start += g.size
    z0, z1, z2 = tap(row, 0, start, c), tap(row, 1, start, c), tap(row, 2, start, c)
    dw0, dw1, dw2 = dw[0], dw[1], dw[2]
    for i in range(g.size):
        dw0[i] += x0[i] * g[i] + z0[i] * h[i]
        dw1[i] += x1[i] * g[i] + z1[i] * h[i]
        dw2[i] += x2[i] * g[i] + z2[i] * h[i]
