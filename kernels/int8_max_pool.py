"""Max pooling of codes: the largest code of each window stands for its largest number.

x (N, H, W, C) uint8 -> y (N, OH, OW, C) uint8, with the same scale and zero point: a larger code
is a larger number, so nothing is dequantised. Padding never wins.

| rung   | the one idea                                                       |
|--------|--------------------------------------------------------------------|
| naive  | for every output, look at every code of its window                 |
| numpy  | for every position in the window, compare whole shifted arrays     |
| fused  | channels innermost: 64 codes a comparison, rows of maps on threads |
"""

from __future__ import annotations

import numpy as np

from .checks import Array
from .int8.checks import check_integers
from .jit import chunks, exact, parallel, prange
from .ladder import Ladder
from .memory import empty
from .windows import Pads, Pair, check_windows, out_shape, padded, shifted

GRAIN = 1 << 15  # codes of the input that make a chunk worth a thread


def check(x: Array, *, size: Pair, stride: Pair, pads: Pads, ceil_mode: bool) -> None:
    """Raise unless x is (N, H, W, C) uint8 and windows fit it."""
    check_integers("x", x, np.uint8)
    check_windows(x.shape, size, stride, pads, ceil_mode)


def forward_naive(x: Array, *, size: Pair, stride: Pair, pads: Pads, ceil_mode: bool) -> Array:
    """Search the window of every output; channels outermost, so it jumps through memory."""
    y = empty(out_shape(x.shape, size, stride, pads, ceil_mode), np.uint8)
    naive_loop(x, size, stride, (pads[0], pads[2]), y)
    return y


@exact
def naive_loop(x: Array, size: Pair, stride: Pair, corner: Pair, y: Array) -> None:
    """x (N, H, W, C) -> y (N, OH, OW, C); corner = (top, left) padding."""
    for n in range(y.shape[0]):
        for c in range(y.shape[3]):
            for oy in range(y.shape[1]):
                for ox in range(y.shape[2]):
                    best = np.uint8(0)
                    for p in range(size[0]):
                        for q in range(size[1]):
                            iy, ix = oy * stride[0] - corner[0] + p, ox * stride[1] - corner[1] + q
                            if 0 <= iy < x.shape[1] and 0 <= ix < x.shape[2]:
                                best = max(best, x[n, iy, ix, c])
                    y[n, oy, ox, c] = best


def forward_numpy(x: Array, *, size: Pair, stride: Pair, pads: Pads, ceil_mode: bool) -> Array:
    """Loop over the positions in a window only, each a comparison of whole arrays."""
    _, oh, ow, _ = shape = out_shape(x.shape, size, stride, pads, ceil_mode)
    wide, y = padded(x, size, stride, pads, (oh, ow), 0), np.zeros(shape, np.uint8)
    for p in range(size[0]):
        for q in range(size[1]):
            np.maximum(y, shifted(wide, p, q, stride, (oh, ow)), out=y)
    return y


@exact
def pool(
    x: Array, y: Array, size_y: int, size_x: int, stride_y: int, stride_x: int, top: int,
    left: int, first: int, last: int,
) -> None:  # fmt: skip
    """Compute output rows first .. last - 1, counted through all maps."""
    _, height, width, _ = x.shape
    for row in range(first, last):
        n, oy = row // y.shape[1], row % y.shape[1]
        y_start = oy * stride_y - top
        for ox in range(y.shape[2]):
            out, x_start = y[n, oy, ox], ox * stride_x - left
            out[:] = 0
            for iy in range(max(y_start, 0), min(y_start + size_y, height)):
                for ix in range(max(x_start, 0), min(x_start + size_x, width)):
                    pixel = x[n, iy, ix]
                    for c in range(out.size):
                        out[c] = max(out[c], pixel[c])


@parallel
def pool_loop(x: Array, y: Array, size: Pair, stride: Pair, corner: Pair, n_chunks: int) -> None:
    """Cut the output rows of all maps into chunks, and run `pool` on each."""
    rows = y.shape[0] * y.shape[1]
    for chunk in prange(n_chunks):
        pool(
            x, y, size[0], size[1], stride[0], stride[1], corner[0], corner[1],
            chunk * rows // n_chunks, (chunk + 1) * rows // n_chunks,
        )  # fmt: skip


def forward_fused(x: Array, *, size: Pair, stride: Pair, pads: Pads, ceil_mode: bool) -> Array:
    """Compare pixels, all channels of them at once, on all threads."""
    y = empty(out_shape(x.shape, size, stride, pads, ceil_mode), np.uint8)
    n_chunks = chunks(y.shape[0] * y.shape[1], max(1, GRAIN // max(1, y.shape[2] * y.shape[3])))
    pool_loop(x, y, size, stride, (pads[0], pads[2]), n_chunks)
    return y


forward = Ladder(
    "int8_max_pool.forward",
    check=check,
    naive=forward_naive,
    numpy=forward_numpy,
    fused=forward_fused,
)
