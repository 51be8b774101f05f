"""Matrix products by register tiles: the rung simd."""

from __future__ import annotations

import numpy as np

from ..checks import Array
from ..jit import MAX_CHUNKS, chunks, kernel, parallel, prange
from ..memory import empty
from ..tile import TILE_COLUMNS, TILE_ROWS, dot_tile
from .blas import add_up, nn_blas, nt_blas, reduction_chunks, tn_blas, wanted_parts

# A part of a product works on rows that stay in L2: so many elements of `a`.
ROWS_IN_L2 = 1 << 16
# Steps of a reduction between two visits of an output tile: so many rows of `b` stay in L1.
STEPS_IN_L1 = 256
# Rows a multiple of 4,096 bytes apart fall into the same sets of L1 and push each other out.
ALIASING = 1024


def nn_simd(a: Array, b: Array) -> Array:
    """Keep a tile of sums in registers: each number that is loaded is used many times over."""
    if a.dtype != np.float32:
        return nn_blas(a, b)
    (m, k), n = a.shape, b.shape[1]
    y = empty((m, n), a.dtype)
    nn_simd_loop(unaliased(a), b, y, *parts_of(m, k, n))
    return y


def unaliased(a: Array) -> Array:
    """Return a (M, K), or a wider copy of it where its rows would push each other out of L1."""
    m, k = a.shape
    if k == 0 or k % ALIASING:
        return a
    wider = empty((m, k + 16), a.dtype)
    copy_loop(a, wider, chunks(m))
    return wider


def parts_of(m: int, k: int, n: int) -> tuple[int, int]:
    """Return into how many parts to cut rows and columns of an (m, n) product of length k."""
    rows = max(1, ROWS_IN_L2 // max(1, k) // TILE_ROWS) * TILE_ROWS
    by_row = max(1, m // rows)
    return by_row, max(1, min(MAX_CHUNKS // by_row, -(-n // TILE_COLUMNS)))


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
