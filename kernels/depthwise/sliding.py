"""Depthwise 3x3 convolution with explicit vectors, in serial pieces.

One vector of channels at a time. Its nine weights stay in registers, and so does the window,
three rows by three columns, which slides along a row: each step loads one new column,
multiplies and adds, and stores one output. Backward holds the window on dy, and the sums of
the nine weights' gradients in nine more registers; a step loads one vector of x as well.

Nothing is tested within a row: a row outside the map, or a column, is read at a place that
holds zeros, with a step of 0 from pixel to pixel, and a row is walked in runs of pixels for
which the new columns lie all inside, or one by one. Channels that fill no whole vector
go through the same code with their lanes masked.

Arrays far larger than the caches (`far`) are asked for some rows ahead, which the
hardware does not do by itself across rows, and written past the caches: an ordinary store
waits until the line it changes has come from memory.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..checks import Array
from ..jit import kernel
from ..simd import (
    LANES,
    address,
    fence,
    load,
    load_part,
    multiply_add,
    prefetch,
    store,
    store_part,
    stream,
    zero,
)
from ..windows import Pair

BAND = 112  # pixels: a band of rows is walked once per vector of channels while it is in L2
ROOM = 16  # numbers between the taps of a padded kernel: a vector of zeros


def padded(w: Array) -> Array:
    """Copy a kernel (3, 3, C) to (3, 3, C + ROOM), zeros behind each tap.

    The zeros stand for what is outside a map, and keep the taps of 1024 channels, 4,096 bytes,
    from all wanting the same 8 places of the first-level cache.
    """
    result = np.zeros((*w.shape[:2], w.shape[2] + ROOM), np.float32)
    result[..., : w.shape[2]] = w
    return result


@kernel
def read(at: int, lanes: Any) -> Any:
    """Read a vector, or that many lanes of it."""
    if lanes is None:
        return load(at)
    return load_part(at, lanes)


@kernel
def write(vector: Any, at: int, far: bool, lanes: Any) -> None:
    """Write a vector, or that many lanes of it; past the caches if it is far."""
    if lanes is not None:
        store_part(vector, at, lanes)
    elif far:
        stream(vector, at)
    else:
        store(vector, at)


@kernel
def three(total: Any, a: Any, b: Any, c: Any, x: Any, y: Any, z: Any) -> Any:
    """Return total + a * x + b * y + c * z."""
    return multiply_add(c, z, multiply_add(b, y, multiply_add(a, x, total)))


@kernel
def inside(i: int, size: int) -> bool:
    """Tell whether a row or column is on the map."""
    return 0 <= i < size


# --- forward --------------------------------------------------------------------------


@kernel
def forward_lines(
    x: Array, w: Array, y: Array, low: int, high: int, before: Pair, far: bool
) -> None:
    """Fill rows low .. high - 1 of the N * OH rows of y.

    x (N, H, W, C), w (3, 3, C + ROOM) `padded`, y (N, OH, OW, C); before = (top, left) padding.
    far: whether x and y are far larger than the caches; y must then begin at a cache
    line and C be a multiple of LANES.
    """
    channels = y.shape[3]
    band = max(1, BAND // y.shape[2])
    for first in range(low, high, band):
        last, size = min(first + band, high), (y.shape[1], y.shape[2])
        out = address(y) + 4 * first * y.shape[2] * channels
        forward_band(x, w, size, out, 4 * channels, first, last, before, far)
    if far:
        fence()


@kernel
def forward_band(
    x: Array, w: Array, size: Pair, out: int, pixel_out: int, first: int, last: int, before: Pair,
    far: bool,
) -> None:  # fmt: skip
    """Compute rows first .. last - 1 of outputs of that size, written from address `out` on.

    pixel_out: bytes from one pixel there to the next. x may have more channels than w.
    """
    channels, rest = w.shape[2] - ROOM, (w.shape[2] - ROOM) % LANES
    for c in range(0, channels - rest, LANES):
        to = out + 4 * c
        forward_vector(x, w, size, to, pixel_out, first, last, c, before, far, None)
    if rest:
        c = channels - rest
        to = out + 4 * c
        forward_vector(x, w, size, to, pixel_out, first, last, c, before, False, rest)


@kernel
def forward_vector(
    x: Array, w: Array, size: Pair, out: int, pixel_out: int, first: int, last: int, c: int,
    before: Pair, far: bool, lanes: Any,
) -> None:  # fmt: skip
    """Compute channels c .. c + LANES - 1 of rows first .. last - 1, from address `out` on."""
    (oh, ow), (_, height, width, channels) = size, x.shape
    pixel, tap = 4 * channels, 4 * w.shape[2]
    row = width * pixel
    nothing = address(w) + tap - 4 * ROOM
    at = address(w) + 4 * c
    w0, w1, w2 = load(at), load(at + tap), load(at + 2 * tap)
    w3, w4, w5 = load(at + 3 * tap), load(at + 4 * tap), load(at + 5 * tap)
    w6, w7, w8 = load(at + 6 * tap), load(at + 7 * tap), load(at + 8 * tap)
    image, oy = address(x) + first // oh * height * row + 4 * c, first % oh
    ahead = (last - first) * row
    for _ in range(first, last):
        top, left = oy - before[0], -before[1]
        in0, in1, in2 = inside(top, height), inside(top + 1, height), inside(top + 2, height)
        r0, r1, r2 = image + top * row, image + (top + 1) * row, image + (top + 2) * row
        r0, r1, r2 = r0 if in0 else nothing, r1 if in1 else nothing, r2 if in2 else nothing
        s0, s1, s2 = pixel if in0 else 0, pixel if in1 else 0, pixel if in2 else 0
        a0, b0, c0 = zero(), zero(), zero()
        if inside(left, width):
            a0 = read(r0 + left * s0, lanes)
            b0 = read(r1 + left * s1, lanes)
            c0 = read(r2 + left * s2, lanes)
        a1, b1, c1 = zero(), zero(), zero()
        if inside(left + 1, width):
            a1 = read(r0 + (left + 1) * s0, lanes)
            b1 = read(r1 + (left + 1) * s1, lanes)
            c1 = read(r2 + (left + 1) * s2, lanes)
        ox = 0
        while ox < ow:
            ix = ox + left + 2
            seen = inside(ix, width)
            run = min(ow - ox, width - ix) if seen else 1
            p0 = r0 + ix * s0 if seen else nothing
            p1 = r1 + ix * s1 if seen else nothing
            p2 = r2 + ix * s2 if seen else nothing
            ox += run
            for _ in range(run):
                a2, b2, c2 = read(p0, lanes), read(p1, lanes), read(p2, lanes)
                total = three(zero(), a0, a1, a2, w0, w1, w2)
                total = three(total, b0, b1, b2, w3, w4, w5)
                write(three(total, c0, c1, c2, w6, w7, w8), out, far, lanes)
                if far:
                    prefetch(p1 + ahead)
                a0, b0, c0 = a1, b1, c1
                a1, b1, c1 = a2, b2, c2
                p0, p1, p2, out = p0 + s0, p1 + s1, p2 + s2, out + pixel_out
        oy += 1
        if oy == oh:
            oy, image = 0, image + height * row


# --- backward -------------------------------------------------------------------------


@kernel
def backward_lines(
    dy: Array, x: Array, w: Array, dx: Array, dw: Array, low: int, high: int, before: Pair,
    channels: Pair, far: bool,
) -> None:  # fmt: skip
    """Fill rows low .. high - 1 of the N * H rows of dx, and add to dw; dx may be x itself.

    dy (N, OH, OW, C), x and dx (N, H, W, C), w and dw (3, 3, C + ROOM) `padded`; before = (top,
    left) padding of the forward pass. channels = (first, last + 1), the first a multiple of
    LANES. far: as in `forward_lines`, for dx.
    """
    rest = (channels[1] - channels[0]) % LANES
    band = max(1, BAND // x.shape[2])
    for first in range(low, high, band):
        last = min(first + band, high)
        for c in range(channels[0], channels[1] - rest, LANES):
            backward_vector(dy, x, w, dx, dw, first, last, c, before, far, None)
        if rest:
            c = channels[1] - rest
            backward_vector(dy, x, w, dx, dw, first, last, c, before, False, rest)
    if far:
        fence()


@kernel
def backward_vector(
    dy: Array, x: Array, w: Array, dx: Array, dw: Array, first: int, last: int, c: int,
    before: Pair, far: bool, lanes: Any,
) -> None:  # fmt: skip
    """Fill channels c .. c + LANES - 1 of rows first .. last - 1 of dx, and add to those of dw."""
    _, height, width, channels = x.shape
    oh, ow = dy.shape[1], dy.shape[2]
    pixel, tap = 4 * channels, 4 * w.shape[2]
    row = ow * pixel
    nothing = address(w) + pixel
    # The window on dy holds the outputs that saw a pixel of x: by the last tap first.
    at = address(w) + 4 * c
    w8, w7, w6 = load(at), load(at + tap), load(at + 2 * tap)
    w5, w4, w3 = load(at + 3 * tap), load(at + 4 * tap), load(at + 5 * tap)
    w2, w1, w0 = load(at + 6 * tap), load(at + 7 * tap), load(at + 8 * tap)
    sums = address(dw) + 4 * c
    d8, d7, d6 = load(sums), load(sums + tap), load(sums + 2 * tap)
    d5, d4, d3 = load(sums + 3 * tap), load(sums + 4 * tap), load(sums + 5 * tap)
    d2, d1, d0 = load(sums + 6 * tap), load(sums + 7 * tap), load(sums + 8 * tap)
    image, iy = address(dy) + first // height * oh * row + 4 * c, first % height
    seen_at = address(x) + first * width * pixel + 4 * c
    to = address(dx) - address(x)
    ahead, x_ahead = (last - first) * row, (last - first) * width * pixel
    for _ in range(first, last):
        top, left = iy + before[0] - 2, before[1] - 2
        in0, in1, in2 = inside(top, oh), inside(top + 1, oh), inside(top + 2, oh)
        r0, r1, r2 = image + top * row, image + (top + 1) * row, image + (top + 2) * row
        r0, r1, r2 = r0 if in0 else nothing, r1 if in1 else nothing, r2 if in2 else nothing
        s0, s1, s2 = pixel if in0 else 0, pixel if in1 else 0, pixel if in2 else 0
        a0, b0, c0 = zero(), zero(), zero()
        if inside(left, ow):
            a0 = read(r0 + left * s0, lanes)
            b0 = read(r1 + left * s1, lanes)
            c0 = read(r2 + left * s2, lanes)
        a1, b1, c1 = zero(), zero(), zero()
        if inside(left + 1, ow):
            a1 = read(r0 + (left + 1) * s0, lanes)
            b1 = read(r1 + (left + 1) * s1, lanes)
            c1 = read(r2 + (left + 1) * s2, lanes)
        ix = 0
        while ix < width:
            ox = ix + left + 2
            seen = inside(ox, ow)
            run = min(width - ix, ow - ox) if seen else 1
            p0 = r0 + ox * s0 if seen else nothing
            p1 = r1 + ox * s1 if seen else nothing
            p2 = r2 + ox * s2 if seen else nothing
            ix += run
            for _ in range(run):
                v = read(seen_at, lanes)
                a2, b2, c2 = read(p0, lanes), read(p1, lanes), read(p2, lanes)
                total = three(zero(), a0, a1, a2, w0, w1, w2)
                total = three(total, b0, b1, b2, w3, w4, w5)
                total = three(total, c0, c1, c2, w6, w7, w8)
                d0, d1, d2 = (
                    multiply_add(v, a0, d0),
                    multiply_add(v, a1, d1),
                    multiply_add(v, a2, d2),
                )
                d3, d4, d5 = (
                    multiply_add(v, b0, d3),
                    multiply_add(v, b1, d4),
                    multiply_add(v, b2, d5),
                )
                d6, d7, d8 = (
                    multiply_add(v, c0, d6),
                    multiply_add(v, c1, d7),
                    multiply_add(v, c2, d8),
                )
                write(total, seen_at + to, far, lanes)
                if far:
                    prefetch(p1 + ahead)
                    prefetch(seen_at + x_ahead)
                a0, b0, c0 = a1, b1, c1
                a1, b1, c1 = a2, b2, c2
                p0, p1, p2, seen_at = p0 + s0, p1 + s1, p2 + s2, seen_at + pixel
        iy += 1
        if iy == height:
            iy, image = 0, image + oh * row
    store(d8, sums)
    store(d7, sums + tap)
    store(d6, sums + 2 * tap)
    store(d5, sums + 3 * tap)
    store(d4, sums + 4 * tap)
    store(d3, sums + 5 * tap)
    store(d2, sums + 6 * tap)
    store(d1, sums + 7 * tap)
    store(d0, sums + 8 * tap)
