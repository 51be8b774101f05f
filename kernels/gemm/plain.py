"""Matrix products without a library: one dot product per element, and loops in a better order."""

from __future__ import annotations

import numpy as np

from ..checks import Array
from ..jit import chunks, kernel, parallel, prange
from ..memory import empty

# --- naive ----------------------------------------------------------------------------


def nn_naive(a: Array, b: Array) -> Array:
    """One dot product per element of the output."""
    y = empty((a.shape[0], b.shape[1]), a.dtype)
    naive_loop(a, b, y)
    return y


def nt_naive(a: Array, b: Array) -> Array:
    """One dot product per element; b is read along its rows."""
    y = empty((a.shape[0], b.shape[0]), a.dtype)
    naive_loop(a, b.T, y)
    return y


def tn_naive(a: Array, b: Array) -> Array:
    """One dot product per element; both operands are read down their columns."""
    y = empty((a.shape[1], b.shape[1]), a.dtype)
    naive_loop(a.T, b, y)
    return y


@kernel
def naive_loop(a: Array, b: Array, y: Array) -> None:
    """a (M, K), b (K, N), any strides -> y (M, N)."""
    for i in range(y.shape[0]):
        for j in range(y.shape[1]):
            total = y.dtype.type(0)
            for k in range(a.shape[1]):
                total += a[i, k] * b[k, j]
            y[i, j] = total


# --- numpy ----------------------------------------------------------------------------


def nn_numpy(a: Array, b: Array) -> Array:
    """NumPy's product: BLAS with its own threads."""
    return np.asarray(a @ b)


def nt_numpy(a: Array, b: Array) -> Array:
    """NumPy's product; BLAS reads the transpose in place."""
    return np.asarray(a @ b.T)


def tn_numpy(a: Array, b: Array) -> Array:
    """NumPy's product; BLAS reads the transpose in place."""
    return np.asarray(a.T @ b)


# --- loop_order -----------------------------------------------------------------------


def nn_loop_order(a: Array, b: Array) -> Array:
    """Order i, k, j: a row of b times one number is added to a row of y, 8 or 16 at a time."""
    y = np.zeros((a.shape[0], b.shape[1]), a.dtype)
    nn_loop(a, b, y, chunks(len(a)))
    return y


@parallel
def nn_loop(a: Array, b: Array, y: Array, n_chunks: int) -> None:
    """a (M, K), b (K, N) -> y (M, N) that starts at zero."""
    rows = a.shape[0]
    for chunk in prange(n_chunks):
        for i in range(chunk * rows // n_chunks, (chunk + 1) * rows // n_chunks):
            a_row, y_row = a[i], y[i]
            for k in range(a_row.size):
                scale, b_row = a_row[k], b[k]
                for j in range(y_row.size):
                    y_row[j] += scale * b_row[j]


def nt_loop_order(a: Array, b: Array) -> Array:
    """Order i, j, k is already good here: both rows of a dot product are contiguous."""
    y = empty((a.shape[0], b.shape[0]), a.dtype)
    nt_loop(a, b, y, chunks(len(a)))
    return y


@parallel
def nt_loop(a: Array, b: Array, y: Array, n_chunks: int) -> None:
    """a (M, K), b (N, K) -> y (M, N)."""
    rows = a.shape[0]
    for chunk in prange(n_chunks):
        for i in range(chunk * rows // n_chunks, (chunk + 1) * rows // n_chunks):
            a_row, y_row = a[i], y[i]
            for j in range(y_row.size):
                b_row = b[j]
                total = a.dtype.type(0)
                for k in range(a_row.size):
                    total += a_row[k] * b_row[k]
                y_row[j] = total


def tn_loop_order(a: Array, b: Array) -> Array:
    """Order k, i, j: outer products of rows are added up; threads share the rows of y."""
    y = np.zeros((a.shape[1], b.shape[1]), a.dtype)
    tn_loop(a, b, y, chunks(a.shape[1]))
    return y


@parallel
def tn_loop(a: Array, b: Array, y: Array, n_chunks: int) -> None:
    """a (K, M), b (K, N) -> y (M, N) that starts at zero."""
    rows = y.shape[0]
    for chunk in prange(n_chunks):
        low, high = chunk * rows // n_chunks, (chunk + 1) * rows // n_chunks
        y_part = y[low:high]
        for k in range(a.shape[0]):
            a_row, b_row = a[k, low:high], b[k]
            for i in range(a_row.size):
                scale, y_row = a_row[i], y_part[i]
                for j in range(y_row.size):
                    y_row[j] += scale * b_row[j]
