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
| simd       | a tile of sums stays in registers (`simd.dot_tile`); float64 runs blas |

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
from .simd import TILE_COLUMNS, TILE_ROWS, dot_tile

# About 0.5 ms of work; smaller parts lose to waking threads up.
PART_MACS = 25_000_000
# A part of a simd product works on rows that stay in L2: so many elements of `a`.
ROWS_IN_L2 = 1 << 16
# Steps of a reduction between two visits of an output tile: so many rows of `b` stay in L1.
STEPS_IN_L1 = 256
# Rows a multiple of 4,096 bytes apart fall into the same sets of L1 and push each other out.
ALIASING = 1024
# Narrower tiles than this lose BLAS's speed to packing.
BLAS_TILE = 192
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
    by_row = max(1, min(parts, m // BLAS_TILE))
    by_column = max(1, min(-(-parts // by_row), n // BLAS_TILE))
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
    outputs = tiles(m, n, min(wanted, max(1, m * n // BLAS_TILE**2)))
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


# --- simd -----------------------------------------------------------------------------


def nn_simd(a: Array, b: Array) -> Array:
    """Keep a tile of sums in registers: each number that is loaded is used many times over."""
    if a.dtype != np.float32:
        return nn_blas(a, b)
    (m, k), n = a.shape, b.shape[1]
    y = empty((m, n), a.dtype)
    if k and k % ALIASING == 0:
        padded = empty((m, k + 16), a.dtype)
        copy_loop(a, padded, chunks(m))
        a = padded
    rows = max(1, ROWS_IN_L2 // max(1, k) // TILE_ROWS) * TILE_ROWS
    by_row = max(1, m // rows)
    by_column = max(1, min(MAX_CHUNKS // by_row, -(-n // TILE_COLUMNS)))
    nn_simd_loop(a, b, y, by_row, by_column)
    return y


@parallel
def nn_simd_loop(a: Array, b: Array, y: Array, by_row: int, by_column: int) -> None:
    """a (M, K or wider), b (K, N) -> y (M, N), in by_row * by_column parts."""
    row_tiles, column_tiles = -(-y.shape[0] // TILE_ROWS), -(-y.shape[1] // TILE_COLUMNS)
    for part in prange(by_row * by_column):
        row, column = part // by_column, part % by_column
        top, bottom = row * row_tiles // by_row, (row + 1) * row_tiles // by_row
        left, right = column * column_tiles // by_column, (column + 1) * column_tiles // by_column
        multiply(
            a[top * TILE_ROWS : bottom * TILE_ROWS],
            b,
            y[top * TILE_ROWS : bottom * TILE_ROWS],
            left,
            right,
        )


@kernel
def multiply(a: Array, b: Array, y: Array, left: int, right: int) -> None:
    """a (M, K or wider) @ b (K, N) -> tile columns left .. right - 1 of y (M, N)."""
    m, n = y.shape
    for jt in range(left, right):
        for i in range(0, m, TILE_ROWS):
            j = jt * TILE_COLUMNS
            dot_tile(
                a.ctypes.data + 4 * i * a.shape[1], a.shape[1], 1,
                b.ctypes.data + 4 * j, n,
                y.ctypes.data + 4 * (i * n + j), n,
                b.shape[0], min(TILE_ROWS, m - i), min(TILE_COLUMNS, n - j), 0,
                i + TILE_ROWS <= m and j + TILE_COLUMNS <= n,
            )  # fmt: skip


@parallel
def copy_loop(a: Array, padded: Array, n_chunks: int) -> None:
    """a (M, K) -> the first K columns of padded (M, wider)."""
    rows = a.shape[0]
    for chunk in prange(n_chunks):
        for i in range(chunk * rows // n_chunks, (chunk + 1) * rows // n_chunks):
            a_row, padded_row = a[i], padded[i]
            for k in range(a_row.size):
                padded_row[k] = a_row[k]


def nt_simd(a: Array, b: Array) -> Array:
    """Transpose b, which is small against the product, and multiply as in nn."""
    if a.dtype != np.float32:
        return nt_blas(a, b)
    return nn_simd(a, transpose(b))


def transpose(b: Array) -> Array:
    """Return a contiguous copy of b.T."""
    transposed = empty(b.shape[::-1], b.dtype)
    transpose_loop(b, transposed, chunks(len(b), 16))
    return transposed


@parallel
def transpose_loop(b: Array, transposed: Array, n_chunks: int) -> None:
    """b (N, K) -> transposed (K, N); 16 columns at a time, so that cache lines are used up."""
    rows, columns = b.shape
    for chunk in prange(n_chunks):
        low, high = chunk * rows // n_chunks, (chunk + 1) * rows // n_chunks
        for k in range(0, columns, 16):
            block, out = b[low:high, k : k + 16], transposed[k : k + 16, low:high]
            for i in range(block.shape[0]):
                for j in range(block.shape[1]):
                    out[j, i] = block[i, j]


def tn_simd(a: Array, b: Array) -> Array:
    """Read a down its columns, as it lies; split a long reduction, or else the columns of y.

    Partial sums of the chunks of the reduction are added in order.
    """
    if a.dtype != np.float32:
        return tn_blas(a, b)
    (k, m), n = a.shape, b.shape[1]
    n_chunks = reduction_chunks(k, m * n, wanted_parts(k * m * n))
    by_column = max(1, min(MAX_CHUNKS // n_chunks, -(-n // TILE_COLUMNS)))
    partial = empty((n_chunks, m, n), a.dtype)
    tn_simd_loop(a, b, partial, by_column)
    return add_up(partial)


@parallel
def tn_simd_loop(a: Array, b: Array, partial: Array, by_column: int) -> None:
    """a (K, M), b (K, N) -> partial (chunks, M, N), in chunks * by_column parts."""
    n_chunks, column_tiles = len(partial), -(-partial.shape[2] // TILE_COLUMNS)
    for part in prange(n_chunks * by_column):
        chunk, column = part // by_column, part % by_column
        low, high = chunk * a.shape[0] // n_chunks, (chunk + 1) * a.shape[0] // n_chunks
        left, right = column * column_tiles // by_column, (column + 1) * column_tiles // by_column
        multiply_transposed(a[low:high], b[low:high], partial[chunk], left, right, False)


@kernel
def multiply_transposed(
    a: Array, b: Array, y: Array, left: int, right: int, accumulate: bool
) -> None:
    """a (K, M).T @ b (K, N) -> tile columns left .. right - 1 of y (M, N), or added to them."""
    (k, m), n = a.shape, b.shape[1]
    for start in range(0, max(k, 1), STEPS_IN_L1):
        steps = min(STEPS_IN_L1, k - start)
        last = start + steps - 1
        for jt in range(left, right):
            for i in range(0, m, TILE_ROWS):
                j = jt * TILE_COLUMNS
                dot_tile(
                    a.ctypes.data + 4 * (start * m + i), 1, m,
                    b.ctypes.data + 4 * (start * n + j), n,
                    y.ctypes.data + 4 * (i * n + j), n,
                    steps, min(TILE_ROWS, m - i), min(TILE_COLUMNS, n - j),
                    accumulate or start > 0,
                    # Reading on past the end of a row is harmless while rows follow.
                    last * m + i + TILE_ROWS <= a.size and last * n + j + TILE_COLUMNS <= b.size,
                )  # fmt: skip


nn = Ladder(
    "gemm.nn",
    check=_check_nn,
    naive=nn_naive,
    numpy=nn_numpy,
    loop_order=nn_loop_order,
    blas=nn_blas,
    simd=nn_simd,
)
nt = Ladder(
    "gemm.nt",
    check=_check_nt,
    naive=nt_naive,
    numpy=nt_numpy,
    loop_order=nt_loop_order,
    blas=nt_blas,
    simd=nt_simd,
)
tn = Ladder(
    "gemm.tn",
    check=_check_tn,
    naive=tn_naive,
    numpy=tn_numpy,
    loop_order=tn_loop_order,
    blas=tn_blas,
    simd=tn_simd,
)
