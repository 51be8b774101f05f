"""How the rung simd lays its operands out: copied windows, panels of weights and gradients.

The register tile (`simd.dot_tile`) is fast where its operands lie close together and are in
cache. So the windows of some pixels are copied side by side (im2col) into scratch memory that
stays in the second-level cache, and the other operand into panels of as many columns as the
tile has. Everything here works with whole vectors: what they write past the end of a run is
written again by the next run, or is slack at the end of the scratch.
"""

from __future__ import annotations

import numpy as np

from ..checks import Array
from ..jit import chunks, kernel, parallel, prange
from ..memory import empty
from ..simd import LANES, load, store, zero
from ..tile import TILE_COLUMNS
from ..windows import Pair
from .plan import Windows


@kernel
def copy_run(source: Array, start: int, count: int, target: Array, at: int) -> None:
    """Copy `count` numbers in whole vectors; one by one where those would leave the source."""
    if start + count + LANES > source.size:
        for i in range(count):
            target[at + i] = source[start + i]
        return
    of, to = source.ctypes.data + 4 * start, target.ctypes.data + 4 * at
    for i in range(0, 4 * count, 4 * LANES):
        store(load(of + i), to + i)


@kernel
def zero_run(count: int, target: Array, at: int) -> None:
    """Write `count` zeros, and a few more, in whole vectors."""
    to = target.ctypes.data + 4 * at
    for i in range(0, 4 * count, 4 * LANES):
        store(zero(), to + i)


@kernel
def gather(
    x: Array, windows: Windows, runs: Array, first: int, count: int, target: Array, pitch: int
) -> None:
    """Copy the windows of `count` outputs side by side: im2col, `pitch` numbers per output.

    x (N, H, W, C) -> target (flat, count * pitch and one vector more). The outputs of the
    rectangle are numbered through the whole batch. `runs` as from `runs_of`.
    """
    _, height, width, channels = x.shape
    flat, line = x.reshape(x.size), width * channels
    last = runs.shape[0] - 1
    end = runs[last, 0] * line + runs[last, 1] + runs[last, 2] + LANES
    row = first // windows.ow
    image, ox = row // windows.oh, first - row * windows.ow
    oy = row - image * windows.oh
    for i in range(count):
        y, x_ = oy * windows.stride_y + windows.top, ox * windows.stride_x + windows.left
        start, at = ((image * height + y) * width + x_) * channels, i * pitch
        if (
            y >= 0 and y + windows.reach_y < height
            and x_ >= 0 and x_ + windows.reach_x < width
            and start + end <= flat.size
        ):  # fmt: skip
            of, to = flat.ctypes.data + 4 * start, target.ctypes.data + 4 * at
            for r in range(runs.shape[0]):
                run_of = of + 4 * (runs[r, 0] * line + runs[r, 1])
                run_end = to + 4 * runs[r, 2]
                while to < run_end:
                    store(load(run_of), to)
                    run_of += 4 * LANES
                    to += 4 * LANES
                to = run_end
        else:
            for r in range(runs.shape[0]):
                gather_clipped(
                    flat, (image * height) * line, line, height, y + runs[r, 0],
                    x_ * channels + runs[r, 1], runs[r, 2], target, at,
                )  # fmt: skip
                at += runs[r, 2]
        ox += 1
        if ox == windows.ow:
            ox = 0
            oy += 1
            if oy == windows.oh:
                oy = 0
                image += 1


@kernel
def gather_clipped(
    flat: Array, image: int, line: int, height: int, y: int, column: int, count: int,
    target: Array, at: int,
) -> None:  # fmt: skip
    """Copy a run that may lie outside its map in part or whole: zeros are there."""
    low, high = min(max(0, -column), count), min(count, line - column)
    if y < 0 or y >= height or low >= high:
        zero_run(count, target, at)
        return
    zero_run(low, target, at)
    copy_run(flat, image + y * line + column + low, high - low, target, at + low)
    zero_run(count - high, target, at + high)


@kernel
def number(windows: Windows, shape: Pair, at: Pair, step: Pair, first: int, rows: Array) -> None:
    """Where the outputs from `first` on are in an array of outputs: its pixels' numbers.

    `shape` is the height and width of its maps; `at` and `step` say where the rectangle's
    outputs are in a map.
    """
    row = first // windows.ow
    image, ox = row // windows.oh, first - row * windows.ow
    oy = row - image * windows.oh
    for i in range(rows.size):
        y, x = at[0] + oy * step[0], at[1] + ox * step[1]
        rows[i] = (image * shape[0] + y) * shape[1] + x
        ox += 1
        if ox == windows.ow:
            ox = 0
            oy += 1
            if oy == windows.oh:
                oy = 0
                image += 1


@kernel
def gather_panels(dy: Array, rows: Array, column: int, end: int, target: Array) -> None:
    """Numbers `column` to `end` of some rows of dy, in panels as the register tile reads them.

    dy (N, H, W, C) -> target (panels, at least so many rows, TILE_COLUMNS), zeros past the end.
    """
    flat, channels = dy.reshape(dy.size), dy.shape[3]
    whole = (end - column) // TILE_COLUMNS
    for i in range(rows.size):
        start = rows[i] * channels + column
        for panel in range(whole):
            to = target[panel, i].ctypes.data
            of = flat.ctypes.data + 4 * (start + panel * TILE_COLUMNS)
            for j in range(0, 4 * TILE_COLUMNS, 4 * LANES):
                store(load(of + j), to + j)
        if column + whole * TILE_COLUMNS < end:
            rest, to_rest = end - column - whole * TILE_COLUMNS, target[whole, i]
            of_rest = flat[start + whole * TILE_COLUMNS : start + end - column]
            for j in range(rest):
                to_rest[j] = of_rest[j]
            for j in range(rest, TILE_COLUMNS):
                to_rest[j] = 0


@kernel
def scatter(sums: Array, rows: Array, y: Array, column: int, n_columns: int) -> None:
    """sums (rows, >= n_columns) -> those rows of y (N, H, W, C), from `column` on."""
    flat, channels = y.reshape(y.size), y.shape[3]
    for i in range(rows.size):
        start = rows[i] * channels + column
        of, to = sums[i, :n_columns], flat[start : start + n_columns]
        for j in range(to.size):
            to[j] = of[j]


def panels_of(w: Array, ys: range, xs: range, columns: range, *, turned: bool) -> Array:
    """Copy weights to panels (N / TILE_COLUMNS, K, TILE_COLUMNS) for the register tile.

    Rows of a panel lie side by side, whereas rows of `w` may be a multiple of 4,096 bytes
    apart, which makes them push each other out of the first-level cache.

    Parameters
    ----------
    w : ndarray of shape (KH, KW, Cin / groups, Cout)
    ys, xs : range
        Taps to take, in order.
    columns : range
        Output channels to take: those of a group.
    turned : bool
        False: N are the output channels, K = (taps, input channels). True, for the input
        gradient: N are the input channels, K = (taps, output channels).
    """
    channels, n = (len(columns), w.shape[2]) if turned else (w.shape[2], len(columns))
    n_panels, n_taps = -(-n // TILE_COLUMNS), len(ys) * len(xs)
    panels = empty((n_panels, n_taps * channels, TILE_COLUMNS), w.dtype)
    taps = np.array([(y, x) for y in ys for x in xs], np.int64).reshape(-1, 2)
    # Eight panels at a time, so that the rows of w are read in long pieces.
    at_once = 1 if turned else 8
    n_chunks = chunks(-(-n_panels // at_once) * n_taps)
    pack_loop(w, panels, taps, (columns.start, channels, n), turned, at_once, n_chunks)
    return panels


@parallel
def pack_loop(
    w: Array, panels: Array, taps: Array, cut: tuple[int, int, int], turned: bool, at_once: int,
    n_chunks: int,
) -> None:  # fmt: skip
    """See `panels_of`; cut = (first output channel, K per tap, N)."""
    first_column, channels, n = cut
    n_taps = taps.shape[0]
    parts = -(-panels.shape[0] // at_once) * n_taps
    for chunk in prange(n_chunks):
        for part in range(chunk * parts // n_chunks, (chunk + 1) * parts // n_chunks):
            first, tap = part // n_taps * at_once, part % n_taps
            matrix = w[taps[tap, 0], taps[tap, 1]]
            # A block of channels at a time, so that cache lines are used up.
            for c in range(0, channels, 16):
                high = min(c + 16, channels)
                for panel in range(first, min(first + at_once, panels.shape[0])):
                    low = panel * TILE_COLUMNS
                    count = min(TILE_COLUMNS, n - low)
                    out = panels[panel, tap * channels + c : tap * channels + high]
                    if count < TILE_COLUMNS:
                        out[:, count:] = 0
                    if turned:
                        block = matrix[low : low + count, first_column + c : first_column + high]
                        for j in range(block.shape[0]):
                            for i in range(block.shape[1]):
                                out[i, j] = block[j, i]
                    else:
                        block = matrix[c:high, first_column + low : first_column + low + count]
                        for i in range(block.shape[0]):
                            for j in range(block.shape[1]):
                                out[i, j] = block[i, j]
