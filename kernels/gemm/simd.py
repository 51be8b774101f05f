"""Matrix products by register tiles: the rung simd."""

from __future__ import annotations

import numpy as np

from ..checks import Array
from ..jit import MAX_CHUNKS, chunks, kernel, max_threads, parallel, prange, thread_id
from ..memory import empty
from ..simd import LANES, address, prefetch_run, transpose_block
from ..tile import TILE_COLUMNS, TILE_ROWS, dot_tile, prefetch_tile, tile_height
from .blas import add_up, nn_blas, nt_blas, reduction_chunks, tn_blas, wanted_parts
from .narrow import APART, dots_of, narrow, turned

# A part of a product works on so many elements of `a`: about 1 ms of work at 128 columns.
PART_OF_A = 1 << 16
# An output block of a reduction stays in L2: so many columns of tiles side by side.
COLUMNS_IN_L2 = 8
# Steps of a reduction between two visits of an output tile, while its block fits L2 and not.
STEPS, LONG_STEPS, BLOCK_IN_L2 = 128, 256, 1 << 17
# Rows a multiple of 4,096 bytes apart fall into the same sets of L1 and push each other out.
ALIASING = 1024


def nn_simd(a: Array, b: Array) -> Array:
    """Keep a tile of sums in registers: each number that is loaded is used many times over."""
    if a.dtype != np.float32:
        return nn_blas(a, b)
    (m, k), n = a.shape, b.shape[1]
    if narrow(n, k):
        return dots_of(a, turned(b))
    y = empty((m, n), a.dtype)
    nn_simd_loop(a, b, y, *parts_of(m, k, n), room_for(a))
    return y


def room_for(a: Array) -> Array:
    """Return room, per thread, to set rows of a apart that push each other out of L1."""
    width = a.shape[1] + APART if a.shape[1] % ALIASING == 0 else 0
    return empty((max_threads(), TILE_ROWS, width), a.dtype)


def parts_of(m: int, k: int, n: int) -> tuple[int, int]:
    """Return into how many parts to cut rows and columns of an (m, n) product of length k."""
    rows = max(1, PART_OF_A // max(1, k) // TILE_ROWS) * TILE_ROWS
    by_row = max(1, m // rows)
    return by_row, max(1, min(MAX_CHUNKS // by_row, -(-n // TILE_COLUMNS)))


@parallel
def nn_simd_loop(a: Array, b: Array, y: Array, by_row: int, by_column: int, room: Array) -> None:
    """a (M, K), b (K, N) -> y (M, N), in by_row * by_column parts; room as from `room_for`."""
    row_tiles, column_tiles = -(-y.shape[0] // TILE_ROWS), -(-y.shape[1] // TILE_COLUMNS)
    for part in prange(by_row * by_column):
        row, column = part // by_column, part % by_column
        top, bottom = row * row_tiles // by_row, (row + 1) * row_tiles // by_row
        left, right = column * column_tiles // by_column, (column + 1) * column_tiles // by_column
        multiply_part(a, b, y, top, bottom, left, right, room, thread_id())


@kernel
def multiply_part(
    a: Array, b: Array, y: Array, top: int, bottom: int, left: int, right: int, room: Array,
    thread: int,
) -> None:  # fmt: skip
    """As `multiply`, for tile rows top .. bottom - 1 of y, set apart if there is room."""
    own = room[thread]
    if own.size == 0:
        rows = slice(top * TILE_ROWS, bottom * TILE_ROWS)
        multiply(a[rows], b, y[rows], left, right)
        return
    for i in range(top * TILE_ROWS, min(bottom * TILE_ROWS, a.shape[0]), TILE_ROWS):
        height = min(TILE_ROWS, a.shape[0] - i)
        for row in range(height):
            a_row, copy = a[i + row], own[row]
            for k in range(a_row.size):
                copy[k] = a_row[k]
        multiply(own[:height], b, y[i : i + height], left, right)


@kernel
def multiply(a: Array, b: Array, y: Array, left: int, right: int) -> None:
    """a (M, K or wider) @ b (K, N) -> tile columns left .. right - 1 of y (M, N).

    A tile's rows of a stay in L1 while b, in L2 or L3, passes by. What the next rows of tiles
    read and write is asked for meanwhile, so that memory works while the sums do.
    """
    (m, n), i = y.shape, 0
    share = -(-TILE_ROWS // max(1, right - left)) * 4 * a.shape[1]
    while i < m:
        rows, below = tile_height(m - i), i + TILE_ROWS
        for jt in range(left, right):
            j = jt * TILE_COLUMNS
            prefetch_run(address(a) + 4 * below * a.shape[1] + (jt - left) * share, share)
            prefetch_tile(address(y) + 4 * (below * n + j), n)
            dot_tile(
                address(a) + 4 * i * a.shape[1], a.shape[1], 1,
                address(b) + 4 * j, n,
                address(y) + 4 * (i * n + j), n,
                b.shape[0], rows, min(TILE_COLUMNS, n - j), 0,
                i + TILE_ROWS <= m and j + TILE_COLUMNS <= n,
            )  # fmt: skip
        i += rows


def nt_simd(a: Array, b: Array) -> Array:
    """Transpose b, which is small against the product, and multiply as in nn."""
    if a.dtype != np.float32:
        return nt_blas(a, b)
    if narrow(len(b), a.shape[1]):
        return dots_of(a, b)
    return nn_simd(a, transpose(b))


def transpose(b: Array) -> Array:
    """Return a contiguous copy of b.T, float32."""
    transposed = empty(b.shape[::-1], b.dtype)
    transpose_loop(b, transposed, chunks(len(b), LANES))
    return transposed


@parallel
def transpose_loop(b: Array, transposed: Array, n_chunks: int) -> None:
    """b (N, K) -> transposed (K, N), by blocks that fit the registers.

    So both are read and written by whole vectors: lines of memory that are visited once per
    number are gone from L1 in between where rows push each other out.
    """
    rows, columns = b.shape
    for chunk in prange(n_chunks):
        low, high = chunk * rows // n_chunks, (chunk + 1) * rows // n_chunks
        for i in range(low, high, LANES):
            for j in range(0, columns, LANES):
                if i + LANES <= high and j + LANES <= columns:
                    transpose_block(
                        address(b) + 4 * (i * columns + j), 4 * columns,
                        address(transposed) + 4 * (j * rows + i), 4 * rows,
                    )  # fmt: skip
                else:
                    transpose_edge(b, transposed, i, min(i + LANES, high), j)


@kernel
def transpose_edge(b: Array, transposed: Array, i: int, stop: int, j: int) -> None:
    """Transpose rows i .. stop - 1 of b and LANES columns from j on, or what there is."""
    for column in range(j, min(j + LANES, b.shape[1])):
        out = transposed[column, i:stop]
        for row in range(out.size):
            out[row] = b[i + row, column]


def tn_simd(a: Array, b: Array) -> Array:
    """Read a down its columns, as it lies; split a long reduction, or else y.

    Partial sums of the chunks of the reduction are added in order.
    """
    if a.dtype != np.float32:
        return tn_blas(a, b)
    (k, m), n = a.shape, b.shape[1]
    if narrow(n, k) and n < m:  # y turned has long rows
        return np.ascontiguousarray(tn_simd(b, a).T)
    n_chunks = reduction_chunks(k, m * n, wanted_parts(k * m * n))
    by_column = max(1, -(-n // TILE_COLUMNS) // COLUMNS_IN_L2)
    by_row = max(1, min(MAX_CHUNKS // (2 * n_chunks * by_column), m // (4 * TILE_ROWS)))
    partial = empty((n_chunks, m, n), a.dtype)
    tn_simd_loop(a, b, partial, by_row, by_column)
    return add_up(partial)


@parallel
def tn_simd_loop(a: Array, b: Array, partial: Array, by_row: int, by_column: int) -> None:
    """a (K, M), b (K, N) -> partial (chunks, M, N), in chunks * by_row * by_column parts."""
    n_chunks, m, n = partial.shape
    row_tiles, column_tiles = -(-m // TILE_ROWS), -(-n // TILE_COLUMNS)
    for part in prange(n_chunks * by_row * by_column):
        chunk, output = part // (by_row * by_column), part % (by_row * by_column)
        row, column = output // by_column, output % by_column
        low, high = chunk * a.shape[0] // n_chunks, (chunk + 1) * a.shape[0] // n_chunks
        top = row * row_tiles // by_row * TILE_ROWS
        bottom = min(m, (row + 1) * row_tiles // by_row * TILE_ROWS)
        left, right = column * column_tiles // by_column, (column + 1) * column_tiles // by_column
        add_outer(a[low:high], b[low:high], partial[chunk], top, bottom, left, right, False)


@kernel
def multiply_transposed(
    a: Array, b: Array, y: Array, left: int, right: int, accumulate: bool
) -> None:
    """a (K, M).T @ b (K, N) -> tile columns left .. right - 1 of y (M, N), or added to them."""
    add_outer(a, b, y, 0, y.shape[0], left, right, accumulate)


@kernel
def add_outer(
    a: Array, b: Array, y: Array, top: int, bottom: int, left: int, right: int, accumulate: bool
) -> None:
    """As `multiply_transposed`, for rows top .. bottom - 1 of y."""
    (k, m), n, columns = a.shape, b.shape[1], TILE_COLUMNS * (right - left)
    longest = STEPS if (bottom - top) * columns <= BLOCK_IN_L2 else LONG_STEPS
    tiles = (-(-(bottom - top) // TILE_ROWS)) * (right - left)
    for start in range(0, max(k, 1), longest):
        steps = min(longest, k - start)
        last, coming, share, i = start + steps - 1, start + steps, -(-steps // tiles), top
        while i < bottom:
            rows = tile_height(bottom - i)
            for jt in range(left, right):
                j = jt * TILE_COLUMNS
                for step in range(coming, coming + share):  # a few of the next rows per tile
                    prefetch_run(address(a) + 4 * (step * m + top), 4 * (bottom - top))
                    prefetch_run(address(b) + 4 * (step * n + left * TILE_COLUMNS), 4 * columns)
                coming += share
                dot_tile(
                    address(a) + 4 * (start * m + i), 1, m,
                    address(b) + 4 * (start * n + j), n,
                    address(y) + 4 * (i * n + j), n,
                    steps, rows, min(TILE_COLUMNS, n - j), accumulate or start > 0,
                    # Reading on past the end of a row is harmless while rows follow.
                    last * m + i + TILE_ROWS <= a.size and last * n + j + TILE_COLUMNS <= b.size,
                )  # fmt: skip
            i += rows
