"""Bias: one number added to each channel; its gradient is the sum over everything else.

| rung  | the one idea                                                                  |
|-------|-------------------------------------------------------------------------------|
| naive | two loops                                                                     |
| numpy | broadcasting, and a sum over rows                                             |
| fused | all threads; each chunk of rows keeps its own sums, added up in chunk order   |
"""

from __future__ import annotations

import numpy as np

from .checks import Array, check_array
from .jit import chunks, kernel, parallel, prange
from .ladder import TABLE, Ladder, Rule
from .memory import empty_like

SMALL = 1 << 13  # elements; below, starting a parallel loop costs more than NumPy's whole pass
# Rows that make a chunk of the sum worth a thread.
ROWS = 64


def _check_forward(x: Array, bias: Array, *, out: Array | None = None) -> None:
    check_array("x", x)
    check_array("bias", bias, x.shape[-1:], like=x)
    if out is not None:
        check_array("out", out, x.shape, like=x)


def _check_backward(dy: Array) -> None:
    check_array("dy", dy)


def _rows(x: Array) -> Array:
    return x.reshape(-1, x.shape[-1])


def forward_naive(x: Array, bias: Array, *, out: Array | None = None) -> Array:
    """Visit every element."""
    y = empty_like(x) if out is None else out
    naive_forward_loop(_rows(x), bias, _rows(y))
    return y


@kernel
def naive_forward_loop(x: Array, bias: Array, y: Array) -> None:
    """x (rows, C), bias (C,) -> y (rows, C), which may be x."""
    for row in range(x.shape[0]):
        for c in range(x.shape[1]):
            y[row, c] = x[row, c] + bias[c]


def backward_naive(dy: Array) -> Array:
    """Visit every element and add it to its channel's sum."""
    db = np.zeros(dy.shape[-1])
    naive_backward_loop(_rows(dy), db)
    return db.astype(dy.dtype)


@kernel
def naive_backward_loop(dy: Array, db: Array) -> None:
    """dy (rows, C) -> db (C,) float64 that starts at zero."""
    for row in range(dy.shape[0]):
        for c in range(dy.shape[1]):
            db[c] += dy[row, c]


def forward_numpy(x: Array, bias: Array, *, out: Array | None = None) -> Array:
    """Broadcast the bias over all leading axes."""
    return np.add(x, bias, out=out)


def backward_numpy(dy: Array) -> Array:
    """Sum the rows in float64."""
    return np.asarray(_rows(dy).sum(axis=0, dtype=np.float64), dy.dtype)


def forward_fused(x: Array, bias: Array, *, out: Array | None = None) -> Array:
    """One pass on all threads, in place where `out` is x itself."""
    y = empty_like(x) if out is None else out
    rows = _rows(x)
    fused_forward_loop(rows, bias, _rows(y), chunks(len(rows), ROWS))
    return y


@parallel
def fused_forward_loop(x: Array, bias: Array, y: Array, n_chunks: int) -> None:
    """x (rows, C), bias (C,) -> y (rows, C), which may be x."""
    rows = x.shape[0]
    for chunk in prange(n_chunks):
        for row in range(chunk * rows // n_chunks, (chunk + 1) * rows // n_chunks):
            x_row, y_row = x[row], y[row]
            for c in range(x_row.size):
                y_row[c] = x_row[c] + bias[c]


def backward_fused(dy: Array) -> Array:
    """Each chunk of rows sums its own; the chunks are added up in order, in float64."""
    rows = _rows(dy)
    partial = np.zeros((chunks(len(rows), ROWS), rows.shape[1]), dy.dtype)
    fused_backward_loop(rows, partial)
    return np.asarray(partial.sum(axis=0, dtype=np.float64), dy.dtype)


@parallel
def fused_backward_loop(dy: Array, partial: Array) -> None:
    """dy (rows, C) -> partial (chunks, C) that starts at zero."""
    rows, n_chunks = dy.shape[0], partial.shape[0]
    for chunk in prange(n_chunks):
        sums = partial[chunk]
        for row in range(chunk * rows // n_chunks, (chunk + 1) * rows // n_chunks):
            dy_row = dy[row]
            for c in range(dy_row.size):
                sums[c] += dy_row[c]


forward = Ladder(
    "bias.forward",
    check=_check_forward,
    naive=forward_naive,
    numpy=forward_numpy,
    fused=forward_fused,
)
backward = Ladder(
    "bias.backward",
    check=_check_backward,
    naive=backward_naive,
    numpy=backward_numpy,
    fused=backward_fused,
)
_small = "arrays so small that starting threads would cost more"
TABLE["bias.forward"] = (Rule("numpy", lambda x, bias, out=None: x.size < SMALL, _small),)
TABLE["bias.backward"] = (Rule("numpy", lambda dy: dy.size < SMALL, _small),)
