"""The two loops of the rung simd: windows times weights, and windows against gradients.

Both walk through blocks of outputs whose windows stay in the second-level cache, and see the
whole batch as one long list of outputs, so small maps run at the speed of large ones.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import gemm
from ..checks import Array
from ..jit import MAX_CHUNKS, kernel, max_threads, parallel, prange, thread_id
from ..memory import empty
from ..simd import LANES, address, prefetch
from ..tile import TILE_COLUMNS, TILE_ROWS, dot_tile, prefetch_tile
from ..windows import Pair
from .axes import Axis
from .gather import gather, gather_panels, number, scatter
from .plan import Windows, plan_outputs, plan_taps

# Numbers of copied windows per block: half of a second-level cache of 1 MB.
BLOCK = 1 << 17
# Numbers of the weights that one part works on: they stay in the last-level cache.
PART_OF_WEIGHTS = 1 << 21
# Outputs whose products with their windows a tile of dw adds up in registers, and the columns
# of dw that one part works on.
OUTPUTS = 256
GRADIENT_COLUMNS = 8 * TILE_COLUMNS


def convolve(
    x: Array, panels: Array, y: Array, axes: tuple[Axis, Axis], group: range, columns: range
) -> None:
    """Multiply every window of x with the weights.

    Parameters
    ----------
    x : ndarray of shape (N, H, W, C)
    panels : ndarray of shape (columns / TILE_COLUMNS, taps * channels of the group, TILE_COLUMNS)
        The weights, for all taps of `axes`.
    y : ndarray of shape (N, YH, YW, YC)
        Written to at the outputs of `axes`.
    group, columns : range
        Channels of x that are read, and of y that are written.
    """
    for rows, cols, windows, runs, blocks in plan_outputs(*axes, x.shape, group, len(columns)):
        if len(runs):
            multiply(
                x, panels, y, windows, runs, blocks,
                (columns.start, len(columns)), (rows.at, cols.at), (rows.step, cols.step),
            )  # fmt: skip
        else:
            y[:, rows.places, cols.places, columns.start : columns.stop] = 0


def multiply(
    x: Array, panels: Array, y: Array, windows: Windows, runs: Array, blocks: Array,
    columns: Pair, at: Pair, step: Pair,
) -> None:  # fmt: skip
    """Cut a rectangle of outputs into parts, and run `multiply_loop` on them.

    `blocks` (n, 4): for each piece of the dot product, its first run and the one after its
    last, its first row in the panels, and its length.
    """
    outputs, longest = len(x) * windows.oh * windows.ow, int(blocks[:, 3].max())
    pitch = -(-longest // LANES) * LANES + LANES
    # A small batch is cut finer, so that there is work for all threads.
    rows = min(BLOCK // pitch, max(1, outputs // 8))
    rows = max(1, rows // TILE_ROWS) * TILE_ROWS
    n_blocks = -(-outputs // rows)
    by_column = max(panels.size // PART_OF_WEIGHTS, 16 // n_blocks)
    by_column = min(max(1, len(panels) // 2), max(1, by_column))
    by_row = max(1, min(n_blocks, MAX_CHUNKS // by_column))
    direct = at == (0, 0) and step == (1, 1) and y.shape[1:3] == (windows.oh, windows.ow)
    width = 0 if direct else -(-len(panels) // by_column) * TILE_COLUMNS
    scratch = empty((max_threads(), rows * pitch + LANES), x.dtype)
    sums = empty((max_threads(), rows, width), x.dtype)
    numbers = np.empty((max_threads(), rows), np.int64)
    multiply_loop(
        x, panels, y, windows, runs, blocks, columns, at, step,
        scratch, sums, numbers, pitch, (by_row, by_column),
    )  # fmt: skip


@parallel
def multiply_loop(
    x: Array, panels: Array, y: Array, windows: Windows, runs: Array, blocks: Array,
    columns: Pair, at: Pair, step: Pair, scratch: Array, sums: Array, numbers: Array, pitch: int,
    parts: Pair,
) -> None:  # fmt: skip
    """See `multiply`; scratch (threads, outputs of a block * pitch and a vector).

    sums (threads, outputs of a block, columns of a part): where the tiles go before they are
    copied to their places in y; no columns if y can be written to as it is.
    """
    for turn in prange(parts[0] * parts[1]):
        part: Any = np.int64(turn)  # typed first signed, then unsigned: compiled twice otherwise
        thread = thread_id()
        multiply_part(
            x, panels, y, windows, runs, blocks, columns, at, step,
            scratch[thread], sums[thread], numbers[thread], pitch, part, parts,
        )  # fmt: skip


@kernel
def multiply_part(
    x: Array, panels: Array, y: Array, windows: Windows, runs: Array, blocks: Array,
    columns: Pair, at: Pair, step: Pair, scratch: Array, sums: Array, numbers: Array, pitch: int,
    part: int, parts: Pair,
) -> None:  # fmt: skip
    """Compute some columns of some outputs: a part of `multiply_loop`."""
    by_row, by_column = parts
    column, row = part // by_row, part % by_row
    rows, width, n_out = numbers.size, sums.shape[1], columns[1]
    n_panels, k, _ = panels.shape
    left, right = column * n_panels // by_column, (column + 1) * n_panels // by_column
    outputs = x.shape[0] * windows.oh * windows.ow
    n_blocks = -(-outputs // rows)
    for b in range(row * n_blocks // by_row, (row + 1) * n_blocks // by_row):
        count = min(rows, outputs - b * rows)
        if width:
            to, to_row = address(sums), width
        else:
            to_row = y.shape[3]
            to = address(y) + 4 * (b * rows * to_row + columns[0] + left * TILE_COLUMNS)
        for block in range(blocks.shape[0]):
            panel_row, steps = blocks[block, 2], blocks[block, 3]
            own_runs = runs[blocks[block, 0] : blocks[block, 1]]
            gather(x, windows, own_runs, b * rows, count, scratch, pitch)
            for j in range(left, right):
                for i in range(0, count, TILE_ROWS):
                    # Where the next tile goes: a store that waits for memory holds up the sums.
                    below = (i + TILE_ROWS) * to_row + (j - left) * TILE_COLUMNS
                    prefetch_tile(to + 4 * below, to_row)
                    dot_tile(
                        scratch.ctypes.data + 4 * i * pitch, pitch, 1,
                        panels.ctypes.data + 4 * (j * k + panel_row) * TILE_COLUMNS, TILE_COLUMNS,
                        to + 4 * (i * to_row + (j - left) * TILE_COLUMNS), to_row,
                        steps, min(TILE_ROWS, count - i),
                        min(TILE_COLUMNS, n_out - j * TILE_COLUMNS), block > 0, 1,
                    )  # fmt: skip
        if width:
            start, end = left * TILE_COLUMNS, min(right * TILE_COLUMNS, n_out)
            number(windows, y.shape[1:3], at, step, b * rows, numbers[:count])
            scatter(sums, numbers[:count], y, columns[0] + start, end - start)


def sum_products(
    x: Array, dy: Array, dw: Array, axes: tuple[Axis, Axis], group: range, columns: range
) -> None:
    """Sum over all outputs the products of each number of the window with each of dy.

    Parameters
    ----------
    x : ndarray of shape (N, H, W, C)
    dy : ndarray of shape (N, OH, OW, YC)
    dw : ndarray of shape (KH, KW, channels of the group, YC)
        Written to, in those columns.
    group, columns : range
        Channels of x and of dy that take part.
    """
    n, into = len(columns), dw.reshape(-1, dw.shape[3])
    for rows, cols, windows, runs, starts, lows in plan_taps(*axes, x.shape, group, n):
        first = (rows.first_tap * dw.shape[1] + cols.first_tap) * len(group)
        k, pieces, outputs = int(lows[-1]), len(lows) - 1, len(x) * rows.outputs * cols.outputs
        piece_of_dw = into[first : first + k, columns.start : columns.stop]
        if not outputs:
            piece_of_dw[:] = 0
            continue
        by_column = -(-n // GRADIENT_COLUMNS)
        n_chunks = gemm.reduction_chunks(outputs, k * n, max(1, MAX_CHUNKS // by_column))
        n_chunks = 1 << n_chunks.bit_length() - 1
        # All pieces of a window in one part share what is read of dy; but some parts there are.
        by_row = min(pieces, -(-16 // (n_chunks * by_column)))
        pitch = -(-(-(-k // pieces) + TILE_ROWS) // LANES) * LANES + LANES
        n_panels = -(-n // TILE_COLUMNS)
        partial = empty((n_chunks, k, n), x.dtype)
        sum_loop(
            x, dy, partial, windows, runs, starts, lows,
            columns.start, (rows.at, cols.at), (by_row, by_column),
            empty((max_threads(), OUTPUTS * pitch + LANES), x.dtype), pitch,
            # A row more, so that panels are not a multiple of 4,096 bytes apart.
            empty((max_threads(), -(-n_panels // by_column), OUTPUTS + 1, TILE_COLUMNS), x.dtype),
            np.empty((max_threads(), OUTPUTS), np.int64),
        )  # fmt: skip
        np.add.reduce(partial, axis=0, out=piece_of_dw)


@parallel
def sum_loop(
    x: Array, dy: Array, partial: Array, windows: Windows, runs: Array, starts: Array, lows: Array,
    first_column: int, at: Pair, parts: Pair,
    scratch: Array, pitch: int, panels: Array, numbers: Array,
) -> None:  # fmt: skip
    """See `sum_products`; partial (chunks, numbers of a window, columns).

    A piece of the window starts at run `starts[piece]` and at number `lows[piece]`.
    """
    by_cell = parts[0] * parts[1]
    for turn in prange(partial.shape[0] * by_cell):
        part: Any = np.int64(turn)  # typed first signed, then unsigned: compiled twice otherwise
        thread = thread_id()
        outputs = x.shape[0] * windows.oh * windows.ow
        chunk, n_chunks = part // by_cell, partial.shape[0]
        sum_part(
            x, dy, partial[chunk], windows, runs, starts, lows, first_column, at,
            chunk * outputs // n_chunks, (chunk + 1) * outputs // n_chunks, part % by_cell, parts,
            scratch[thread], pitch, panels[thread], numbers[thread],
        )  # fmt: skip


@kernel
def sum_part(
    x: Array, dy: Array, dw: Array, windows: Windows, runs: Array, starts: Array, lows: Array,
    first_column: int, at: Pair, low: int, high: int, cell: int, parts: Pair,
    scratch: Array, pitch: int, panels: Array, numbers: Array,
) -> None:  # fmt: skip
    """Sum over the outputs `low` to `high`, for some rows and columns of dw."""
    (by_row, by_column), n = parts, dw.shape[1]
    pieces, n_panels, step = lows.size - 1, -(-n // TILE_COLUMNS), numbers.size
    row, column = cell // by_column, cell % by_column
    left = column * n_panels // by_column * TILE_COLUMNS
    right = min(n, (column + 1) * n_panels // by_column * TILE_COLUMNS)
    for start in range(low, high, step):
        count = min(step, high - start)
        number(windows, dy.shape[1:3], at, (1, 1), start, numbers[:count])
        gather_panels(dy, numbers[:count], first_column + left, first_column + right, panels)
        for piece in range(row * pieces // by_row, (row + 1) * pieces // by_row):
            own_runs = runs[starts[piece] : starts[piece + 1]]
            gather(x, windows, own_runs, start, count, scratch, pitch)
            sum_piece(
                scratch, pitch, panels, count, dw, lows[piece], lows[piece + 1],
                left, right, start > low,
            )  # fmt: skip


@kernel
def sum_piece(
    windows: Array, pitch: int, panels: Array, count: int, dw: Array, low: int, high: int,
    left: int, right: int, accumulate: bool,
) -> None:  # fmt: skip
    """Windows (count, high - low).T @ panels -> dw[low:high, left:right], or added to it."""
    n = dw.shape[1]
    for j in range(left, right, TILE_COLUMNS):
        for i in range(low, high, TILE_ROWS):
            tile, height = dw.ctypes.data + 4 * (i * n + j), min(TILE_ROWS, high - i)
            if accumulate:  # what the sums will be added to may be far away by now
                for line in range(height):
                    prefetch(tile + 4 * line * n)
                    prefetch(tile + 4 * (line * n + TILE_COLUMNS // 2))
            dot_tile(
                windows.ctypes.data + 4 * (i - low), 1, pitch,
                panels[(j - left) // TILE_COLUMNS].ctypes.data, TILE_COLUMNS,
                tile, n, count, height, min(TILE_COLUMNS, n - j), accumulate, 1,
            )  # fmt: skip
