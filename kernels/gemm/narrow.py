"""Matrix products with few columns, such as one per class: the rung simd of `nn`, `nt` and `tn`.

They would leave most of a register tile empty. So vectors run along the long axis instead:
each output is a dot product of two rows that lie in memory in one piece.
"""

from __future__ import annotations

import numpy as np

from ..checks import Array
from ..jit import chunks, kernel, parallel, prange
from ..memory import empty
from ..simd import (
    CACHE_LINE,
    LANES,
    VECTOR_BYTES,
    address,
    load,
    multiply_add,
    total,
    whole_vectors,
    zero,
)
from ..tile import TILE_COLUMNS

APART = 16  # numbers that bring rows of 4,096 bytes to different sets of L1
PRODUCTS = 1 << 16  # multiply-adds that make a chunk worth a thread: about 4 microseconds


def narrow(columns: int, length: int) -> bool:
    """Tell whether an output has few columns, and the sums are long enough for vectors."""
    return 2 * columns <= TILE_COLUMNS and length >= LANES


def turned(b: Array) -> Array:
    """Return b.T in rows (N, K or wider) that begin at cache lines, in different sets of L1."""
    k, n = b.shape
    width = -(-k // LANES) * LANES + APART
    room = np.empty(n * width + APART, b.dtype)
    start = -room.ctypes.data % CACHE_LINE // room.itemsize
    rows: Array = room[start : start + n * width].reshape(n, width)
    turn(b, rows)
    return rows


@kernel
def turn(b: Array, rows: Array) -> None:
    """b (K, N) -> rows (N, K or wider) = b.T, on one thread: others would take longer to wake."""
    for k in range(b.shape[0]):
        b_row = b[k]
        for j in range(b_row.size):
            rows[j, k] = b_row[j]


def dots_of(a: Array, bt: Array) -> Array:
    """Return a (M, K) @ bt (N, K or wider).T, float32."""
    y = empty((len(a), len(bt)), a.dtype)
    dots_loop(a, bt, y, chunks(len(a), max(1, PRODUCTS // max(1, bt.size))))
    return y


@parallel
def dots_loop(x: Array, wt: Array, y: Array, n_chunks: int) -> None:
    """x (M, K), wt (N, K or wider) -> y (M, N)."""
    rows = x.shape[0]
    for chunk in prange(n_chunks):
        low, high = chunk * rows // n_chunks, (chunk + 1) * rows // n_chunks
        dots(x[low:high], wt, y[low:high])


@kernel
def dots(x: Array, wt: Array, y: Array) -> None:
    """As `dots_loop`, on this thread: 2 x 5 at a time, so that 7 loads serve 10 products.

    Past the last row or column it does that one again.
    """
    (m, k), n, whole = x.shape, wt.shape[0], whole_vectors(x)
    row, w_row = x.itemsize * k, wt.itemsize * wt.shape[1]
    for i0 in range(0, m, 2):
        i1 = min(i0 + 1, m - 1)
        x0, x1 = address(x) + i0 * row, address(x) + i1 * row
        for j0 in range(0, n, 5):
            j1, j2 = min(j0 + 1, n - 1), min(j0 + 2, n - 1)
            j3, j4 = min(j0 + 3, n - 1), min(j0 + 4, n - 1)
            w0, w1 = address(wt) + j0 * w_row, address(wt) + j1 * w_row
            w2, w3 = address(wt) + j2 * w_row, address(wt) + j3 * w_row
            w4 = address(wt) + j4 * w_row
            a0, a1, a2, a3, a4 = zero(), zero(), zero(), zero(), zero()
            b0, b1, b2, b3, b4 = zero(), zero(), zero(), zero(), zero()
            for at in range(0, whole, VECTOR_BYTES):
                a, b, w = load(x0 + at), load(x1 + at), load(w0 + at)
                a0, b0 = multiply_add(a, w, a0), multiply_add(b, w, b0)
                w = load(w1 + at)
                a1, b1 = multiply_add(a, w, a1), multiply_add(b, w, b1)
                w = load(w2 + at)
                a2, b2 = multiply_add(a, w, a2), multiply_add(b, w, b2)
                w = load(w3 + at)
                a3, b3 = multiply_add(a, w, a3), multiply_add(b, w, b3)
                w = load(w4 + at)
                a4, b4 = multiply_add(a, w, a4), multiply_add(b, w, b4)
            y[i0, j0], y[i1, j0] = total(a0), total(b0)
            y[i0, j1], y[i1, j1] = total(a1), total(b1)
            y[i0, j2], y[i1, j2] = total(a2), total(b2)
            y[i0, j3], y[i1, j3] = total(a3), total(b3)
            y[i0, j4], y[i1, j4] = total(a4), total(b4)
    left = whole // x.itemsize
    for i in range(m if left < k else 0):
        for j in range(n):
            x_rest, w_rest = x[i, left:], wt[j, left:k]
            for c in range(x_rest.size):
                y[i, j] += x_rest[c] * w_rest[c]
