"""Matrix products that go on with each tile of y while it is in registers.

A bias and an activation, or the sums behind batch norm's statistics, cost another pass over y
when done on their own: as long, for 100,352 rows of 128, as an eighth of the product.
"""

from __future__ import annotations

import numpy as np

from ..batchnorm import add_block, combine
from ..checks import Array
from ..jit import kernel, max_threads, parallel, prange, thread_id
from ..memory import empty
from ..simd import address, prefetch_run
from ..tile import TILE_COLUMNS, TILE_ROWS, dot_tile_then, prefetch_tile, tile_height
from .narrow import APART
from .simd import ALIASING, parts_of

# Rows whose sums are float32: eight tiles, each summed by itself. Error grows as with 22 rows.
BLOCK = 8 * TILE_ROWS


@kernel
def multiply_activate(
    a: Array, b: Array, y: Array, left: int, right: int, bias: Array, slope: Array
) -> None:
    """As `multiply`, then add bias (N,) and multiply what is not positive by slope (N,)."""
    (m, n), i = y.shape, 0
    share = -(-TILE_ROWS // max(1, right - left)) * 4 * a.shape[1]
    while i < m:
        rows, below = tile_height(m - i), i + TILE_ROWS
        for jt in range(left, right):
            j = jt * TILE_COLUMNS
            prefetch_run(address(a) + 4 * below * a.shape[1] + (jt - left) * share, share)
            prefetch_tile(address(y) + 4 * (below * n + j), n)
            dot_tile_then(
                address(a) + 4 * i * a.shape[1], a.shape[1], 1,
                address(b) + 4 * j, n,
                address(y) + 4 * (i * n + j), n,
                b.shape[0], rows, min(TILE_COLUMNS, n - j),
                i + TILE_ROWS <= m and j + TILE_COLUMNS <= n,
                address(bias) + 4 * j, address(slope) + 4 * j, 0, 0,
            )  # fmt: skip
        i += rows


@kernel
def multiply_moments(
    a: Array, b: Array, y: Array, left: int, right: int, seen: int, sums: Array, stats: Array
) -> None:
    """As `multiply`, and add the rows of y to stats (2, N), which hold `seen` others.

    stats[0] is the mean, stats[1] the sum of squared deviations from it, both float64; sums
    (at least right, 3, TILE_COLUMNS) float32 is scratch.
    """
    (m, n), i = y.shape, 0
    share = -(-TILE_ROWS // max(1, right - left)) * 4 * a.shape[1]
    while i < m:
        rows, below, start = tile_height(m - i), i + TILE_ROWS, i // BLOCK * BLOCK
        for jt in range(left, right):
            j = jt * TILE_COLUMNS
            prefetch_run(address(a) + 4 * below * a.shape[1] + (jt - left) * share, share)
            prefetch_tile(address(y) + 4 * (below * n + j), n)
            dot_tile_then(
                address(a) + 4 * i * a.shape[1], a.shape[1], 1,
                address(b) + 4 * j, n,
                address(y) + 4 * (i * n + j), n,
                b.shape[0], rows, min(TILE_COLUMNS, n - j),
                i + TILE_ROWS <= m and j + TILE_COLUMNS <= n,
                0, 0, address(sums[jt]), i == start,
            )  # fmt: skip
        i += rows
        if i == m or i == start + BLOCK:
            for jt in range(left, right):
                own, columns = sums[jt], stats[:, jt * TILE_COLUMNS : (jt + 1) * TILE_COLUMNS]
                add_block(own[0], own[1], own[2], i - start, seen + start, columns[0], columns[1])


def unaliased(a: Array) -> Array:
    """Return a (M, K), or a wider copy of it where its rows would push each other out of L1."""
    if a.shape[1] == 0 or a.shape[1] % ALIASING:
        return a
    wider = empty((len(a), a.shape[1] + APART), a.dtype)
    wider[:, : a.shape[1]] = a
    return wider


def nn_activate(a: Array, b: Array, bias: Array, slope: Array) -> Array:
    """Return prelu(a (M, K) @ b (K, N) + bias (N,)) with slope (N,), all float32."""
    y = empty((a.shape[0], b.shape[1]), a.dtype)
    activate_loop(unaliased(a), b, y, bias, slope, *parts_of(len(a), *b.shape))
    return y


@parallel
def activate_loop(
    a: Array, b: Array, y: Array, bias: Array, slope: Array, by_row: int, by_column: int
) -> None:
    """See `nn_activate`; cut as in `nn_simd_loop`."""
    row_tiles, column_tiles = -(-y.shape[0] // TILE_ROWS), -(-y.shape[1] // TILE_COLUMNS)
    for part in prange(by_row * by_column):
        row, column = part // by_column, part % by_column
        top = row * row_tiles // by_row * TILE_ROWS
        bottom = min((row + 1) * row_tiles // by_row * TILE_ROWS, y.shape[0])
        left, right = column * column_tiles // by_column, (column + 1) * column_tiles // by_column
        multiply_activate(a[top:bottom], b, y[top:bottom], left, right, bias, slope)


def nn_moments(a: Array, b: Array) -> tuple[Array, Array, Array]:
    """Return y = a (M, K) @ b (K, N), float32, with its columns' mean and variance, float64."""
    y = empty((a.shape[0], b.shape[1]), a.dtype)
    by_row, by_column = parts_of(len(a), *b.shape)
    stats = np.zeros((by_row, 2, b.shape[1]))
    sums = empty((max_threads(), -(-b.shape[1] // TILE_COLUMNS), 3, TILE_COLUMNS), np.float32)
    moments_loop(unaliased(a), b, y, sums, stats, by_column)
    tiles = np.arange(by_row + 1) * -(-len(y) // TILE_ROWS) // by_row
    return y, *combine(stats, np.diff(np.minimum(tiles * TILE_ROWS, len(y))))


@parallel
def moments_loop(a: Array, b: Array, y: Array, sums: Array, stats: Array, by_column: int) -> None:
    """See `nn_moments`; cut as in `nn_simd_loop`.

    stats (by_row, 2, N) from zero; sums (threads, column tiles, 3, TILE_COLUMNS) is scratch.
    """
    by_row = len(stats)
    row_tiles, column_tiles = -(-y.shape[0] // TILE_ROWS), -(-y.shape[1] // TILE_COLUMNS)
    for part in prange(by_row * by_column):
        row, column = part // by_column, part % by_column
        top = row * row_tiles // by_row * TILE_ROWS
        bottom = min((row + 1) * row_tiles // by_row * TILE_ROWS, y.shape[0])
        left, right = column * column_tiles // by_column, (column + 1) * column_tiles // by_column
        own = sums[thread_id()]
        multiply_moments(a[top:bottom], b, y[top:bottom], left, right, 0, own, stats[row])
