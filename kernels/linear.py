"""Linear (dense) layer: y (..., Cout) = x (..., Cin) @ w (Cin, Cout).

The same arithmetic as a pointwise convolution, with rows for pixels; the loops are in
`gemm`. It has ladders of its own because their shapes differ: few rows here, 100,352 there,
and often few columns, one per class. Its last rung is made for those:

| rung | the one idea                                                                   |
|------|--------------------------------------------------------------------------------|
| few  | where columns would leave most of a register tile empty, let vectors run along |
|      | the long axis instead: Cin                                                     |
"""

from __future__ import annotations

import numpy as np

from . import gemm, pointwise
from .checks import Array
from .jit import chunks, kernel, parallel, prange
from .ladder import Ladder
from .memory import empty
from .simd import VECTOR_BYTES, load, multiply_add, total, whole_vectors, zero
from .tile import TILE_COLUMNS

PRODUCTS = 1 << 16  # multiply-adds that make a chunk worth a thread: about 4 microseconds


def _few(x: Array, w: Array) -> bool:
    return x.dtype == np.float32 and 2 * w.shape[1] <= TILE_COLUMNS


def forward_few(x: Array, w: Array) -> Array:
    """Each output is a dot product of two rows that lie in memory in one piece."""
    if not _few(x, w):
        return pointwise.forward_rungs["simd"](x, w)
    y = empty((*x.shape[:-1], w.shape[1]), x.dtype)
    rows, out = x.reshape(-1, x.shape[-1]), y.reshape(-1, w.shape[1])
    n_chunks = chunks(len(rows), max(1, PRODUCTS // w.size))
    forward_loop(rows, np.ascontiguousarray(w.T), out, n_chunks)
    return y


@parallel
def forward_loop(x: Array, wt: Array, y: Array, n_chunks: int) -> None:
    """x (M, K), wt (N, K) -> y (M, N)."""
    rows = x.shape[0]
    for chunk in prange(n_chunks):
        low, high = chunk * rows // n_chunks, (chunk + 1) * rows // n_chunks
        dots(x[low:high], wt, y[low:high])


@kernel
def dots(x: Array, wt: Array, y: Array) -> None:
    """x (M, K), wt (N, K) -> y (M, N): 2 x 5 at a time, so that 7 loads serve 10 products.

    Past the last row or column it does that one again.
    """
    (m, k), n, whole = x.shape, wt.shape[0], whole_vectors(x)
    row = x.itemsize * k
    for i0 in range(0, m, 2):
        i1 = min(i0 + 1, m - 1)
        x0, x1 = x.ctypes.data + i0 * row, x.ctypes.data + i1 * row
        for j0 in range(0, n, 5):
            j1, j2 = min(j0 + 1, n - 1), min(j0 + 2, n - 1)
            j3, j4 = min(j0 + 3, n - 1), min(j0 + 4, n - 1)
            w0, w1 = wt.ctypes.data + j0 * row, wt.ctypes.data + j1 * row
            w2, w3 = wt.ctypes.data + j2 * row, wt.ctypes.data + j3 * row
            w4 = wt.ctypes.data + j4 * row
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
            x_row, w_row = x[i, left:], wt[j, left:]
            for c in range(x_row.size):
                y[i, j] += x_row[c] * w_row[c]


def backward_input_few(dy: Array, w: Array) -> Array:
    """Few steps, many columns: the tile's own case once w is turned, which is quick to do."""
    if not _few(dy, w):
        return pointwise.backward_input_rungs["simd"](dy, w)
    rows = dy.reshape(-1, dy.shape[-1])
    dx = gemm.nn.rungs["simd"](rows, np.ascontiguousarray(w.T))
    return dx.reshape(*dy.shape[:-1], w.shape[0])


def backward_weight_few(dy: Array, x: Array) -> Array:
    """Compute dw turned, (Cout, Cin), which has long rows, and turn that."""
    if not _few(x, dy.reshape(-1, dy.shape[-1])):
        return pointwise.backward_weight_rungs["simd"](dy, x)
    rows, dy_rows = x.reshape(-1, x.shape[-1]), dy.reshape(-1, dy.shape[-1])
    return np.ascontiguousarray(gemm.tn.rungs["simd"](dy_rows, rows).T)


forward = Ladder(
    "linear.forward", check=pointwise.check_forward, **pointwise.forward_rungs, few=forward_few
)
backward_input = Ladder(
    "linear.backward_input",
    check=pointwise.check_backward_input,
    **pointwise.backward_input_rungs,
    few=backward_input_few,
)
backward_weight = Ladder(
    "linear.backward_weight",
    check=pointwise.check_backward_weight,
    **pointwise.backward_weight_rungs,
    few=backward_weight_few,
)
