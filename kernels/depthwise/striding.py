"""Depthwise 3x3 convolution at stride 2 with explicit vectors, in serial pieces.

As in `sliding`, with weights and window in registers. Forward, the window moves two columns
a step and keeps one. Backward, a step takes four pixels of x, two by two: each output that
saw one of them is at the same place, one to the left or one above, and of the nine taps each
belongs to one pixel of the four, so nothing is multiplied by zero.
"""

from __future__ import annotations

from typing import Any

from ..checks import Array
from ..jit import kernel
from ..simd import LANES, address, load, multiply, multiply_add, store, zero
from ..windows import Pair
from .sliding import BAND, inside, read, three, write


@kernel
def forward_lines_by_2(x: Array, w: Array, y: Array, low: int, high: int, before: Pair) -> None:
    """Fill rows low .. high - 1 of the N * OH rows of y; arrays as in `sliding.forward_lines`."""
    channels, rest = y.shape[3], y.shape[3] % LANES
    band = max(1, BAND // y.shape[2])
    for first in range(low, high, band):
        last = min(first + band, high)
        for c in range(0, channels - rest, LANES):
            forward_vector_by_2(x, w, y, first, last, c, before, None)
        if rest:
            forward_vector_by_2(x, w, y, first, last, channels - rest, before, rest)


@kernel
def forward_vector_by_2(
    x: Array, w: Array, y: Array, first: int, last: int, c: int, before: Pair, lanes: Any
) -> None:
    """Fill channels c .. c + LANES - 1 of rows first .. last - 1 of y."""
    _, oh, ow, channels = y.shape
    height, width = x.shape[1], x.shape[2]
    pixel, tap = 4 * channels, 4 * w.shape[2]
    row, nothing = width * pixel, address(w) + pixel
    at = address(w) + 4 * c
    w0, w1, w2 = load(at), load(at + tap), load(at + 2 * tap)
    w3, w4, w5 = load(at + 3 * tap), load(at + 4 * tap), load(at + 5 * tap)
    w6, w7, w8 = load(at + 6 * tap), load(at + 7 * tap), load(at + 8 * tap)
    out = address(y) + first * ow * pixel + 4 * c
    for line in range(first, last):
        image = address(x) + line // oh * height * row + 4 * c
        top, left = line % oh * 2 - before[0], -before[1]
        in0, in1, in2 = inside(top, height), inside(top + 1, height), inside(top + 2, height)
        r0, r1, r2 = image + top * row, image + (top + 1) * row, image + (top + 2) * row
        r0, r1, r2 = r0 if in0 else nothing, r1 if in1 else nothing, r2 if in2 else nothing
        s0, s1, s2 = pixel if in0 else 0, pixel if in1 else 0, pixel if in2 else 0
        a0, b0, c0 = zero(), zero(), zero()
        if inside(left, width):
            a0 = read(r0 + left * s0, lanes)
            b0 = read(r1 + left * s1, lanes)
            c0 = read(r2 + left * s2, lanes)
        ox = 0
        while ox < ow:
            ix = 2 * ox + left + 1  # the two new columns
            in3, in4 = inside(ix, width), inside(ix + 1, width)
            run = min(ow - ox, (width - ix) // 2) if in3 and in4 else 1
            p0, q0 = r0 + ix * s0 if in3 else nothing, r0 + (ix + 1) * s0 if in4 else nothing
            p1, q1 = r1 + ix * s1 if in3 else nothing, r1 + (ix + 1) * s1 if in4 else nothing
            p2, q2 = r2 + ix * s2 if in3 else nothing, r2 + (ix + 1) * s2 if in4 else nothing
            ox += run
            for _ in range(run):
                a1, b1, c1 = read(p0, lanes), read(p1, lanes), read(p2, lanes)
                a2, b2, c2 = read(q0, lanes), read(q1, lanes), read(q2, lanes)
                total = three(zero(), a0, a1, a2, w0, w1, w2)
                total = three(total, b0, b1, b2, w3, w4, w5)
                write(three(total, c0, c1, c2, w6, w7, w8), out, False, lanes)
                a0, b0, c0 = a2, b2, c2
                p0, p1, p2 = p0 + 2 * s0, p1 + 2 * s1, p2 + 2 * s2
                q0, q1, q2 = q0 + 2 * s0, q1 + 2 * s1, q2 + 2 * s2
                out += pixel


@kernel
def pairs(size: int, before: int) -> int:
    """Return how many pairs (2i - before, 2i - before + 1) cover a map's rows or columns."""
    return (size - 1 + before) // 2 - before // 2 + 1


@kernel
def backward_lines_by_2(
    dy: Array, x: Array, w: Array, dx: Array, dw: Array, low: int, high: int, before: Pair,
    channels: Pair,
) -> None:  # fmt: skip
    """Fill pairs low .. high - 1 of rows of dx, and add to dw; dx may be x itself.

    There are N * pairs(H, before[0]) of them. Arrays and channels as in
    `sliding.backward_lines`; what dw holds behind its taps is overwritten.
    """
    rest = (channels[1] - channels[0]) % LANES
    band = max(1, BAND // x.shape[2] // 2)
    for first in range(low, high, band):
        last = min(first + band, high)
        for c in range(channels[0], channels[1] - rest, LANES):
            backward_vector_by_2(dy, x, w, dx, dw, first, last, c, before, None)
        if rest:
            c = channels[1] - rest
            backward_vector_by_2(dy, x, w, dx, dw, first, last, c, before, rest)


@kernel
def backward_vector_by_2(
    dy: Array, x: Array, w: Array, dx: Array, dw: Array, first: int, last: int, c: int,
    before: Pair, lanes: Any,
) -> None:  # fmt: skip
    """Fill channels c .. c + LANES - 1 of pairs first .. last - 1, and add to those of dw."""
    _, height, width, channels = x.shape
    oh, ow = dy.shape[1], dy.shape[2]
    pixel, tap = 4 * channels, 4 * w.shape[2]
    nothing, nowhere = address(w) + pixel, address(dw) + pixel
    at = address(w) + 4 * c
    w0, w1, w2 = load(at), load(at + tap), load(at + 2 * tap)
    w3, w4, w5 = load(at + 3 * tap), load(at + 4 * tap), load(at + 5 * tap)
    w6, w7, w8 = load(at + 6 * tap), load(at + 7 * tap), load(at + 8 * tap)
    sums = address(dw) + 4 * c
    d0, d1, d2 = load(sums), load(sums + tap), load(sums + 2 * tap)
    d3, d4, d5 = load(sums + 3 * tap), load(sums + 4 * tap), load(sums + 5 * tap)
    d6, d7, d8 = load(sums + 6 * tap), load(sums + 7 * tap), load(sums + 8 * tap)
    to, high = address(dx) - address(x), pairs(height, before[0])
    start, end = before[1] // 2, before[1] // 2 + pairs(width, before[1])
    for pair in range(first, last):
        # Rows oy and oy - 1 of dy, rows iy and iy + 1 of x.
        n, oy = pair // high, pair % high + before[0] // 2
        iy = 2 * oy - before[0]
        in0, in1 = inside(oy, oh), inside(oy - 1, oh)
        in2, in3 = inside(iy, height), inside(iy + 1, height)
        r0 = address(dy) + (n * oh + oy) * ow * pixel + 4 * c if in0 else nothing
        r1 = address(dy) + (n * oh + oy - 1) * ow * pixel + 4 * c if in1 else nothing
        s0, s1 = pixel if in0 else 0, pixel if in1 else 0
        s2, s3 = 2 * pixel if in2 else 0, 2 * pixel if in3 else 0
        here = address(x) + (n * height + iy) * width * pixel + 4 * c
        below = here + width * pixel
        g0, h0 = zero(), zero()
        if inside(start - 1, ow):
            g0, h0 = read(r0 + (start - 1) * s0, lanes), read(r1 + (start - 1) * s1, lanes)
        ox = start
        while ox < end:
            ix = 2 * ox - before[1]
            seen, in4, in5 = inside(ox, ow), inside(ix, width), inside(ix + 1, width)
            whole = seen and in4 and in5
            run = min(min(end, ow) - ox, (width - ix) // 2) if whole else 1
            p0, p1 = r0 + ox * s0 if seen else nothing, r1 + ox * s1 if seen else nothing
            # The four pixels of x, and where their gradients go.
            a0, b0 = here + ix * pixel, below + ix * pixel
            a1, b1 = a0 + pixel, b0 + pixel
            t0, t1 = a0 + to if in2 and in4 else nowhere, a1 + to if in2 and in5 else nowhere
            u0, u1 = b0 + to if in3 and in4 else nowhere, b1 + to if in3 and in5 else nowhere
            a0, a1 = a0 if in2 and in4 else nothing, a1 if in2 and in5 else nothing
            b0, b1 = b0 if in3 and in4 else nothing, b1 if in3 and in5 else nothing
            ox += run
            for _ in range(run):
                g, h = read(p0, lanes), read(p1, lanes)
                v0, v1 = read(a0, lanes), read(a1, lanes)
                v2, v3 = read(b0, lanes), read(b1, lanes)
                d0, d2 = multiply_add(v0, g, d0), multiply_add(v0, g0, d2)
                d6, d8 = multiply_add(v0, h, d6), multiply_add(v0, h0, d8)
                d1, d7 = multiply_add(v1, g, d1), multiply_add(v1, h, d7)
                d3, d5 = multiply_add(v2, g, d3), multiply_add(v2, g0, d5)
                d4 = multiply_add(v3, g, d4)
                total = three(multiply(g, w0), g0, h, h0, w2, w6, w8)
                write(total, t0, False, lanes)
                write(multiply_add(h, w7, multiply(g, w1)), t1, False, lanes)
                write(multiply_add(g0, w5, multiply(g, w3)), u0, False, lanes)
                write(multiply(g, w4), u1, False, lanes)
                g0, h0 = g, h
                p0, p1 = p0 + s0, p1 + s1
                a0, a1, b0, b1 = a0 + s2, a1 + s2, b0 + s3, b1 + s3
                t0, t1, u0, u1 = t0 + s2, t1 + s2, u0 + s3, u1 + s3
    store(d0, sums)
    store(d1, sums + tap)
    store(d2, sums + 2 * tap)
    store(d3, sums + 3 * tap)
    store(d4, sums + 4 * tap)
    store(d5, sums + 5 * tap)
    store(d6, sums + 6 * tap)
    store(d7, sums + 7 * tap)
    store(d8, sums + 8 * tap)
