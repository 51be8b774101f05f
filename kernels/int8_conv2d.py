"""8-bit convolution: windows of codes, copied row by row, times packed weights.

x (N, H, W, C) uint8 codes; panels: the weights (KH, KW, C, Cout) as `int8.pack` packs their
(KH * KW * C, Cout) matrix; bias, scale, slope (Cout,) and zero as in `int8_gemm`. Pixels outside
the map are codes `zero_in`: the real number 0.

| rung    | the one idea                                                                     |
|---------|----------------------------------------------------------------------------------|
| naive   | one product after the other, one test for the border each                        |
| numpy   | all windows of the batch as one matrix, and one product of float64 numbers       |
| widened | a few windows at a time, so that their copy stays in L1; then as in `int8_gemm`  |
| avx2    | the same with its tile                                                           |
| vnni    | the same with its tile                                                           |

A copied window costs as many bytes as it has numbers, a multiplied one Cout times as many products.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .checks import Array, ShapeError
from .int8.arithmetic import code_of, scaled
from .int8.checks import check_integers, check_zero
from .int8.packing import GROUP, PANEL, unpack
from .int8_gemm import check_weights, multiply_avx2, multiply_vnni, multiply_widened
from .int8_gemm import forward_numpy as gemm_numpy
from .jit import MAX_CHUNKS, Parallel, exact, max_threads, parallel, prange, thread_id
from .ladder import Ladder
from .memory import empty
from .simd import ISA, LANES, VNNI, address, load_bytes, splat_byte, store_bytes
from .windows import Pads, Pair, output_size, padded, shifted

# Bytes of copied windows: they stay in the first-level cache.
BLOCK = 1 << 14
ROWS = 14  # of the largest tile: blocks are whole tiles high
PART = 1 << 20  # products that make a part worth a thread


def check(
    x: Array, panels: Array, bias: Array, scale: Array, slope: Array, *, kernel_size: Pair,
    stride: Pair, pads: Pads, dilation: Pair = (1, 1), zero_in: int, zero: int,
    as_float: bool = False,
) -> None:  # fmt: skip
    """Raise unless x is (N, H, W, C) uint8, panels fit its windows, and windows fit the map."""
    check_integers("x", x, np.uint8, ("N", "H", "W", "C"))
    if not x.size:
        raise ShapeError(f"x: expected at least one pixel and channel, got shape {x.shape}")
    check_zero("zero_in", zero_in)
    _size(x, kernel_size, stride, pads, dilation)
    k = kernel_size[0] * kernel_size[1] * x.shape[3]
    check_weights(panels, bias, scale, slope, k, zero, as_float=as_float)


def _size(x: Array, kernel_size: Pair, stride: Pair, pads: Pads, dilation: Pair) -> Pair:
    map_size = (x.shape[1], x.shape[2])
    return output_size(map_size, kernel_size, stride=stride, pads=pads, dilation=dilation)


def _result(
    x: Array, channels: int, kernel_size: Pair, stride: Pair, pads: Pads, dilation: Pair,
    as_float: bool,
) -> Array:  # fmt: skip
    size = _size(x, kernel_size, stride, pads, dilation)
    return empty((len(x), *size, channels), np.float32 if as_float else np.uint8)


def forward_naive(
    x: Array, panels: Array, bias: Array, scale: Array, slope: Array, *, kernel_size: Pair,
    stride: Pair, pads: Pads, dilation: Pair = (1, 1), zero_in: int, zero: int,
    as_float: bool = False,
) -> Array:  # fmt: skip
    """Take one product after the other; ask for each whether its pixel is inside the map."""
    y = _result(x, bias.size, kernel_size, stride, pads, dilation, as_float)
    w = unpack(panels, kernel_size[0] * kernel_size[1] * x.shape[3], bias.size)
    weights = w.reshape(*kernel_size, x.shape[3], bias.size)
    naive_loop(
        x, weights, bias, scale, slope, y, stride, (pads[0], pads[2]), dilation, zero_in, zero
    )
    return y


@exact
def naive_loop(
    x: Array, w: Array, bias: Array, scale: Array, slope: Array, y: Array, stride: Pair,
    corner: Pair, dilation: Pair, zero_in: int, zero: int,
) -> None:  # fmt: skip
    """x (N, H, W, C), w (KH, KW, C, Cout) -> y (N, OH, OW, Cout); corner = (top, left) padding."""
    _, height, width, channels = x.shape
    for n in range(y.shape[0]):
        for oy in range(y.shape[1]):
            for ox in range(y.shape[2]):
                for j in range(y.shape[3]):
                    acc = np.int64(bias[j])
                    for ky in range(w.shape[0]):
                        for kx in range(w.shape[1]):
                            iy = oy * stride[0] + ky * dilation[0] - corner[0]
                            ix = ox * stride[1] + kx * dilation[1] - corner[1]
                            inside = 0 <= iy < height and 0 <= ix < width
                            for c in range(channels):
                                code = np.int64(x[n, iy, ix, c]) if inside else np.int64(zero_in)
                                acc += code * w[ky, kx, c, j]
                    real = scaled(np.int32(acc), scale[j], slope[j])
                    if y.itemsize == 4:
                        y[n, oy, ox, j] = real
                    else:
                        y[n, oy, ox, j] = code_of(real, zero)


def forward_numpy(
    x: Array, panels: Array, bias: Array, scale: Array, slope: Array, *, kernel_size: Pair,
    stride: Pair, pads: Pads, dilation: Pair = (1, 1), zero_in: int, zero: int,
    as_float: bool = False,
) -> Array:  # fmt: skip
    """Make one matrix of all windows, and multiply it."""
    size = _size(x, kernel_size, stride, pads, dilation)
    kh, kw = kernel_size
    reach = (dilation[0] * (kh - 1) + 1, dilation[1] * (kw - 1) + 1)
    wide = padded(x, reach, stride, pads, size, zero_in)
    taps = [
        shifted(wide, p * dilation[0], q * dilation[1], stride, size)
        for p in range(kh)
        for q in range(kw)
    ]
    windows = np.stack(taps, axis=3).reshape(-1, kh * kw * x.shape[3])
    y = gemm_numpy(windows, panels, bias, scale, slope, zero=zero, as_float=as_float)
    return y.reshape(len(x), *size, bias.size)


@exact
def copy_codes(source: Array, at: int, target: Array, to: int, count: int) -> None:
    """Copy codes source[at : at + count] to target[to : to + count], both flat.

    In whole vectors, so perhaps a few more: but near the end of an array one after the other.
    """
    room = (count + LANES - 1) // LANES * LANES
    if at + room <= source.size and to + room <= target.size:
        a, b = address(source) + at, address(target) + to
        for i in range(0, room, LANES):
            store_bytes(load_bytes(a + i), b + i)
    else:
        for i in range(count):
            target[to + i] = source[at + i]


@exact
def fill_codes(target: Array, to: int, count: int, code: int) -> None:
    """Write a code to target[to : to + count], and perhaps a few more, as `copy_codes` does."""
    room = (count + LANES - 1) // LANES * LANES
    if to + room <= target.size:
        for i in range(0, room, LANES):
            store_bytes(splat_byte(np.uint8(code)), address(target) + to + i)
    else:
        for i in range(count):
            target[to + i] = code


@exact
def gather(
    x: Array, windows: Array, first: int, count: int, size: Pair, kernel_size: Pair,
    stride: Pair, corner: Pair, dilation: Pair, zero_in: int,
) -> None:  # fmt: skip
    """Copy the windows of outputs first .. first + count - 1 to rows of windows (rows, K).

    size = (OH, OW): outputs are counted through all maps. A row of a window lies side by side in
    its map: 15 bytes in the stem, and one vector. What is copied past the end of such a run is
    overwritten by the next one, for they are written in order; where a vector would reach past x
    or past row first + count - 1 of windows, the run is copied byte by byte. Numbers of a row
    past the window's own, where windows is wider, are left with anything.
    """
    _, height, width, channels = x.shape
    kh, kw = kernel_size
    codes, rows = x.reshape(x.size), windows[:count].reshape(count * windows.shape[1])
    line, run = width * channels, kw * channels
    step, reach = dilation[0] * line, dilation[0] * (kh - 1) + 1
    # From a window's first byte to the last one that its last run's vectors touch.
    room = (run + LANES - 1) // LANES * LANES
    last_read, last_write = codes.size - (kh - 1) * step - room, rows.size - (kh - 1) * run - room
    n, place = first // (size[0] * size[1]), first % (size[0] * size[1])
    oy, ox = place // size[1], place % size[1]
    for i in range(count):
        top, left = oy * stride[0] - corner[0], ox * stride[1] - corner[1]
        at, to = (n * height + top) * line + left * channels, i * windows.shape[1]
        whole = dilation[1] == 1 and left >= 0 and left + kw <= width
        if whole and top >= 0 and top + reach <= height and at <= last_read and to <= last_write:
            source, target = address(codes) + at, address(rows) + to
            for _ in range(kh):
                for j in range(0, run, LANES):
                    store_bytes(load_bytes(source + j), target + j)
                source, target = source + step, target + run
        else:
            gather_at_edge(
                codes, rows, at, to, top, left, height, width, channels, kernel_size, dilation,
                zero_in,
            )  # fmt: skip
        ox += 1
        if ox == size[1]:
            oy, ox = oy + 1, 0
            if oy == size[0]:
                n, oy = n + 1, 0


@exact
def gather_at_edge(
    codes: Array, rows: Array, at: int, to: int, top: int, left: int, height: int, width: int,
    channels: int, kernel_size: Pair, dilation: Pair, zero_in: int,
) -> None:  # fmt: skip
    """Copy one window, whose corner is codes[at], to rows[to] and what follows it.

    Parts of it may lie outside the map, or its vectors outside the arrays.
    """
    kh, kw = kernel_size
    run = kw * channels
    # Columns of a window without holes: so many before the map, up to this one inside.
    before = min(kw, max(0, -left))
    inside = max(before, min(kw, width - left))
    start, end = before * channels, inside * channels
    for ky in range(kh):
        iy = top + ky * dilation[0]
        if iy < 0 or iy >= height:
            fill_codes(rows, to, run, zero_in)
        elif dilation[1] == 1:
            fill_codes(rows, to, start, zero_in)
            copy_codes(codes, at + start, rows, to + start, end - start)
            fill_codes(rows, to + end, run - end, zero_in)
        else:
            for kx in range(kw):
                ix, tap = left + kx * dilation[1], to + kx * channels
                if ix < 0 or ix >= width:
                    fill_codes(rows, tap, channels, zero_in)
                else:
                    pixel = at + kx * dilation[1] * channels
                    copy_codes(codes, pixel, rows, tap, channels)
        at, to = at + dilation[0] * width * channels, to + run


@exact
def convolve_widened(
    x: Array, panels: Array, bias: Array, scale: Array, slope: Array, y: Array,
    kernel_size: Pair, stride: Pair, corner: Pair, dilation: Pair, zero_in: int, zero: int,
    first: int, last: int, left: int, right: int, windows: Array,
) -> None:  # fmt: skip
    """Compute outputs first .. last - 1, counted through all maps, of panels left .. right - 1.

    windows (rows, KH * KW * C, at least 4) uint8 is scratch: so many outputs at a time.
    """
    size, rows = (y.shape[1], y.shape[2]), y.reshape(-1, y.shape[3])
    for start in range(first, last, windows.shape[0]):
        count = min(windows.shape[0], last - start)
        gather(x, windows, start, count, size, kernel_size, stride, corner, dilation, zero_in)
        multiply_widened(
            windows[:count], panels, bias, scale, slope, rows[start : start + count], zero,
            0, count, left, right,
        )  # fmt: skip


@exact
def convolve_avx2(
    x: Array, panels: Array, bias: Array, scale: Array, slope: Array, y: Array,
    kernel_size: Pair, stride: Pair, corner: Pair, dilation: Pair, zero_in: int, zero: int,
    first: int, last: int, left: int, right: int, windows: Array,
) -> None:  # fmt: skip
    """As `convolve_widened`, by tiles of AVX2."""
    size, rows = (y.shape[1], y.shape[2]), y.reshape(-1, y.shape[3])
    for start in range(first, last, windows.shape[0]):
        count = min(windows.shape[0], last - start)
        gather(x, windows, start, count, size, kernel_size, stride, corner, dilation, zero_in)
        multiply_avx2(
            windows[:count], panels, bias, scale, slope, rows[start : start + count], zero,
            0, count, left, right,
        )  # fmt: skip


@exact
def convolve_vnni(
    x: Array, panels: Array, bias: Array, scale: Array, slope: Array, y: Array,
    kernel_size: Pair, stride: Pair, corner: Pair, dilation: Pair, zero_in: int, zero: int,
    first: int, last: int, left: int, right: int, windows: Array,
) -> None:  # fmt: skip
    """As `convolve_widened`, by tiles of VNNI."""
    size, rows = (y.shape[1], y.shape[2]), y.reshape(-1, y.shape[3])
    for start in range(first, last, windows.shape[0]):
        count = min(windows.shape[0], last - start)
        gather(x, windows, start, count, size, kernel_size, stride, corner, dilation, zero_in)
        multiply_vnni(
            windows[:count], panels, bias, scale, slope, rows[start : start + count], zero,
            0, count, left, right,
        )  # fmt: skip


def rows_of_scratch(k: int) -> int:
    """Return how many windows of k numbers to copy at a time."""
    return max(1, BLOCK // k // ROWS) * ROWS


def parts_of(outputs: int, k: int, n: int) -> Pair:
    """Return into how many parts to cut outputs and panels."""
    wanted = max(1, min(MAX_CHUNKS, outputs * k * n // PART))
    by_row = max(1, min(wanted, -(-outputs // ROWS) // 2))
    return by_row, max(1, min(wanted // by_row, -(-n // PANEL)))


@parallel
def widened_loop(
    x: Array, panels: Array, bias: Array, scale: Array, slope: Array, y: Array,
    kernel_size: Pair, stride: Pair, corner: Pair, dilation: Pair, zero_in: int, zero: int,
    by_row: int, by_column: int, windows: Array,
) -> None:  # fmt: skip
    """Cut y into by_row * by_column parts, and run `convolve_widened` on each."""
    outputs, n_panels = y.shape[0] * y.shape[1] * y.shape[2], panels.shape[0]
    for part in prange(by_row * by_column):
        row, column = part // by_column, part % by_column
        convolve_widened(
            x, panels, bias, scale, slope, y, kernel_size, stride, corner, dilation, zero_in,
            zero, row * outputs // by_row, (row + 1) * outputs // by_row,
            column * n_panels // by_column, (column + 1) * n_panels // by_column,
            windows[thread_id()],
        )  # fmt: skip


@parallel
def avx2_loop(
    x: Array, panels: Array, bias: Array, scale: Array, slope: Array, y: Array,
    kernel_size: Pair, stride: Pair, corner: Pair, dilation: Pair, zero_in: int, zero: int,
    by_row: int, by_column: int, windows: Array,
) -> None:  # fmt: skip
    """Cut y into by_row * by_column parts, and run `convolve_avx2` on each."""
    outputs, n_panels = y.shape[0] * y.shape[1] * y.shape[2], panels.shape[0]
    for part in prange(by_row * by_column):
        row, column = part // by_column, part % by_column
        convolve_avx2(
            x, panels, bias, scale, slope, y, kernel_size, stride, corner, dilation, zero_in,
            zero, row * outputs // by_row, (row + 1) * outputs // by_row,
            column * n_panels // by_column, (column + 1) * n_panels // by_column,
            windows[thread_id()],
        )  # fmt: skip


@parallel
def vnni_loop(
    x: Array, panels: Array, bias: Array, scale: Array, slope: Array, y: Array,
    kernel_size: Pair, stride: Pair, corner: Pair, dilation: Pair, zero_in: int, zero: int,
    by_row: int, by_column: int, windows: Array,
) -> None:  # fmt: skip
    """Cut y into by_row * by_column parts, and run `convolve_vnni` on each."""
    outputs, n_panels = y.shape[0] * y.shape[1] * y.shape[2], panels.shape[0]
    for part in prange(by_row * by_column):
        row, column = part // by_column, part % by_column
        convolve_vnni(
            x, panels, bias, scale, slope, y, kernel_size, stride, corner, dilation, zero_in,
            zero, row * outputs // by_row, (row + 1) * outputs // by_row,
            column * n_panels // by_column, (column + 1) * n_panels // by_column,
            windows[thread_id()],
        )  # fmt: skip


def _run(
    loop: Parallel[..., None], x: Array, panels: Array, bias: Array, scale: Array, slope: Array,
    kernel_size: Pair, stride: Pair, pads: Pads, dilation: Pair, zero_in: int, zero: int,
    as_float: bool,
) -> Array:  # fmt: skip
    y = _result(x, bias.size, kernel_size, stride, pads, dilation, as_float)
    k = kernel_size[0] * kernel_size[1] * x.shape[3]
    parts = parts_of(y.size // bias.size, k, bias.size)
    windows = empty((max_threads(), rows_of_scratch(k), max(k, GROUP)), np.uint8)
    corner = (pads[0], pads[2])
    loop(
        x, panels, bias, scale, slope, y, kernel_size, stride, corner, dilation, zero_in, zero,
        *parts, windows,
    )  # fmt: skip
    return y


def forward_widened(
    x: Array, panels: Array, bias: Array, scale: Array, slope: Array, *, kernel_size: Pair,
    stride: Pair, pads: Pads, dilation: Pair = (1, 1), zero_in: int, zero: int,
    as_float: bool = False,
) -> Array:  # fmt: skip
    """Copy a few windows at a time, which stay in L1, and multiply them by vectors of sums."""
    return _run(
        widened_loop, x, panels, bias, scale, slope, kernel_size, stride, pads, dilation,
        zero_in, zero, as_float,
    )  # fmt: skip


def forward_avx2(
    x: Array, panels: Array, bias: Array, scale: Array, slope: Array, *, kernel_size: Pair,
    stride: Pair, pads: Pads, dilation: Pair = (1, 1), zero_in: int, zero: int,
    as_float: bool = False,
) -> Array:  # fmt: skip
    """Copy a few windows at a time, and multiply them by register tiles of AVX2."""
    return _run(
        avx2_loop, x, panels, bias, scale, slope, kernel_size, stride, pads, dilation,
        zero_in, zero, as_float,
    )  # fmt: skip


def forward_vnni(
    x: Array, panels: Array, bias: Array, scale: Array, slope: Array, *, kernel_size: Pair,
    stride: Pair, pads: Pads, dilation: Pair = (1, 1), zero_in: int, zero: int,
    as_float: bool = False,
) -> Array:  # fmt: skip
    """Copy a few windows at a time, and multiply them by register tiles of VNNI."""
    return _run(
        vnni_loop, x, panels, bias, scale, slope, kernel_size, stride, pads, dilation,
        zero_in, zero, as_float,
    )  # fmt: skip


rungs: dict[str, Callable[..., Array]] = {
    "naive": forward_naive,
    "numpy": forward_numpy,
    "widened": forward_widened,
}
# What a plan calls inside its own parallel loop: the fastest that this CPU can run.
convolve: Any = convolve_widened
if ISA in ("avx2", "avx512"):
    rungs["avx2"] = forward_avx2
    convolve = convolve_avx2
if VNNI:
    rungs["vnni"] = forward_vnni
    convolve = convolve_vnni

forward = Ladder("int8_conv2d.forward", check=check, **rungs)
