"""Depthwise convolution with channels innermost: the rungs channels_last and border.

Each gradient has a loop of its own: `input` the gradient of x, `weight` that of w.
"""

from __future__ import annotations

import numpy as np

from ..checks import Array
from ..jit import kernel
from ..windows import Pads, Pair
from .plain import new_output

# --- channels_last --------------------------------------------------------------------


def forward_channels_last(
    x: Array, w: Array, *, stride: Pair = (1, 1), pads: Pads = (0, 0, 0, 0)
) -> Array:
    """Channels innermost: the loop over memory's own order, one bounds test per C products.

    Saves: the stride of C numbers that naive takes from product to product (a cache line for
    each), and all but one bounds test in C. The inner loop becomes vector instructions.
    Measure: GFLOP/s against naive at few and at many channels.
    """
    y = new_output(x, w, stride, pads)
    channels_last_forward_loop(x, w, y, stride, pads)
    return y


@kernel
def channels_last_forward_loop(x: Array, w: Array, y: Array, stride: Pair, pads: Pads) -> None:
    """x (N, H, W, C), w (KH, KW, C) -> y (N, OH, OW, C)."""
    for n in range(y.shape[0]):
        for oy in range(y.shape[1]):
            for ox in range(y.shape[2]):
                iy, ix = oy * stride[0] - pads[0], ox * stride[1] - pads[2]
                add_window(x[n], w, y[n, oy, ox], iy, ix)


@kernel
def add_window(x: Array, w: Array, y: Array, iy: int, ix: int) -> None:
    """One output: x (H, W, C), its window from row iy and column ix on -> y (C,)."""
    y[:] = 0
    for ky in range(w.shape[0]):
        for kx in range(w.shape[1]):
            if 0 <= iy + ky < x.shape[0] and 0 <= ix + kx < x.shape[1]:
                add_product(x[iy + ky, ix + kx], w[ky, kx], y)


@kernel
def add_product(a: Array, b: Array, total: Array) -> None:
    """Add a * b to total, channel by channel."""
    for c in range(total.size):
        total[c] += a[c] * b[c]


def input_channels_last(
    dy: Array, w: Array, *, size: Pair, stride: Pair = (1, 1), pads: Pads = (0, 0, 0, 0)
) -> Array:
    """Channels innermost: C products between two bounds tests, added to nine pixels in turn.

    Saves: as forward. Measure: against forward, which adds to one pixel.
    """
    dx = np.zeros((len(dy), *size, w.shape[2]), dy.dtype)
    channels_last_input_loop(dy, w, dx, stride, pads)
    return dx


@kernel
def channels_last_input_loop(dy: Array, w: Array, dx: Array, stride: Pair, pads: Pads) -> None:
    """dy (N, OH, OW, C), w (KH, KW, C) -> dx (N, H, W, C) that starts at zero."""
    for n in range(dy.shape[0]):
        for oy in range(dy.shape[1]):
            for ox in range(dy.shape[2]):
                for ky in range(w.shape[0]):
                    for kx in range(w.shape[1]):
                        iy, ix = oy * stride[0] + ky - pads[0], ox * stride[1] + kx - pads[2]
                        if 0 <= iy < dx.shape[1] and 0 <= ix < dx.shape[2]:
                            add_product(dy[n, oy, ox], w[ky, kx], dx[n, iy, ix])


def weight_channels_last(
    dy: Array, x: Array, *, kernel_size: Pair, stride: Pair = (1, 1), pads: Pads = (0, 0, 0, 0)
) -> Array:
    """Channels innermost: C products between two bounds tests, added to nine sums in turn.

    Saves: as forward. Measure: against the other gradient; the sums stay in the first-level cache.
    """
    dw = np.zeros((*kernel_size, x.shape[3]))
    channels_last_weight_loop(dy, x, dw, np.zeros(dw.shape, x.dtype), stride, pads)
    return dw.astype(x.dtype)


@kernel
def channels_last_weight_loop(
    dy: Array, x: Array, dw: Array, image: Array, stride: Pair, pads: Pads
) -> None:
    """dy (N, OH, OW, C), x (N, H, W, C) -> dw (KH, KW, C) float64; it and `image` start at zero.

    An image's own sums are float32, so that the inner loop converts nothing.
    """
    for n in range(dy.shape[0]):
        for oy in range(dy.shape[1]):
            for ox in range(dy.shape[2]):
                iy, ix = oy * stride[0] - pads[0], ox * stride[1] - pads[2]
                add_gradients(x[n], dy[n, oy, ox], image, iy, ix)
        take_over(image, dw)


@kernel
def add_gradients(x: Array, dy: Array, dw: Array, iy: int, ix: int) -> None:
    """One output: its window on x (H, W, C) times dy (C,), added to dw (KH, KW, C)."""
    for ky in range(dw.shape[0]):
        for kx in range(dw.shape[1]):
            if 0 <= iy + ky < x.shape[0] and 0 <= ix + kx < x.shape[1]:
                add_product(x[iy + ky, ix + kx], dy, dw[ky, kx])


@kernel
def take_over(image: Array, dw: Array) -> None:
    """Add an image's sums to those of all, and start again at zero."""
    for ky in range(dw.shape[0]):
        for kx in range(dw.shape[1]):
            for c in range(dw.shape[2]):
                dw[ky, kx, c] += image[ky, kx, c]
                image[ky, kx, c] = 0


# --- border ---------------------------------------------------------------------------


def forward_border(
    x: Array, w: Array, *, stride: Pair = (1, 1), pads: Pads = (0, 0, 0, 0)
) -> Array:
    """The border apart: inside the map no test stands between the nine products of a sum.

    Saves: the tests, and eight of nine times the load and store of an output, since a 3x3 sum
    is now one expression and stays in a register. The border, 14 % of a 28x28 map and 8 of 9
    pixels of a 3x3 map, keeps the tests.
    Measure: large maps against small ones.
    """
    y = new_output(x, w, stride, pads)
    border_forward_loop(x, w, y, stride, (pads[0], pads[2]))
    return y


@kernel
def within(size: int, outputs: int, k: int, stride: int, before: int) -> Pair:
    """Return the first output, and the one after the last, whose window lies in the map."""
    low = min(outputs, max(0, -(-before // stride)))
    high = max(low, min(outputs, (size - k + before) // stride + 1))
    return low, high


@kernel
def border_forward_loop(x: Array, w: Array, y: Array, stride: Pair, before: Pair) -> None:
    """x (N, H, W, C), w (KH, KW, C) -> y (N, OH, OW, C); before = (top, left) padding."""
    _, height, width, _ = x.shape
    kh, kw, _ = w.shape
    top, bottom = within(height, y.shape[1], kh, stride[0], before[0])
    left, right = within(width, y.shape[2], kw, stride[1], before[1])
    for n in range(y.shape[0]):
        for oy in range(y.shape[1]):
            iy = oy * stride[0] - before[0]
            end = right if top <= oy < bottom else left  # a row at the border has no inside
            for ox in range(left):
                add_window(x[n], w, y[n, oy, ox], iy, ox * stride[1] - before[1])
            for ox in range(left, end):
                ix = ox * stride[1] - before[1]
                sum_window(x[n], w, y[n, oy, ox], iy, ix)
            for ox in range(end, y.shape[2]):
                add_window(x[n], w, y[n, oy, ox], iy, ox * stride[1] - before[1])


@kernel
def sum_window(x: Array, w: Array, y: Array, iy: int, ix: int) -> None:
    """As `add_window`, for a window inside the map."""
    if w.shape[0] != 3 or w.shape[1] != 3:
        y[:] = 0
        for ky in range(w.shape[0]):
            for kx in range(w.shape[1]):
                add_product(x[iy + ky, ix + kx], w[ky, kx], y)
        return
    above, here, below = x[iy], x[iy + 1], x[iy + 2]
    x0, x1, x2, w0, w1, w2 = above[ix], above[ix + 1], above[ix + 2], w[0, 0], w[0, 1], w[0, 2]
    x3, x4, x5, w3, w4, w5 = here[ix], here[ix + 1], here[ix + 2], w[1, 0], w[1, 1], w[1, 2]
    x6, x7, x8, w6, w7, w8 = below[ix], below[ix + 1], below[ix + 2], w[2, 0], w[2, 1], w[2, 2]
    for c in range(y.size):
        first = x0[c] * w0[c] + x1[c] * w1[c] + x2[c] * w2[c]
        second = x3[c] * w3[c] + x4[c] * w4[c] + x5[c] * w5[c]
        y[c] = first + second + (x6[c] * w6[c] + x7[c] * w7[c] + x8[c] * w8[c])


def input_border(
    dy: Array, w: Array, *, size: Pair, stride: Pair = (1, 1), pads: Pads = (0, 0, 0, 0)
) -> Array:
    """The border apart: forward's loop with the turned kernel over dy, so a sum is one expression.

    Saves: the tests, and the load and store of each sum, as in forward. At another stride than
    1 the outputs that saw a pixel are no window, and channels_last runs. Measure: as forward.
    """
    if tuple(stride) != (1, 1):
        return input_channels_last(dy, w, size=size, stride=stride, pads=pads)
    dx = np.empty((len(dy), *size, w.shape[2]), dy.dtype)
    turned = np.ascontiguousarray(w[::-1, ::-1])
    before = (w.shape[0] - 1 - pads[0], w.shape[1] - 1 - pads[2])
    border_forward_loop(dy, turned, dx, (1, 1), before)
    return dx


def weight_border(
    dy: Array, x: Array, *, kernel_size: Pair, stride: Pair = (1, 1), pads: Pads = (0, 0, 0, 0)
) -> Array:
    """The border apart: inside the map three taps a pass, and no tests.

    Saves: the tests, and two of three loads of dy. Measure: against the other gradient: the
    nine sums are in memory, and loading and storing them is the limit.
    """
    dw = np.zeros((*kernel_size, x.shape[3]))
    image = np.zeros(dw.shape, x.dtype)
    border_weight_loop(dy, x, dw, image, stride, (pads[0], pads[2]))
    return dw.astype(x.dtype)


@kernel
def border_weight_loop(
    dy: Array, x: Array, dw: Array, image: Array, stride: Pair, before: Pair
) -> None:
    """dy (N, OH, OW, C), x (N, H, W, C) -> dw (KH, KW, C); as `channels_last_weight_loop`."""
    kh, kw, _ = dw.shape
    top, bottom = within(x.shape[1], dy.shape[1], kh, stride[0], before[0])
    left, right = within(x.shape[2], dy.shape[2], kw, stride[1], before[1])
    for n in range(dy.shape[0]):
        for oy in range(dy.shape[1]):
            iy = oy * stride[0] - before[0]
            end = right if top <= oy < bottom else left
            for ox in range(left):
                add_gradients(x[n], dy[n, oy, ox], image, iy, ox * stride[1] - before[1])
            for ox in range(left, end):
                ix = ox * stride[1] - before[1]
                add_inside(x[n], dy[n, oy, ox], image, iy, ix)
            for ox in range(end, dy.shape[2]):
                add_gradients(x[n], dy[n, oy, ox], image, iy, ox * stride[1] - before[1])
        take_over(image, dw)


@kernel
def add_inside(x: Array, dy: Array, dw: Array, iy: int, ix: int) -> None:
    """As `add_gradients`, for a window inside the map."""
    for ky in range(dw.shape[0]):
        row = x[iy + ky]
        if dw.shape[1] == 3:
            add_three(row[ix], row[ix + 1], row[ix + 2], dy, dw[ky])
        else:
            for kx in range(dw.shape[1]):
                add_product(row[ix + kx], dy, dw[ky, kx])


@kernel
def add_three(x0: Array, x1: Array, x2: Array, dy: Array, dw: Array) -> None:
    """Three pixels (C,) times dy (C,), added to one kernel row dw (3, C)."""
    dw0, dw1, dw2 = dw[0], dw[1], dw[2]
    for c in range(dy.size):
        dw0[c] += x0[c] * dy[c]
        dw1[c] += x1[c] * dy[c]
        dw2[c] += x2[c] * dy[c]
