"""The loops of a plan's 8-bit steps, made of the 8-bit kernels' inner loops (docs/int8.md).

As in `steps`: each computes some lines of the output map, on one thread. Rows of a product are
bytes; its result are codes, or float32 numbers where the step's output is float32.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..checks import Array
from ..dequantize import dequantise
from ..int8.packing import GROUP, PANEL
from ..int8_add import add
from ..int8_conv2d import gather
from ..int8_depthwise import convolve as filter_maps
from ..int8_gemm import multiply
from ..int8_global_avg_pool import average
from ..int8_max_pool import pool as keep_largest_codes
from ..jit import inner
from ..quantize import quantise
from .fields import (
    BIAS,
    BORDER,
    CHANNELS,
    DILATION_X,
    DILATION_Y,
    FACTOR,
    FILTERED,
    HEIGHT,
    IN_PLACE,
    INT8_ADD,
    INT8_AVERAGE,
    INT8_CONVOLVE,
    INT8_DEPTHWISE,
    INT8_LARGEST,
    KERNEL_X,
    KERNEL_Y,
    KIND,
    LEFT,
    LENGTH,
    LINES,
    OUT_CHANNELS,
    OUT_HEIGHT,
    OUT_WIDTH,
    PANELS,
    PERIOD,
    PITCH,
    POOL,
    QUANTIZE,
    SLOPE,
    SOURCE,
    STRIDE_X,
    STRIDE_Y,
    TAPS,
    TAPS_BIAS,
    TAPS_FACTOR,
    TAPS_SLOPE,
    TOP,
    TOTAL,
    WIDTH,
    Y_ITEM,
    ZERO_IN,
    ZERO_MID,
    ZERO_OUT,
)  # fmt: skip
from .pooling import largest_of_panels
from .steps import floats


@inner
def run_codes(
    step: Array, weights: Array, memory: Array, x_at: int, other_at: int, y_at: int, images: int,
    low: int, high: int, first: int, last: int, scratch: Array,
) -> None:  # fmt: skip
    """Run a part of an 8-bit step; see `run_step`."""
    kind, pool, total = step[KIND], step[POOL], step[TOTAL]
    oh, ow = step[OUT_HEIGHT] // pool, step[OUT_WIDTH] // pool
    x_size = images * step[HEIGHT] * step[WIDTH] * step[CHANNELS]
    y_size, line = images * oh * ow * total, ow * total
    if kind == QUANTIZE:
        scale = floats(weights, step[FACTOR], 1)[0]
        seen, codes = floats(memory, x_at, x_size), memory[y_at : y_at + y_size]
        start, end = low * line, high * line
        quantise(seen[start:end], codes[start:end], scale, step[ZERO_OUT])
        return
    x = memory[x_at : x_at + x_size].reshape((images, step[HEIGHT], step[WIDTH], step[CHANNELS]))
    codes = memory[y_at : y_at + y_size * step[Y_ITEM]]
    real = codes.view(np.float32) if step[Y_ITEM] == 4 else scratch[:0]
    if kind == INT8_CONVOLVE:
        if step[Y_ITEM] == 4:
            multiply_codes(step, weights, x, real, low, high, (first, last), scratch)
        else:
            multiply_codes(step, weights, x, codes, low, high, (first, last), scratch)
    elif kind == INT8_DEPTHWISE:
        filter_codes(step, weights, x, codes, low, high)
    elif kind == INT8_LARGEST:
        keep_largest_codes(
            x, codes.reshape((images, oh, ow, total)), step[KERNEL_Y], step[KERNEL_X],
            step[STRIDE_Y], step[STRIDE_X], step[TOP], step[LEFT], low, high,
        )  # fmt: skip
    elif kind == INT8_AVERAGE:
        average_codes(step, weights, x, codes, real, low, high, scratch)
    elif kind == INT8_ADD:
        start, end = low * line, high * line
        scales, slopes = (
            floats(weights, step[FACTOR], 2),
            floats(weights, step[SLOPE], step[PERIOD]),
        )
        add(
            memory[x_at + start : x_at + end], memory[other_at + start : other_at + end],
            codes[start:end], slopes, scales[0], scales[1], step[ZERO_IN], step[ZERO_MID],
            step[ZERO_OUT],
        )  # fmt: skip
    else:
        scale = floats(weights, step[FACTOR], 1)[0]
        start, end = low * line, high * line
        flat = memory[x_at : x_at + x_size]
        dequantise(flat[start:end], real[start:end], scale, step[ZERO_IN])


# --- products ---------------------------------------------------------------------------


@inner
def multiply_codes(
    step: Array, weights: Array, x: Array, y: Array, low: int, high: int, panels: Any,
    scratch: Array,
) -> None:  # fmt: skip
    """x (N, H, W, C) -> lines low .. high - 1 of the requantised rows @ matrix, y flat.

    panels = (first, last + 1) of the matrix. With POOL, lines are those before pooling, and
    begin and end with whole windows.
    """
    width, n, k, pool = step[OUT_WIDTH], step[OUT_CHANNELS], step[LENGTH], step[POOL]
    pitch, lines = step[PITCH], step[LINES]
    count, groups = (n + PANEL - 1) // PANEL, (k + GROUP - 1) // GROUP
    at = step[PANELS]
    matrix = weights[at : at + count * groups * PANEL * GROUP].view(np.int8)
    matrix = matrix.reshape((count, groups, PANEL, GROUP))
    bias = weights[step[BIAS] : step[BIAS] + 4 * n].view(np.int32)
    factors, slopes = floats(weights, step[FACTOR], n), floats(weights, step[SLOPE], n)
    room = scratch.view(np.uint8)
    after_rows = 0 if step[SOURCE] == IN_PLACE else lines * width * pitch
    pixels = (
        x.reshape((x.size // pitch, pitch))
        if step[SOURCE] == IN_PLACE
        else room[:0].reshape((0, 1))
    )
    for first in range(low, high, lines):
        last = min(first + lines, high)
        rows = (last - first) * width
        if step[SOURCE] == IN_PLACE:
            a = pixels[first * width : last * width]
        else:
            a = room[: rows * pitch].reshape((rows, pitch))
            fetch(step, weights, x, a, first, last)
        if pool > 1:
            c = room[after_rows : after_rows + rows * n].reshape((rows, n))
            multiply(
                a, matrix, bias, factors, slopes, c, step[ZERO_OUT], 0, rows, panels[0], panels[1]
            )
            largest_of_panels(step, room[after_rows:], y, first, last, panels, PANEL)
        else:
            out = y[first * width * n : last * width * n].reshape((rows, n))
            multiply(
                a, matrix, bias, factors, slopes, out, step[ZERO_OUT], 0, rows, panels[0],
                panels[1],
            )  # fmt: skip


@inner
def fetch(step: Array, weights: Array, x: Array, rows: Array, first: int, last: int) -> None:
    """Write the rows (lines * OW, PITCH) of a product: windows, or what a filter makes of x."""
    oh, ow = step[OUT_HEIGHT], step[OUT_WIDTH]
    if step[SOURCE] != FILTERED:
        gather(
            x, rows, first * ow, rows.shape[0], (oh, ow), (step[KERNEL_Y], step[KERNEL_X]),
            (step[STRIDE_Y], step[STRIDE_X]), (step[TOP], step[LEFT]),
            (step[DILATION_Y], step[DILATION_X]), step[ZERO_IN],
        )  # fmt: skip
        return
    endings = step[TAPS_BIAS], step[TAPS_FACTOR], step[TAPS_SLOPE]
    filter_lines(step, weights, x, rows, endings, step[ZERO_MID], first, last)


# --- windows per channel ------------------------------------------------------------------


@inner
def filter_lines(
    step: Array, weights: Array, x: Array, rows: Array, endings: Any, zero: int, first: int,
    last: int,
) -> None:  # fmt: skip
    """Convolve x (N, H, W, C) by channel: lines first .. last - 1, to rows (lines * OW, C).

    endings: places of the bias, the factors and the slopes.
    """
    oh, ow, channels = step[OUT_HEIGHT], step[OUT_WIDTH], step[CHANNELS]
    kh, kw, at, border = step[KERNEL_Y], step[KERNEL_X], step[TAPS], step[BORDER]
    taps = weights[at : at + kh * kw * channels].view(np.int8).reshape((kh, kw, channels))
    bias = weights[endings[0] : endings[0] + 4 * channels].view(np.int32)
    factors, slopes = floats(weights, endings[1], channels), floats(weights, endings[2], channels)
    outside = weights[border : border + channels]
    line = first
    while line < last:
        n, oy = line // oh, line % oh
        count = min(oh - oy, last - line)
        start = (line - first) * ow
        part = rows[start : start + count * ow].reshape((1, count, ow, channels))
        filter_maps(
            x[n : n + 1], taps, bias, factors, slopes, outside, part, step[STRIDE_Y],
            step[STRIDE_X], step[TOP] - oy * step[STRIDE_Y], step[LEFT], zero, 0, count,
        )  # fmt: skip
        line += count


@inner
def filter_codes(step: Array, weights: Array, x: Array, y: Array, low: int, high: int) -> None:
    """x (N, H, W, C) -> lines low .. high - 1 of a depthwise convolution, y flat."""
    endings = step[BIAS], step[FACTOR], step[SLOPE]
    size = step[OUT_WIDTH] * step[CHANNELS]
    rows = y[low * size : high * size].reshape(((high - low) * step[OUT_WIDTH], step[CHANNELS]))
    filter_lines(step, weights, x, rows, endings, step[ZERO_OUT], low, high)


@inner
def average_codes(
    step: Array, weights: Array, x: Array, codes: Array, real: Array, low: int, high: int,
    scratch: Array,
) -> None:  # fmt: skip
    """x (N, H, W, C) -> the means of maps low .. high - 1: codes, or real numbers."""
    images, channels = x.shape[0], x.shape[3]
    scale = floats(weights, step[FACTOR], 1)[0]
    sums = scratch[:channels].view(np.int32)
    if real.size:
        out = real.reshape((images, channels))
        average(x, out, scale, step[ZERO_IN], step[ZERO_OUT], low, high, sums)
    else:
        y = codes.reshape((images, channels))
        average(x, y, scale, step[ZERO_IN], step[ZERO_OUT], low, high, sums)
