"""Matrix products that know the caches, in plain loops: the rungs blocked and packed."""

from __future__ import annotations

import numpy as np

from ..checks import Array
from ..jit import MAX_CHUNKS, chunks, kernel, parallel, prange
from ..memory import empty
from .blas import add_up, reduction_chunks, wanted_parts

# --- blocked --------------------------------------------------------------------------

# Numbers in a block (16 KB): half of the first-level cache, the rest is for rows passing by.
BLOCK = 1 << 12


def nn_blocked(a: Array, b: Array) -> Array:
    """Finish with a few rows of b before the next ones, and add four of them at a time.

    Every row of y finds the block of b in the first-level cache, where loop_order reads all of
    b for each; and y is read and written once per four products, not once per product.
    """
    y = np.zeros((a.shape[0], b.shape[1]), a.dtype)
    nn_blocked_loop(a, b, y, chunks(len(a)))
    return y


@parallel
def nn_blocked_loop(a: Array, b: Array, y: Array, n_chunks: int) -> None:
    """a (M, K), b (K, N) -> y (M, N) that starts at zero."""
    rows, (depth, columns) = a.shape[0], b.shape
    block = max(4, BLOCK // max(1, columns) // 4 * 4)
    for chunk in prange(n_chunks):
        for start in range(0, depth, block):
            stop = min(start + block, depth)
            for i in range(chunk * rows // n_chunks, (chunk + 1) * rows // n_chunks):
                add_rows(a[i, start:stop], b[start:stop], y[i])


@kernel
def add_rows(a: Array, b: Array, y: Array) -> None:
    """a (K,) @ b (K, N), added to y (N,)."""
    fours = a.size // 4 * 4
    for k in range(0, fours, 4):
        a0, a1, a2, a3 = a[k], a[k + 1], a[k + 2], a[k + 3]
        b0, b1, b2, b3 = b[k], b[k + 1], b[k + 2], b[k + 3]
        for j in range(y.size):
            y[j] += a0 * b0[j] + a1 * b1[j] + a2 * b2[j] + a3 * b3[j]
    for k in range(fours, a.size):
        scale, b_row = a[k], b[k]
        for j in range(y.size):
            y[j] += scale * b_row[j]


def nt_blocked(a: Array, b: Array) -> Array:
    """Finish with a few rows of b before the next ones, and take four dot products at a time."""
    y = empty((a.shape[0], b.shape[0]), a.dtype)
    nt_blocked_loop(a, b, y, chunks(len(a)))
    return y


@parallel
def nt_blocked_loop(a: Array, b: Array, y: Array, n_chunks: int) -> None:
    """a (M, K), b (N, K) -> y (M, N)."""
    rows, (columns, depth) = a.shape[0], b.shape
    block = max(4, BLOCK // max(1, depth) // 4 * 4)
    for chunk in prange(n_chunks):
        for start in range(0, columns, block):
            stop = min(start + block, columns)
            for i in range(chunk * rows // n_chunks, (chunk + 1) * rows // n_chunks):
                dot_rows(a[i], b[start:stop], y[i, start:stop])


@kernel
def dot_rows(a: Array, b: Array, y: Array) -> None:
    """a (K,), b (N, K) -> y (N,)."""
    fours = y.size // 4 * 4
    for j in range(0, fours, 4):
        b0, b1, b2, b3 = b[j], b[j + 1], b[j + 2], b[j + 3]
        y0 = y1 = y2 = y3 = a.dtype.type(0)
        for k in range(a.size):
            y0 += a[k] * b0[k]
            y1 += a[k] * b1[k]
            y2 += a[k] * b2[k]
            y3 += a[k] * b3[k]
        y[j], y[j + 1], y[j + 2], y[j + 3] = y0, y1, y2, y3
    for j in range(fours, y.size):
        b_row, total = b[j], a.dtype.type(0)
        for k in range(a.size):
            total += a[k] * b_row[k]
        y[j] = total


def tn_blocked(a: Array, b: Array) -> Array:
    """Finish with a few rows of y before the next ones, four products at a time.

    They take their whole sum in the first-level cache, where loop_order visits all of y once
    per row of a and b. A long reduction is split; its partial sums are added up in order.
    """
    (k, m), n = a.shape, b.shape[1]
    partial = np.zeros((reduction_chunks(k, m * n, wanted_parts(k * m * n)), m, n), a.dtype)
    tn_blocked_loop(a, b, partial)
    return add_up(partial)


@parallel
def tn_blocked_loop(a: Array, b: Array, partial: Array) -> None:
    """a (K, M), b (K, N) -> partial (chunks, M, N) that starts at zero."""
    depth, (n_chunks, rows, columns) = a.shape[0], partial.shape
    block = max(1, BLOCK // max(1, columns))
    parts = -(-rows // block)
    for part in prange(n_chunks * parts):
        chunk, top = part // parts, part % parts * block
        low, high = chunk * depth // n_chunks, (chunk + 1) * depth // n_chunks
        for k in range(low, high, 4):
            steps = min(4, high - k)
            for i in range(top, min(top + block, rows)):
                add_rows(a[k : k + steps, i], b[k : k + steps], partial[chunk, i])


# --- packed ---------------------------------------------------------------------------

# A panel of b is PANEL columns wide; the innermost loop adds STRIP x STRIP products of numbers
# of a, which stay in registers, with its rows.
PANEL, STRIP = 64, 4


def nn_packed(a: Array, b: Array) -> Array:
    """Copy operands into panels that are read from end to end, padded so that no edge is left."""
    return _packed(a, b)


def nt_packed(a: Array, b: Array) -> Array:
    """Packing transposes on the way; the loop that multiplies is the same."""
    return _packed(a, b.T)


def tn_packed(a: Array, b: Array) -> Array:
    """Packing transposes on the way; partial sums of a long reduction are added in order."""
    return _packed(a.T, b)


def _packed(a: Array, b: Array) -> Array:
    (m, k), n = a.shape, b.shape[1]
    n_chunks = reduction_chunks(k, m * n, wanted_parts(k * m * n))
    by_row = max(1, min(MAX_CHUNKS // n_chunks, -(-m // STRIP)))
    depth = -(-k // STRIP) * STRIP
    panels = empty((-(-n // PANEL), depth * PANEL), b.dtype)
    pack_loop(b, panels)
    partial = empty((n_chunks, m, n), a.dtype)
    n_parts = n_chunks * by_row
    strips = empty((n_parts, (k // n_chunks + 2 * STRIP) * STRIP), a.dtype)
    packed_loop(a, panels, partial, strips, empty((n_parts, STRIP * PANEL), a.dtype))
    return add_up(partial)


@parallel
def pack_loop(b: Array, panels: Array) -> None:
    """b (K, N) -> panels (N / PANEL, K * PANEL), both rounded up, zeros where b ends."""
    for panel in prange(panels.shape[0]):
        out, left = panels[panel], panel * PANEL
        out[:] = 0
        for k in range(b.shape[0]):
            for j in range(min(PANEL, b.shape[1] - left)):
                out[k * PANEL + j] = b[k, left + j]


@parallel
def packed_loop(a: Array, panels: Array, partial: Array, strips: Array, tiles: Array) -> None:
    """a (M, K), panels of b -> partial (chunks, M, N); a strip and a tile of scratch per part."""
    n_chunks, m, k = partial.shape[0], partial.shape[1], a.shape[1]
    by_row, groups = strips.shape[0] // n_chunks, -(-m // STRIP)
    steps = panels.shape[1] // PANEL // STRIP
    for part in prange(strips.shape[0]):
        chunk, row = part // by_row, part % by_row
        low, high = chunk * steps // n_chunks * STRIP, (chunk + 1) * steps // n_chunks * STRIP
        strip, tile = strips[part, : (high - low) * STRIP], tiles[part]
        for group in range(row * groups // by_row, (row + 1) * groups // by_row):
            top = group * STRIP
            pack_strip(a[top : top + STRIP, low : min(high, k)], strip)
            for panel in range(panels.shape[0]):
                left = panel * PANEL
                multiply_panel(strip, panels[panel, low * PANEL : high * PANEL], tile)
                for i in range(min(STRIP, m - top)):
                    y_row = partial[chunk, top + i, left : left + PANEL]
                    for j in range(y_row.size):
                        y_row[j] = tile[i * PANEL + j]


@kernel
def pack_strip(a: Array, strip: Array) -> None:
    """a (STRIP or fewer, K) -> strip (>= K * STRIP,), zeros where a ends."""
    rows, steps = a.shape
    if rows < STRIP:
        strip[:] = 0
    for k in range(steps):
        for i in range(rows):
            strip[k * STRIP + i] = a[i, k]
    strip[steps * STRIP :] = 0


@kernel
def multiply_panel(strip: Array, panel: Array, tile: Array) -> None:
    """Strip of a (K * STRIP,), panel of b (K * PANEL,) -> tile of y (STRIP * PANEL,).

    Sixteen products per four numbers of y read and written, where loop_order has one per one.
    """
    tile[:] = 0
    for k in range(0, strip.size // STRIP, STRIP):
        a, b = strip[k * STRIP : (k + STRIP) * STRIP], panel[k * PANEL : (k + STRIP) * PANEL]
        for j in range(PANEL):
            b0, b1, b2, b3 = b[j], b[j + PANEL], b[j + 2 * PANEL], b[j + 3 * PANEL]
            tile[j] += a[0] * b0 + a[4] * b1 + a[8] * b2 + a[12] * b3
            tile[j + PANEL] += a[1] * b0 + a[5] * b1 + a[9] * b2 + a[13] * b3
            tile[j + 2 * PANEL] += a[2] * b0 + a[6] * b1 + a[10] * b2 + a[14] * b3
            tile[j + 3 * PANEL] += a[3] * b0 + a[7] * b1 + a[11] * b2 + a[15] * b3
