"""The two loops of the rung simd: windows times weights, and windows against gradients.

Both walk through blocks of outputs whose windows stay in the second-level cache, and see the
whole batch as one long list of outputs, so small maps run at the speed of large ones.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from .. import gemm
from ..checks import Array
from ..jit import MAX_CHUNKS, kernel, max_threads, parallel, prange, thread_id
from ..memory import empty
from ..simd import LANES, prefetch
from ..tile import TILE_COLUMNS, TILE_ROWS, dot_tile
from ..windows import Pair
from .axes import Axis, cut_outputs, cut_taps
from .gather import (
    Windows,
    gather,
    gather_panels,
    number,
    runs_of,
    scatter,
    windows_of,
)

# Numbers of copied windows per block: half of a second-level cache of 1 MB.
BLOCK = 1 << 17
# Longest dot product before the sums are put down, so that a block has enough rows.
LONGEST = 1200
# Numbers of the weights that one part works on: they stay in the last-level cache.
PART_OF_WEIGHTS = 1 << 21
# Outputs whose products with their windows a tile of dw adds up in registers, and the rows
# and columns of dw that one part works on.
OUTPUTS = 256
GRADIENT_ROWS = 18 * TILE_ROWS
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
    kw, channels = axes[1].taps, len(group)
    for rows, cols in cut_outputs(*axes, x.shape, channels, len(columns)):
        if not (rows.taps and cols.taps):
            y[:, rows.places, cols.places, columns.start : columns.stop] = 0
            continue
        # Stretches of the window that are stretches of the panels too: if all taps of a row
        # take part, the whole window; otherwise a row.
        first = (rows.first_tap * kw + cols.first_tap) * channels
        if cols.taps == kw:
            stretches = [(first, 0, rows.taps * kw * channels)]
        else:
            length = cols.taps * channels
            stretches = [(first + i * kw * channels, i * length, length) for i in range(rows.taps)]
        runs, blocks = [], []
        for panel_row, low, length in stretches:
            n = -(-length // LONGEST)
            for b in range(n):
                start, end = b * length // n, (b + 1) * length // n
                runs.append(runs_of(rows, cols, x.shape[3], group, low + start, low + end))
                n_runs = sum(map(len, runs))
                blocks.append((n_runs - len(runs[-1]), n_runs, panel_row + start, end - start))
        multiply(
            x, panels, y, windows_of(rows, cols), np.concatenate(runs), np.array(blocks),
            (columns.start, len(columns)), (rows.at, cols.at), (rows.step, cols.step),
        )  # fmt: skip


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
    by_row, by_column = parts
    rows = numbers.shape[1]
    n_panels, k, _ = panels.shape
    n_out, width = columns[1], sums.shape[2]
    outputs = x.shape[0] * windows.oh * windows.ow
    n_blocks = -(-outputs // rows)
    for part in prange(by_row * by_column):
        column, row = part // by_row, part % by_row
        low, high = column * n_panels // by_column, (column + 1) * n_panels // by_column
        own, own_sums = scratch[thread_id()], sums[thread_id()]
        for b in range(row * n_blocks // by_row, (row + 1) * n_blocks // by_row):
            count = min(rows, outputs - b * rows)
            if width:
                to, to_row = own_sums.ctypes.data, width
            else:
                to_row = y.shape[3]
                to = y.ctypes.data + 4 * (b * rows * to_row + columns[0] + low * TILE_COLUMNS)
            for block in range(blocks.shape[0]):
                own_runs = runs[blocks[block, 0] : blocks[block, 1]]
                panel_row, steps = blocks[block, 2], blocks[block, 3]
                gather(x, windows, own_runs, b * rows, count, own, pitch)
                for j in range(low, high):
                    for i in range(0, count, TILE_ROWS):
                        dot_tile(
                            own.ctypes.data + 4 * i * pitch, pitch, 1,
                            panels.ctypes.data + 4 * (j * k + panel_row) * TILE_COLUMNS,
                            TILE_COLUMNS,
                            to + 4 * (i * to_row + (j - low) * TILE_COLUMNS), to_row,
                            steps, min(TILE_ROWS, count - i),
                            min(TILE_COLUMNS, n_out - j * TILE_COLUMNS), block > 0, 1,
                        )  # fmt: skip
            if width:
                start, end = low * TILE_COLUMNS, min(high * TILE_COLUMNS, n_out)
                own_numbers = numbers[thread_id(), :count]
                number(windows, y.shape[1:3], at, step, b * rows, own_numbers)
                scatter(own_sums, own_numbers, y, columns[0] + start, end - start)


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
    kw, channels, n = dw.shape[1], len(group), len(columns)
    into = dw.reshape(-1, dw.shape[3])
    for rows, cols in cut_taps(*axes, x.shape, channels, n, GRADIENT_ROWS):
        first = (rows.first_tap * kw + cols.first_tap) * channels
        k = rows.taps * cols.taps * channels
        piece = into[first : first + k, columns.start : columns.stop]
        outputs = len(x) * rows.outputs * cols.outputs
        if not outputs:
            piece[:] = 0
            continue
        pieces = -(-k // GRADIENT_ROWS)
        lows = [b * k // pieces for b in range(pieces + 1)]
        runs = [runs_of(rows, cols, x.shape[3], group, *part) for part in pairwise(lows)]
        starts = np.cumsum([0, *map(len, runs)])
        by_column = -(-n // GRADIENT_COLUMNS)
        n_chunks = gemm.reduction_chunks(outputs, k * n, max(1, MAX_CHUNKS // by_column))
        n_chunks = 1 << n_chunks.bit_length() - 1
        # All pieces of a window in one part share what is read of dy; but some parts there are.
        by_row = min(pieces, -(-16 // (n_chunks * by_column)))
        pitch = -(-(-(-k // pieces) + TILE_ROWS) // LANES) * LANES + LANES
        partial = empty((n_chunks, k, n), x.dtype)
        sum_loop(
            x, dy, partial, windows_of(rows, cols), np.concatenate(runs), starts, np.array(lows),
            columns.start, (rows.at, cols.at), (by_row, by_column),
            empty((max_threads(), OUTPUTS * pitch + LANES), x.dtype), pitch,
            empty((max_threads(), -(-n // TILE_COLUMNS), OUTPUTS + 1, TILE_COLUMNS), x.dtype),
            np.empty((max_threads(), OUTPUTS), np.int64),
        )  # fmt: skip
        np.add.reduce(partial, axis=0, out=piece)


@parallel
def sum_loop(
    x: Array, dy: Array, partial: Array, windows: Windows, runs: Array, starts: Array, lows: Array,
    first_column: int, at: Pair, parts: Pair,
    scratch: Array, pitch: int, panels: Array, numbers: Array,
) -> None:  # fmt: skip
    """See `sum_products`; partial (chunks, numbers of a window, columns).

    A piece of the window starts at run `starts[piece]` and at number `lows[piece]`.
    """
    n_chunks, _, n = partial.shape
    by_row, by_column = parts
    pieces, n_panels, step = lows.size - 1, -(-n // TILE_COLUMNS), numbers.shape[1]
    outputs = x.shape[0] * windows.oh * windows.ow
    for part in prange(n_chunks * by_row * by_column):
        chunk, cell = part // (by_row * by_column), part % (by_row * by_column)
        row, column = cell // by_column, cell % by_column
        own, own_panels = scratch[thread_id()], panels[thread_id()]
        left = column * n_panels // by_column * TILE_COLUMNS
        right = min(n, (column + 1) * n_panels // by_column * TILE_COLUMNS)
        low, high = chunk * outputs // n_chunks, (chunk + 1) * outputs // n_chunks
        for start in range(low, high, step):
            count = min(step, high - start)
            own_numbers = numbers[thread_id(), :count]
            number(windows, dy.shape[1:3], at, (1, 1), start, own_numbers)
            gather_panels(dy, own_numbers, first_column + left, first_column + right, own_panels)
            for piece in range(row * pieces // by_row, (row + 1) * pieces // by_row):
                own_runs = runs[starts[piece] : starts[piece + 1]]
                gather(x, windows, own_runs, start, count, own, pitch)
                sum_piece(
                    own, pitch, own_panels, count, partial[chunk], lows[piece], lows[piece + 1],
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
