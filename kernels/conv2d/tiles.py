"""The two loops of the rung simd: windows times weights, and windows against gradients.

Both walk through blocks of output pixels whose windows stay in the second-level cache, and
see the whole batch as one long list of pixels, so small maps run at the speed of large ones.
"""

from __future__ import annotations

import numpy as np

from .. import gemm
from ..checks import Array
from ..jit import MAX_CHUNKS, max_threads, parallel, prange, thread_id
from ..memory import empty
from ..simd import LANES
from ..tile import TILE_COLUMNS, TILE_ROWS, dot_tile
from ..windows import Pair
from .gather import Windows, copy_panel, gather

# Numbers of copied windows per block: half of a second-level cache of 1 MB.
BLOCK = 1 << 17
# Longest dot product before the sums are put down, so that a block has enough rows.
LONGEST = 1200
# Numbers of the weights that one part works on: they stay in the last-level cache.
PART_OF_WEIGHTS = 1 << 21
# Pixels whose outer products a tile of the weight gradient adds up in registers, and the
# rows and columns of it that one part works on.
PIXELS = 128
GRADIENT_ROWS = 384
GRADIENT_COLUMNS = 256


def multiply(x: Array, panels: Array, y: Array, windows: Windows, columns: Pair, step: Pair,
             first: Pair) -> None:  # fmt: skip
    """Multiply every window of x with the weights.

    Parameters
    ----------
    x : ndarray of shape (N, H, W, C)
    panels : ndarray of shape (columns / TILE_COLUMNS, windows.columns, TILE_COLUMNS)
    y : ndarray of shape (N, YH, YW, YC)
        Output pixel (oy, ox) is written to (oy, ox) * step + first.
    columns : (int, int)
        The channels of y to write: the first, and how many.
    """
    pixels, k = len(x) * windows.oh * windows.ow, windows.columns
    k_blocks = -(-k // LONGEST)
    steps = -(-k // k_blocks)
    steps = min(k, -(-steps // LANES) * LANES)
    pitch = -(-steps // LANES) * LANES + LANES
    # A small batch is cut finer, so that there is work for all threads.
    rows = min(BLOCK // pitch, max(1, pixels // 16))
    rows = max(1, rows // TILE_ROWS) * TILE_ROWS
    by_column = min(len(panels), max(1, panels.size // PART_OF_WEIGHTS))
    by_row = max(1, min(-(-pixels // rows), MAX_CHUNKS // by_column))
    scattered = step != (1, 1)
    scratch = empty((max_threads(), rows * pitch + LANES), x.dtype)
    sums = empty((max_threads(), rows * columns[1] if scattered else 1), x.dtype)
    multiply_loop(
        x, panels, y, windows, columns, step, first,
        scratch, sums, (rows, pitch, steps), (by_row, by_column),
    )  # fmt: skip


@parallel
def multiply_loop(
    x: Array, panels: Array, y: Array, windows: Windows, columns: Pair, step: Pair, first: Pair,
    scratch: Array, sums: Array, block: tuple[int, int, int], parts: Pair,
) -> None:  # fmt: skip
    """See `multiply`; block = (pixels, numbers from one to the next, longest dot product)."""
    rows, pitch, longest = block
    by_row, by_column = parts
    n_panels, k, _ = panels.shape
    oh, ow = windows.oh, windows.ow
    pixels = x.shape[0] * oh * ow
    n_blocks = -(-pixels // rows)
    scattered = step[0] != 1 or step[1] != 1
    for part in prange(by_row * by_column):
        column, row = part // by_row, part % by_row
        low, high = column * n_panels // by_column, (column + 1) * n_panels // by_column
        own, own_sums = scratch[thread_id()], sums[thread_id()]
        for b in range(row * n_blocks // by_row, (row + 1) * n_blocks // by_row):
            count = min(rows, pixels - b * rows)
            # Where the tiles go: to y, or, if its pixels are not neighbours, to scratch first.
            if scattered:
                to, to_row = own_sums.ctypes.data, columns[1]
            else:
                to, to_row = y.ctypes.data + 4 * (b * rows * y.shape[3] + columns[0]), y.shape[3]
            for k0 in range(0, k, longest):
                steps = min(longest, k - k0)
                gather(x, windows, b * rows, count, k0, steps, own, pitch)
                for j in range(low, high):
                    for i in range(0, count, TILE_ROWS):
                        dot_tile(
                            own.ctypes.data + 4 * i * pitch, pitch, 1,
                            panels.ctypes.data + 4 * (j * k + k0) * TILE_COLUMNS, TILE_COLUMNS,
                            to + 4 * (i * to_row + j * TILE_COLUMNS), to_row,
                            steps, min(TILE_ROWS, count - i),
                            min(TILE_COLUMNS, columns[1] - j * TILE_COLUMNS), k0 > 0, 1,
                        )  # fmt: skip
            if scattered:
                start, end = low * TILE_COLUMNS, min(high * TILE_COLUMNS, columns[1])
                for i in range(count):
                    pixel = b * rows + i
                    line, ox = pixel // ow, pixel % ow
                    y_row = y[line // oh, line % oh * step[0] + first[0], ox * step[1] + first[1]]
                    y_part = y_row[columns[0] + start : columns[0] + end]
                    of = own_sums[i * columns[1] + start : i * columns[1] + end]
                    for c in range(y_part.size):
                        y_part[c] = of[c]


def sum_outer(x: Array, dy: Array, windows: Windows, columns: Pair, dw: Array) -> None:
    """Sum over all pixels the outer products of window and gradient.

    Parameters
    ----------
    x : ndarray of shape (N, H, W, C)
    dy : ndarray of shape (pixels, YC)
    columns : (int, int)
        The channels of dy to take: the first, and how many.
    dw : ndarray of shape (windows.columns, YC)
        Written to, in the same columns.
    """
    pixels, k = len(dy), windows.columns
    by_k = -(-k // GRADIENT_ROWS)
    by_column = -(-columns[1] // GRADIENT_COLUMNS)
    wanted = max(1, MAX_CHUNKS // (by_k * by_column))
    n_chunks = gemm.reduction_chunks(pixels, k * columns[1], wanted)
    pitch = -(-k // by_k) + TILE_ROWS
    pitch = -(-pitch // LANES) * LANES + LANES
    scratch = empty((max_threads(), PIXELS * pitch + LANES), x.dtype)
    panel = empty((max_threads(), PIXELS * TILE_COLUMNS), x.dtype)
    partial = empty((n_chunks, k, columns[1]), x.dtype)
    sum_loop(x, dy, windows, columns, partial, scratch, panel, pitch, (by_k, by_column))
    np.add.reduce(partial, axis=0, out=dw[:, columns[0] : columns[0] + columns[1]])


@parallel
def sum_loop(
    x: Array, dy: Array, windows: Windows, columns: Pair, partial: Array,
    scratch: Array, panel: Array, pitch: int, parts: Pair,
) -> None:  # fmt: skip
    """See `sum_outer`; partial (chunks, windows.columns, columns)."""
    n_chunks, k, n = partial.shape
    by_k, by_column = parts
    pixels, n_panels = dy.shape[0], -(-n // TILE_COLUMNS)
    for part in prange(n_chunks * by_k * by_column):
        chunk, output = part // (by_k * by_column), part % (by_k * by_column)
        k_low, k_high = output // by_column * k // by_k, (output // by_column + 1) * k // by_k
        j_low = output % by_column * n_panels // by_column
        j_high = (output % by_column + 1) * n_panels // by_column
        own, own_panel = scratch[thread_id()], panel[thread_id()]
        low, high = chunk * pixels // n_chunks, (chunk + 1) * pixels // n_chunks
        for start in range(low, high, PIXELS):
            count = min(PIXELS, high - start)
            gather(x, windows, start, count, k_low, k_high - k_low, own, pitch)
            for j in range(j_low * TILE_COLUMNS, min(j_high * TILE_COLUMNS, n), TILE_COLUMNS):
                copy_panel(dy, start, count, columns[0] + j, columns[0] + n, own_panel, 0)
                for i in range(k_low, k_high, TILE_ROWS):
                    dot_tile(
                        own.ctypes.data + 4 * (i - k_low), 1, pitch,
                        own_panel.ctypes.data, TILE_COLUMNS,
                        partial.ctypes.data + 4 * ((chunk * k + i) * n + j), n,
                        count, min(TILE_ROWS, k_high - i), min(TILE_COLUMNS, n - j),
                        start > low, 1,
                    )  # fmt: skip
