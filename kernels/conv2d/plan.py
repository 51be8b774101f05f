"""What the rung simd does for a convolution of some shape: found once, then remembered.

A convolution is cut into rectangles of outputs or of taps (`axes`), a window into pieces that
a block in the cache has room for, and a piece into runs of numbers that lie side by side in
memory.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from ..checks import Array
from ..tile import TILE_ROWS
from .axes import Axis, cut_outputs, cut_taps

# Longest dot product before the sums are put down, so that a block has enough rows.
LONGEST = 1200
# Numbers of a window, which are rows of dw, that are gathered at a time.
GRADIENT_ROWS = 18 * TILE_ROWS


class Windows(NamedTuple):
    """Where the windows of a rectangle of outputs are; flat, because Numba takes it that way.

    Attributes
    ----------
    oh, ow : int
        Height and width of the rectangle.
    stride_y, stride_x : int
    top, left : int
        Pixel of the map where the first window starts; negative inside padding.
    reach_y, reach_x : int
        Pixels from the first of a window to the last.
    """

    oh: int
    ow: int
    stride_y: int
    stride_x: int
    top: int
    left: int
    reach_y: int
    reach_x: int


def windows_of(y: Axis, x: Axis) -> Windows:
    """Return the windows of the outputs that two axes span."""
    return Windows(
        y.outputs, x.outputs, y.stride, x.stride, y.origin, x.origin, y.reach, x.reach
    )  # fmt: skip


def runs_of(y: Axis, x: Axis, all_channels: int, group: range, low: int, high: int) -> Array:
    """List the contiguous pieces that numbers `low` to `high` of a window are made of.

    The numbers of a window are in the order (taps of y, taps of x, channels of the group).

    Returns
    -------
    ndarray of shape (runs, 3), int64
        Row of the map, and number in that row, where a run starts, both counted from the
        first pixel of the window; how long it is.
    """
    # With all channels and no dilation a row of the window is one run.
    whole = x.dilation == 1 and len(group) == all_channels
    per_row, length = (1, x.taps * len(group)) if whole else (x.taps, len(group))
    runs = []
    for run in range(low // length, -(-high // length)):
        start, end = max(low - run * length, 0), min(high - run * length, length)
        column = run % per_row * x.dilation * all_channels + group.start
        runs.append((run // per_row * y.dilation, column + start, end - start))
    return np.array(runs, np.int64)


class Outputs(NamedTuple):
    """A rectangle of outputs.

    `blocks` (n, 4) has a row for each piece of the dot product: its first run and the one
    after its last, its first row of the weights, and its length. No runs: the outputs are zero.
    """

    rows: Axis
    columns: Axis
    windows: Windows
    runs: Array
    blocks: Array


class Taps(NamedTuple):
    """A rectangle of taps and the outputs that meet them.

    Piece p of the window starts at run ``starts[p]`` and at number ``lows[p]``.
    """

    rows: Axis
    columns: Axis
    windows: Windows
    runs: Array
    starts: Array
    lows: Array


@lru_cache(512)
def plan_outputs(
    y: Axis, x: Axis, shape: tuple[int, ...], group: range, n_out: int
) -> tuple[Outputs, ...]:
    """Plan the windows of maps of that shape, times weights for `n_out` channels."""
    plan, channels = [], len(group)
    for rows, columns in cut_outputs(y, x, shape, channels, n_out):
        # Stretches of the window that are stretches of the weights too: if all taps of a row
        # take part, the whole window; otherwise a row.
        first = (rows.first_tap * x.taps + columns.first_tap) * channels
        length, n_stretches = columns.taps * channels, rows.taps
        if columns.taps == x.taps:
            length, n_stretches = length * rows.taps, 1
        runs, blocks, n_runs = [np.empty((0, 3), np.int64)], [], 0
        for stretch in range(n_stretches if length else 0):
            n = -(-length // LONGEST)
            for start, end in pairwise(b * length // n for b in range(n + 1)):
                low = stretch * length
                runs.append(runs_of(rows, columns, shape[3], group, low + start, low + end))
                row = first + stretch * x.taps * channels + start
                blocks.append((n_runs, n_runs + len(runs[-1]), row, end - start))
                n_runs += len(runs[-1])
        windows = windows_of(rows, columns)
        plan.append(Outputs(rows, columns, windows, np.concatenate(runs), np.array(blocks)))
    return tuple(plan)


@lru_cache(512)
def plan_taps(
    y: Axis, x: Axis, shape: tuple[int, ...], group: range, n_out: int
) -> tuple[Taps, ...]:
    """Plan the windows of maps of that shape, against gradients of `n_out` channels."""
    plan = []
    for rows, columns in cut_taps(y, x, shape, len(group), n_out):
        k = rows.taps * columns.taps * len(group)
        pieces = -(-k // GRADIENT_ROWS)
        tiles = -(-k // TILE_ROWS)
        lows = [min(k, p * tiles // pieces * TILE_ROWS) for p in range(pieces + 1)]
        runs = [runs_of(rows, columns, shape[3], group, *piece) for piece in pairwise(lows)]
        starts = np.cumsum([0, *map(len, runs)])
        windows = windows_of(rows, columns)
        plan.append(Taps(rows, columns, windows, np.concatenate(runs), starts, np.array(lows)))
    return tuple(plan)
