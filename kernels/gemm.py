"""Matrix products: the forward pass and both gradients of every layer with a weight matrix.

| ladder | product              | in a layer with y = x @ w              |
|--------|----------------------|----------------------------------------|
| nn     | (M, K) @ (K, N)      | y = x @ w                              |
| nt     | (M, K) @ (N, K).T    | input gradient dx = dy @ w.T           |
| tn     | (K, M).T @ (K, N)    | weight gradient dw = x.T @ dy, K huge  |

| rung       | the one idea                                                          |
|------------|-----------------------------------------------------------------------|
| naive      | three loops, one dot product per element                              |
| numpy      | `@`: BLAS with whatever threads it takes                              |
| loop_order | innermost loop over contiguous memory, so it vectorises; all threads  |
| blas       | BLAS on one thread per part; parts cut by shape alone, side by side   |

BLAS gives other bits with another number of threads. The blas rung never lets it choose:
the parts, and the order in which partial sums are added, follow from the shape alone.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .checks import Array, ShapeError, check_array
from .jit import MAX_CHUNKS, chunks, kernel, parallel, prange, run_blas
from .ladder import Ladder
from .memory import empty

# About 0.5 ms of work; smaller parts lose to waking threads up.
PART_MACS = 25_000_000
# Narrower tiles than this lose BLAS's speed to packing.
TILE = 192
# A shorter reduction than this is not worth an extra output to be added up.
SHORTEST_REDUCTION = 1024
# Partial outputs of a split reduction take at most this many elements (16 MB).
MAX_PARTIAL = 1 << 22


def _check(a: Array, b: Array, a_axis: int, b_axis: int) -> None:
    check_array("a", a, ("rows", "columns"))
    check_array("b", b, ("rows", "columns"), like=a)
    if a.shape[a_axis] != b.shape[b_axis]:
        raise ShapeError(
            f"product: expected a.shape[{a_axis}] == b.shape[{b_axis}], got {a.shape} and {b.shape}"
        )


def _check_nn(a: Array, b: Array) -> None:
    _check(a, b, 1, 0)


def _check_nt(a: Array, b: Array) -> None:
    _check(a, b, 1, 1)


def _check_tn(a: Array, b: Array) -> None:
    _check(a, b, 0, 0)


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
    """A (M, K), b (K, N), any strides -> y (M, N)."""
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
    """A (M, K), b (K, N) -> y (M, N) that starts at zero."""
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
    """A (M, K), b (N, K) -> y (M, N)."""
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
    """A (K, M), b (K, N) -> y (M, N) that starts at zero."""
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


# --- blas -----------------------------------------------------------------------------


def cuts(n: int, parts: int) -> list[slice]:
    """Cut `n` items into at most `parts` slices of nearly equal size, in steps of 16."""
    step = max(1, -(-n // max(1, parts)))
    step = -(-step // 16) * 16
    return [slice(low, min(low + step, n)) for low in range(0, n, step)]


def wanted_parts(macs: int) -> int:
    """Return into how many parts a product of that many multiply-accumulates is worth cutting."""
    return max(1, min(MAX_CHUNKS, macs // PART_MACS))


def tiles(m: int, n: int, parts: int) -> list[tuple[slice, slice]]:
    """Cut an (m, n) output into about `parts` tiles: rows first, columns when rows are few."""
    by_row = max(1, min(parts, m // TILE))
    by_column = max(1, min(-(-parts // by_row), n // TILE))
    return [(i, j) for i in cuts(m, by_row) for j in cuts(n, by_column)]


def _product(a: Array, b: Array, y: Array) -> Callable[[], object]:
    return lambda: np.matmul(a, b, out=y)


def nn_blas(a: Array, b: Array) -> Array:
    """BLAS on tiles of the output; each tile is one thread's work, whichever thread it is."""
    y = empty((a.shape[0], b.shape[1]), a.dtype)
    m, n = y.shape
    parts = tiles(m, n, wanted_parts(y.size * a.shape[1]))
    run_blas([_product(a[i], b[:, j], y[i, j]) for i, j in parts])
    return y


def nt_blas(a: Array, b: Array) -> Array:
    """BLAS on tiles of the output; it reads the transpose in place."""
    return nn_blas(a, b.T)


def tn_blas(a: Array, b: Array) -> Array:
    """BLAS on tiles of a large output, and on chunks of a long reduction for a small one.

    Partial sums of the chunks are added in order.
    """
    (k, m), n = a.shape, b.shape[1]
    wanted = wanted_parts(k * m * n)
    outputs = tiles(m, n, min(wanted, max(1, m * n // TILE**2)))
    n_chunks = reduction_chunks(k, m * n, -(-wanted // len(outputs)))
    reduction = cuts(k, n_chunks) or [slice(0, 0)]
    partial = empty((len(reduction), m, n), a.dtype)
    run_blas(
        [
            _product(a[r, i].T, b[r, j], partial[chunk, i, j])
            for chunk, r in enumerate(reduction)
            for i, j in outputs
        ]
    )
    return add_up(partial)


def reduction_chunks(k: int, outputs: int, wanted: int) -> int:
    """Return how many chunks a reduction of length k is worth, for that many output elements."""
    return max(1, min(wanted, k // SHORTEST_REDUCTION, MAX_PARTIAL // max(1, outputs)))


def add_up(partial: Array) -> Array:
    """Sum over the first axis in order; the only chunk is returned as it is."""
    return partial[0] if len(partial) == 1 else np.asarray(np.add.reduce(partial, axis=0))


nn = Ladder(
    "gemm.nn",
    check=_check_nn,
    naive=nn_naive,
    numpy=nn_numpy,
    loop_order=nn_loop_order,
    blas=nn_blas,
)
nt = Ladder(
    "gemm.nt",
    check=_check_nt,
    naive=nt_naive,
    numpy=nt_numpy,
    loop_order=nt_loop_order,
    blas=nt_blas,
)
tn = Ladder(
    "gemm.tn",
    check=_check_tn,
    naive=tn_naive,
    numpy=tn_numpy,
    loop_order=tn_loop_order,
    blas=tn_blas,
)
