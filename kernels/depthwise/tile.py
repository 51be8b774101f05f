"""Depthwise 3x3 convolution with explicit vectors: the rung simd.

Work goes by tiles of 4 pixels in a row, one vector of channels at a time. A tile needs 3 x 6
pixels of the input; their addresses are looked up once per tile, and pixels outside the map
point to a row of zeros (or, to be written to, to a row that nobody reads). So the innermost
loop, over channels, holds loads, multiply-adds and stores: no test for borders, no copy.

Backward runs once over dy and x: the 3 x 6 window of dy that gives 4 pixels of dx holds just
the factors that 4 pixels of x meet in dw.
"""

from __future__ import annotations

import numpy as np

from ..checks import Array
from ..jit import kernel, parallel, prange
from ..memory import empty_like
from ..simd import LANES, load, multiply_add, store, zero
from ..windows import Pads, Pair
from .plain import new_output
from .rows import backward_channels_last, cut, forward_channels_last

TILE = 4  # pixels; their sums, a kernel row and what they see of a row fit 16 registers
WINDOW = 3 * (TILE + 2)
VECTOR_BYTES = 4 * LANES


def applies(x: Array, w: Array, stride: Pair) -> bool:
    """Tell whether the tile is made for this: float32, 3x3, stride 1, whole vectors of channels."""
    return (
        x.dtype == np.float32
        and w.shape[:2] == (3, 3)
        and tuple(stride) == (1, 1)
        and x.shape[3] % LANES == 0
    )


def forward_simd(x: Array, w: Array, *, stride: Pair = (1, 1), pads: Pads = (0, 0, 0, 0)) -> Array:
    """Four pixels share each number that is loaded; other kernels and strides: channels_last."""
    if not applies(x, w, stride):
        return forward_channels_last(x, w, stride=stride, pads=pads)
    y = new_output(x, w, stride, pads)
    n_chunks = cut(y.shape[0] * y.shape[1], 9 * y.size)
    forward_tiles(x, padded(w), y, *scratch(n_chunks, x), (pads[0], pads[2]))
    return y


def backward_simd(
    dy: Array, x: Array, w: Array, *, stride: Pair = (1, 1), pads: Pads = (0, 0, 0, 0)
) -> tuple[Array, Array]:
    """Both gradients in one pass over dy and x; dw is summed per chunk, in order."""
    if not applies(x, w, stride):
        return backward_channels_last(dy, x, w, stride=stride, pads=pads)
    dx = empty_like(x)
    n_chunks = cut(x.shape[0] * x.shape[1], 18 * x.size)
    # A chunk's own dw is written and read once more: keep them few against the input.
    n_chunks = min(n_chunks, max(1, x.size // (4 * w.size)))
    turned = padded(w[::-1, ::-1])
    partial = np.zeros((n_chunks, *turned.shape), np.float32)
    backward_tiles(dy, x, turned, dx, partial, *scratch(n_chunks, x), (2 - pads[0], 2 - pads[2]))
    dw = partial.sum(axis=0, dtype=np.float64)[::-1, ::-1, : x.shape[3]]
    return dx, np.ascontiguousarray(dw, np.float32)


def padded(w: Array) -> Array:
    """Copy a kernel with its taps one cache line further apart.

    1024 channels are 4,096 bytes: all taps of a channel would want the same 8 places of L1.
    """
    padded = np.zeros((*w.shape[:2], w.shape[2] + 16), np.float32)
    padded[..., : w.shape[2]] = w
    return padded


def scratch(n_chunks: int, x: Array) -> tuple[Array, Array, Array]:
    """Return room for addresses per chunk, a row of zeros, and a row per chunk that is not read."""
    channels = x.shape[3]
    return (
        np.empty((n_chunks, WINDOW), np.int64),
        np.zeros(channels, np.float32),
        np.empty((n_chunks, channels), np.float32),
    )


@kernel
def look_up(at: Array, x: Array, n: int, top: int, left: int, zeros: Array) -> None:
    """Fill `at` with the addresses of rows top .. top + 2 and 6 columns from `left` on."""
    height, width, channels = x.shape[1], x.shape[2], x.shape[3]
    for i in range(WINDOW):
        iy, ix = top + i // (TILE + 2), left + i % (TILE + 2)
        if 0 <= iy < height and 0 <= ix < width:
            at[i] = x.ctypes.data + 4 * ((n * height + iy) * width + ix) * channels
        else:
            at[i] = zeros.ctypes.data


@kernel
def see(at: Array, w: int, tap_bytes: int, pixel: int, here: int) -> object:
    """Return what output pixel 0 .. 3 of a tile is: 9 taps at address w times its window."""
    total = zero()
    for ky in range(3):
        for kx in range(3):
            weight = load(w + (3 * ky + kx) * tap_bytes + here)
            total = multiply_add(weight, load(at[6 * ky + kx + pixel] + here), total)
    return total


@parallel
def forward_tiles(
    x: Array, w: Array, y: Array, places: Array, zeros: Array, unread: Array, before: Pair
) -> None:
    """x (N, H, W, C), w (3, 3, > C) -> y (N, OH, OW, C); before = (top, left) padding."""
    n_chunks, lines = len(places), y.shape[0] * y.shape[1]
    for chunk in prange(n_chunks):
        low, high = chunk * lines // n_chunks, (chunk + 1) * lines // n_chunks
        forward_lines(x, w, y, low, high, places[chunk], zeros, unread[chunk], before)


@kernel
def forward_lines(
    x: Array,
    w: Array,
    y: Array,
    low: int,
    high: int,
    at: Array,
    zeros: Array,
    unread: Array,
    before: Pair,
) -> None:
    """Fill rows low .. high - 1 of the N * OH rows of y; `at`, `unread` are this thread's."""
    _, height, width, channels = y.shape
    row_bytes, tap_bytes = 4 * channels, 4 * w.shape[2]
    weights, nowhere = w.ctypes.data, unread.ctypes.data
    for line in range(low, high):
        for ox in range(0, width, TILE):
            look_up(at, x, line // height, line % height - before[0], ox - before[1], zeros)
            y0 = y.ctypes.data + (line * width + ox) * row_bytes
            y1 = y0 + row_bytes if ox + 1 < width else nowhere
            y2 = y0 + 2 * row_bytes if ox + 2 < width else nowhere
            y3 = y0 + 3 * row_bytes if ox + 3 < width else nowhere
            for here in range(0, row_bytes, VECTOR_BYTES):
                # All four before the first store: what they share is loaded once.
                s0 = see(at, weights, tap_bytes, 0, here)
                s1 = see(at, weights, tap_bytes, 1, here)
                s2 = see(at, weights, tap_bytes, 2, here)
                s3 = see(at, weights, tap_bytes, 3, here)
                store(s0, y0 + here)
                store(s1, y1 + here)
                store(s2, y2 + here)
                store(s3, y3 + here)


@parallel
def backward_tiles(
    dy: Array,
    x: Array,
    w: Array,
    dx: Array,
    partial: Array,
    places: Array,
    zeros: Array,
    unread: Array,
    before: Pair,
) -> None:
    """dy (N, OH, OW, C), x, turned w (3, 3, > C) -> dx, partial (chunks, *w.shape), turned too."""
    n_chunks, lines = len(places), x.shape[0] * x.shape[1]
    for chunk in prange(n_chunks):
        low, high = chunk * lines // n_chunks, (chunk + 1) * lines // n_chunks
        backward_lines(
            dy, x, w, dx, partial[chunk], low, high, places[chunk], zeros, unread[chunk], before
        )


@kernel
def backward_lines(
    dy: Array,
    x: Array,
    w: Array,
    dx: Array,
    dw: Array,
    low: int,
    high: int,
    at: Array,
    zeros: Array,
    unread: Array,
    before: Pair,
) -> None:
    """Fill rows low .. high - 1 of the N * H rows of dx and add to dw; dx may be x itself."""
    _, height, width, channels = x.shape
    row_bytes, tap_bytes = 4 * channels, 4 * w.shape[2]
    weights, nowhere = w.ctypes.data, unread.ctypes.data
    sums, nothing = dw.ctypes.data, zeros.ctypes.data
    for line in range(low, high):
        for ix in range(0, width, TILE):
            look_up(at, dy, line // height, line % height - before[0], ix - before[1], zeros)
            start, left = (line * width + ix) * row_bytes, width - ix
            x0, dx0 = x.ctypes.data + start, dx.ctypes.data + start
            x1 = x0 + row_bytes if left > 1 else nothing
            x2 = x0 + 2 * row_bytes if left > 2 else nothing
            x3 = x0 + 3 * row_bytes if left > 3 else nothing
            dx1 = dx0 + row_bytes if left > 1 else nowhere
            dx2 = dx0 + 2 * row_bytes if left > 2 else nowhere
            dx3 = dx0 + 3 * row_bytes if left > 3 else nowhere
            for here in range(0, row_bytes, VECTOR_BYTES):
                s0 = see(at, weights, tap_bytes, 0, here)
                s1 = see(at, weights, tap_bytes, 1, here)
                s2 = see(at, weights, tap_bytes, 2, here)
                s3 = see(at, weights, tap_bytes, 3, here)
                v0, v1, v2, v3 = (
                    load(x0 + here),
                    load(x1 + here),
                    load(x2 + here),
                    load(x3 + here),
                )
                for tap in range(9):
                    place = sums + tap * tap_bytes + here
                    first = 6 * (tap // 3) + tap % 3
                    g = multiply_add(v0, load(at[first] + here), load(place))
                    g = multiply_add(v1, load(at[first + 1] + here), g)
                    g = multiply_add(v2, load(at[first + 2] + here), g)
                    g = multiply_add(v3, load(at[first + 3] + here), g)
                    store(g, place)
                store(s0, dx0 + here)
                store(s1, dx1 + here)
                store(s2, dx2 + here)
                store(s3, dx3 + here)
