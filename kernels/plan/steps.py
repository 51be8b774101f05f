"""The loops of a plan's steps: each computes some lines of the output map, on one thread.

A line is a row of pixels; lines are numbered through all images. `step` is a row of the table.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..checks import Array
from ..depthwise.sliding import ROOM, forward_band
from ..jit import inner
from ..panel_tile import panel_tile
from ..simd import LANES, address, load, store, zero
from ..strassen import multiply_halves
from ..tile import TILE_COLUMNS, TILE_ROWS
from .fields import (
    BIAS,
    CHANNELS,
    COUNT,
    DILATION_X,
    DILATION_Y,
    FILTERED,
    FIRST,
    HALVES,
    IN_PLACE,
    KERNEL_X,
    KERNEL_Y,
    LEFT,
    LENGTH,
    LINES,
    ON_MAP,
    OUT_CHANNELS,
    OUT_HEIGHT,
    OUT_WIDTH,
    PAIRED,
    PANELS,
    PERIOD,
    PITCH,
    POOL,
    REPEAT,
    RESULT,
    SLOPE,
    SOURCE,
    STRIDE_X,
    STRIDE_Y,
    TAPS,
    TO,
    TOP,
    TOTAL,
    WINDOWED,
)  # fmt: skip
from .pooling import largest_of_panels, take_larger


@inner
def floats(memory: Array, at: int, count: int) -> Array:
    """Return so many float32 from byte `at` on: the same memory."""
    return memory[at : at + 4 * count].view(np.float32)


@inner
def activated(value: float, slope: float) -> float:
    """PReLU of one number."""
    return value if value > 0 else value * slope


# --- products ---------------------------------------------------------------------------


@inner
def convolve(
    step: Array, weights: Array, x: Array, y: Array, low: int, high: int, panels: Any,
    scratch: Array,
) -> None:  # fmt: skip
    """x (N, H, W, C) -> lines low .. high - 1 of prelu(rows of x @ matrix + bias), y flat.

    panels = (first, last + 1) of the matrix, or of half of it if PAIRED. With POOL, lines are those
    before pooling, and begin and end with whole windows. scratch holds LINES lines of rows, then
    of results if pooled, then what `multiply_halves` needs if PAIRED.
    """
    width, total, pool = step[OUT_WIDTH], step[TOTAL], step[POOL]
    pitch, lines = step[PITCH], step[LINES]
    fetched = step[SOURCE] == WINDOWED or step[SOURCE] == FILTERED
    after_rows = lines * width * pitch + LANES if fetched else 0
    for first in range(low, high, lines):
        last = min(first + lines, high)
        a_at = address(scratch)
        if step[SOURCE] == FILTERED:
            taps = floats(weights, step[TAPS], 9 * (step[LENGTH] + ROOM))
            forward_band(
                x, taps.reshape((3, 3, step[LENGTH] + ROOM)), (step[OUT_HEIGHT], width), a_at,
                4 * pitch, first, last, (step[TOP], step[LEFT]), False,
            )  # fmt: skip
        elif step[SOURCE] == IN_PLACE:
            a_at = address(x) + 4 * first * width * pitch
        elif fetched:
            copy_windows(step, x, first, last, a_at)
        c_at = address(y) + 4 * (first * width * total + step[TO])
        if pool > 1:
            c_at = address(scratch) + 4 * after_rows
        if step[PAIRED]:
            room = address(scratch) + 4 * after_rows
            if pool > 1:
                room += 4 * lines * width * step[RESULT]
            multiply_paired(step, weights, a_at, c_at, (last - first) * width, panels, room)
        elif step[SOURCE] == ON_MAP:
            multiply_windows(step, weights, x, first, last, c_at, panels)
        else:
            multiply(step, weights, a_at, c_at, (last - first) * width, panels)
        if pool > 1:
            largest_of_panels(step, scratch[after_rows:], y, first, last, panels, TILE_COLUMNS)


@inner
def multiply_panel(
    step: Array, weights: Array, panel: int, a_at: int, a_row: int, runs: Any, c_at: int, m: int
) -> None:
    """Multiply m rows from address a_at on, `a_row` numbers apart, by a panel of the matrix.

    runs: parts of a row, numbers from one to the next, and how many each has. C begins at c_at.
    """
    n, total, left = step[OUT_CHANNELS], step[RESULT], panel * TILE_COLUMNS
    count, run_step, k = runs
    columns, shift, base = min(n - left, TILE_COLUMNS), 4 * left, address(weights)
    matrix = base + step[PANELS] + shift * step[LENGTH]
    tiles = (m + TILE_ROWS - 1) // TILE_ROWS
    for tile in range(tiles):
        row, end = tile * m // tiles, (tile + 1) * m // tiles
        panel_tile(
            end - row, a_at + 4 * row * a_row, a_row, count, run_step, matrix, k,
            c_at + 4 * (row * total + left), total, columns, base + step[BIAS] + shift,
            base + step[SLOPE] + shift,
        )  # fmt: skip


@inner
def multiply(step: Array, weights: Array, a_at: int, c_at: int, m: int, panels: Any) -> None:
    """Multiply m rows from address a_at on by some panels of the matrix; C begins at c_at."""
    for panel in range(panels[0], panels[1]):
        runs = 1, 0, step[LENGTH]
        multiply_panel(step, weights, panel, a_at, step[PITCH], runs, c_at, m)


@inner
def multiply_windows(
    step: Array, weights: Array, x: Array, first: int, last: int, c_at: int, panels: Any
) -> None:
    """Multiply windows where they lie, those of lines first .. last - 1; C begins at c_at."""
    _, height, width, channels = x.shape
    runs = step[KERNEL_Y], step[DILATION_Y] * width * channels, step[KERNEL_X] * channels
    m = step[OUT_WIDTH]
    for panel in range(panels[0], panels[1]):
        for line in range(first, last):
            image, oy = line // step[OUT_HEIGHT], line % step[OUT_HEIGHT]
            row = (image * height + oy * step[STRIDE_Y]) * width
            multiply_panel(
                step, weights, panel, address(x) + 4 * row * channels, step[STRIDE_X] * channels,
                runs, c_at + 4 * (line - first) * m * step[RESULT], m,
            )  # fmt: skip


@inner
def multiply_paired(
    step: Array, weights: Array, a_at: int, c_at: int, m: int, panels: Any, room: int
) -> None:
    """Do as `multiply` does, by halves; panels are those of half the columns, room an address.

    Pixels are paired with their neighbours. Where a line has an odd number of them that is within
    whole images, and a last pixel may have none; where images are small, tiles go through the
    same pixels of many.
    """
    k, n, pitch, base = step[LENGTH], step[OUT_CHANNELS], step[PITCH], address(weights)
    pixels = step[OUT_WIDTH] * step[OUT_HEIGHT]
    images, pairs = m // pixels, pixels // 2
    blocks, rest = (1, 0, m // 2, 2), (0, 0, 0)
    if step[OUT_WIDTH] % 2:
        small = pairs < (TILE_ROWS + 1) // 2
        blocks = (pairs, 2, images, pixels) if small else (images, pixels, pairs, 2)
        rest = pixels - 1, pixels % 2 * images, pixels
    multiply_halves(
        a_at, pitch, k, blocks, rest, base + step[HALVES], panels, n, c_at, step[RESULT],
        (base + step[BIAS], base + step[SLOPE]), room,
    )  # fmt: skip


@inner
def copy_vectors(source: int, target: int, count: int) -> None:
    """Copy numbers from address to address in whole vectors, so perhaps a few more."""
    for i in range(0, 4 * count, 4 * LANES):
        store(load(source + i), target + i)


@inner
def zero_vectors(target: int, count: int) -> None:
    """Write zeros in whole vectors, so perhaps a few more."""
    for i in range(0, 4 * count, 4 * LANES):
        store(zero(), target + i)


@inner
def copy_windows(step: Array, x: Array, first: int, last: int, to: int) -> None:
    """Copy the windows of lines first .. last - 1 side by side, to address `to`.

    What is copied past the end of a run is overwritten by the next one.
    """
    _, height, width, channels = x.shape
    kh, kw, count = step[KERNEL_Y], step[KERNEL_X], step[COUNT]
    pixel, whole = 4 * channels, step[DILATION_X] == 1 and count == channels
    line, run, pitch = width * pixel, 4 * count, 4 * step[PITCH]
    reach = (kw - 1) * step[DILATION_X] + 1
    for row in range(first, last):
        image, oy = row // step[OUT_HEIGHT], row % step[OUT_HEIGHT]
        top = oy * step[STRIDE_Y] - step[TOP]
        base = address(x) + image * height * line + 4 * step[FIRST]
        for ky in range(kh):
            iy = top + ky * step[DILATION_Y]
            on_map, source = 0 <= iy < height, base + iy * line
            left, at = -step[LEFT], to + ky * kw * run
            for _ in range(step[OUT_WIDTH]):
                if not on_map:
                    zero_vectors(at, kw * count)
                elif whole and left >= 0 and left + reach <= width:
                    copy_vectors(source + left * pixel, at, kw * count)
                else:
                    for kx in range(kw):
                        ix = left + kx * step[DILATION_X]
                        if ix < 0 or ix >= width:
                            zero_vectors(at + kx * run, count)
                        else:
                            copy_vectors(source + ix * pixel, at + kx * run, count)
                left, at = left + step[STRIDE_X], at + pitch
        to += step[OUT_WIDTH] * pitch


# --- windows per channel ------------------------------------------------------------------


@inner
def filter_channels(step: Array, weights: Array, x: Array, y: Array, low: int, high: int) -> None:
    """x (N, H, W, C) -> lines low .. high - 1 of any depthwise convolution, y (N, OH, OW, C)."""
    kh, kw, channels = step[KERNEL_Y], step[KERNEL_X], step[CHANNELS]
    taps = floats(weights, step[TAPS], kh * kw * channels).reshape((kh, kw, channels))
    bias, slope = floats(weights, step[BIAS], channels), floats(weights, step[SLOPE], channels)
    for line in range(low, high):
        n, oy = line // step[OUT_HEIGHT], line % step[OUT_HEIGHT]
        for ox in range(step[OUT_WIDTH]):
            out = y[n, oy, ox]
            out[:] = bias
            for ky in range(kh):
                iy = oy * step[STRIDE_Y] - step[TOP] + ky * step[DILATION_Y]
                for kx in range(kw):
                    ix = ox * step[STRIDE_X] - step[LEFT] + kx * step[DILATION_X]
                    if 0 <= iy < x.shape[1] and 0 <= ix < x.shape[2]:
                        seen, tap = x[n, iy, ix], taps[ky, kx]
                        for c in range(out.size):
                            out[c] += seen[c] * tap[c]
            for c in range(out.size):
                out[c] = activated(out[c], slope[c])


@inner
def pool_largest(step: Array, x: Array, y: Array, low: int, high: int) -> None:
    """x (N, H, W, C) -> lines low .. high - 1 of the largest of each window, y (N, OH, OW, C)."""
    for line in range(low, high):
        n, oy = line // step[OUT_HEIGHT], line % step[OUT_HEIGHT]
        top = oy * step[STRIDE_Y] - step[TOP]
        for ox in range(step[OUT_WIDTH]):
            left = ox * step[STRIDE_X] - step[LEFT]
            out = y[n, oy, ox]
            out[:] = -np.inf
            for iy in range(max(0, top), min(x.shape[1], top + step[KERNEL_Y])):
                for ix in range(max(0, left), min(x.shape[2], left + step[KERNEL_X])):
                    take_larger(x[n, iy, ix], out)


@inner
def pool_average(step: Array, weights: Array, x: Array, y: Array, low: int, high: int) -> None:
    """x (N, H, W, C) -> lines low .. high - 1 of windows' sums times shares, y (N, OH, OW, C).

    TAPS is where the shares (OH, OW) are.
    """
    width = step[OUT_WIDTH]
    shares = floats(weights, step[TAPS], step[OUT_HEIGHT] * width)
    for line in range(low, high):
        n, oy = line // step[OUT_HEIGHT], line % step[OUT_HEIGHT]
        top = oy * step[STRIDE_Y] - step[TOP]
        for ox in range(width):
            left = ox * step[STRIDE_X] - step[LEFT]
            out, share = y[n, oy, ox], shares[oy * width + ox]
            out[:] = 0
            for iy in range(max(0, top), min(x.shape[1], top + step[KERNEL_Y])):
                for ix in range(max(0, left), min(x.shape[2], left + step[KERNEL_X])):
                    seen = x[n, iy, ix]
                    for c in range(out.size):
                        out[c] += seen[c]
            for c in range(out.size):
                out[c] *= share


# --- number by number -----------------------------------------------------------------------


@inner
def scale(step: Array, weights: Array, x: Array, y: Array, low: int, high: int) -> None:
    """Numbers low .. high - 1 of prelu(x * scale + shift); low is a multiple of PERIOD."""
    period = step[PERIOD]
    factors = floats(weights, step[TAPS], period)
    shifts, slopes = floats(weights, step[BIAS], period), floats(weights, step[SLOPE], period)
    for start in range(low, high, period):
        seen, out = x[start : start + period], y[start : start + period]
        for i in range(out.size):
            out[i] = activated(seen[i] * factors[i] + shifts[i], slopes[i])


@inner
def add(step: Array, weights: Array, x: Array, other: Array, y: Array, low: int, high: int) -> None:
    """Numbers low .. high - 1 of prelu(x + other); low is a multiple of PERIOD."""
    period = step[PERIOD]
    slopes = floats(weights, step[SLOPE], period)
    for start in range(low, high, period):
        seen, more = x[start : start + period], other[start : start + period]
        out = y[start : start + period]
        for i in range(out.size):
            out[i] = activated(seen[i] + more[i], slopes[i])


@inner
def copy(step: Array, x: Array, y: Array, low: int, high: int) -> None:
    """Lines low .. high - 1 of y (N, OH, OW, TOTAL): x at (TOP, LEFT), zeros around, some channels.

    Channels TO .. TO + COUNT * REPEAT - 1 are written.
    """
    repeat, to, count = step[REPEAT], step[TO], step[COUNT]
    for line in range(low, high):
        n, oy = line // step[OUT_HEIGHT], line % step[OUT_HEIGHT]
        iy = oy - step[TOP]
        for ox in range(step[OUT_WIDTH]):
            ix = ox - step[LEFT]
            out = y[n, oy, ox, to : to + count * repeat]
            if 0 <= iy < x.shape[1] and 0 <= ix < x.shape[2]:
                seen = x[n, iy, ix, step[FIRST] : step[FIRST] + count]
                for c in range(count):
                    for again in range(repeat):
                        out[c * repeat + again] = seen[c]
            else:
                out[:] = 0
