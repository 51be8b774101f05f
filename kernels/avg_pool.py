"""Average pooling: the mean of each window.

| rung  | the one idea                                                              |
|-------|---------------------------------------------------------------------------|
| naive | for every output element, add up its window                               |
| numpy | for every position in the window, add whole shifted arrays                |
| fused | channels innermost: a window of pixels at a time, all threads             |

With `count_include_pad` the divisor is the window's size as far as input and padding reach,
else the number of input elements in it; what hangs over the end in ceil mode never counts.
Both are PyTorch's meanings.
"""

from __future__ import annotations

import numpy as np

from .checks import Array, check_array
from .jit import chunks, kernel, parallel, prange
from .ladder import Ladder
from .memory import empty
from .windows import Pads, Pair, check_pooled, check_windows, out_shape, padded, shifted


def _check_forward(
    x: Array, *, size: Pair, stride: Pair, pads: Pads, ceil_mode: bool, count_include_pad: bool
) -> None:
    check_array("x", x)
    check_windows(x.shape, size, stride, pads, ceil_mode)


def _check_backward(
    dy: Array,
    *,
    x_shape: tuple[int, ...],
    size: Pair,
    stride: Pair,
    pads: Pads,
    ceil_mode: bool,
    count_include_pad: bool,
) -> None:
    check_pooled("dy", dy, x_shape, size, stride, pads, ceil_mode)


def _counts(size: int, out: int, k: int, stride: int, pads: Pair, include_pad: bool) -> Array:
    """Return how many elements each window counts along one axis."""
    start = np.arange(out) * stride - pads[0]
    stop = np.minimum(start + k, size + pads[1])
    if not include_pad:
        start, stop = np.maximum(start, 0), np.minimum(stop, size)
    return stop - start


def window_shares(
    x_shape: tuple[int, ...],
    out: Pair,
    size: Pair,
    stride: Pair,
    pads: Pads,
    include_pad: bool,
    like: Array,
) -> Array:
    """Return one over the divisor of every window, (OH, OW)."""
    rows = _counts(x_shape[1], out[0], size[0], stride[0], pads[:2], include_pad)
    columns = _counts(x_shape[2], out[1], size[1], stride[1], pads[2:], include_pad)
    shares: Array = (1 / (rows[:, None] * columns)).astype(like.dtype)
    return shares


def forward_naive(
    x: Array, *, size: Pair, stride: Pair, pads: Pads, ceil_mode: bool, count_include_pad: bool
) -> Array:
    """Add up the window of every output element; channels outermost."""
    y = empty(out_shape(x.shape, size, stride, pads, ceil_mode), x.dtype)
    shares = window_shares(x.shape, y.shape[1:3], size, stride, pads, count_include_pad, x)
    naive_forward_loop(x, size, stride, (pads[0], pads[2]), shares, y)
    return y


@kernel
def naive_forward_loop(
    x: Array, size: Pair, stride: Pair, corner: Pair, shares: Array, y: Array
) -> None:
    """x (N, H, W, C), shares (OH, OW) -> y (N, OH, OW, C); corner = (top, left) padding."""
    _, h, w, _ = x.shape
    n, oh, ow, channels = y.shape
    for i in range(n):
        for c in range(channels):
            for a in range(oh):
                for b in range(ow):
                    total = 0.0
                    for p in range(size[0]):
                        for q in range(size[1]):
                            row, column = (
                                a * stride[0] - corner[0] + p,
                                b * stride[1] - corner[1] + q,
                            )
                            if 0 <= row < h and 0 <= column < w:
                                total += x[i, row, column, c]
                    y[i, a, b, c] = total * shares[a, b]


def backward_naive(
    dy: Array,
    *,
    x_shape: tuple[int, ...],
    size: Pair,
    stride: Pair,
    pads: Pads,
    ceil_mode: bool,
    count_include_pad: bool,
) -> Array:
    """Give every element of a window its share of the gradient."""
    dx = np.zeros(x_shape, dy.dtype)
    shares = window_shares(x_shape, dy.shape[1:3], size, stride, pads, count_include_pad, dy)
    naive_backward_loop(dy, size, stride, (pads[0], pads[2]), shares, dx)
    return dx


@kernel
def naive_backward_loop(
    dy: Array, size: Pair, stride: Pair, corner: Pair, shares: Array, dx: Array
) -> None:
    """Gradient dy (N, OH, OW, C), shares (OH, OW) -> dx (N, H, W, C), which starts at zero."""
    _, h, w, _ = dx.shape
    n, oh, ow, channels = dy.shape
    for i in range(n):
        for c in range(channels):
            for a in range(oh):
                for b in range(ow):
                    for p in range(size[0]):
                        for q in range(size[1]):
                            row, column = (
                                a * stride[0] - corner[0] + p,
                                b * stride[1] - corner[1] + q,
                            )
                            if 0 <= row < h and 0 <= column < w:
                                dx[i, row, column, c] += dy[i, a, b, c] * shares[a, b]


def forward_numpy(
    x: Array, *, size: Pair, stride: Pair, pads: Pads, ceil_mode: bool, count_include_pad: bool
) -> Array:
    """Loop over the positions in a window only, each an addition of whole arrays."""
    y = np.zeros(out_shape(x.shape, size, stride, pads, ceil_mode), x.dtype)
    out = y.shape[1], y.shape[2]
    wide = padded(x, size, stride, pads, out, 0)
    for p in range(size[0]):
        for q in range(size[1]):
            y += shifted(wide, p, q, stride, out)
    y *= window_shares(x.shape, out, size, stride, pads, count_include_pad, x)[:, :, None]
    return y


def backward_numpy(
    dy: Array,
    *,
    x_shape: tuple[int, ...],
    size: Pair,
    stride: Pair,
    pads: Pads,
    ceil_mode: bool,
    count_include_pad: bool,
) -> Array:
    """Loop over the positions in a window; at one position no two windows meet."""
    out = dy.shape[1], dy.shape[2]
    wide = padded(np.zeros(x_shape, dy.dtype), size, stride, pads, out, 0)
    part = dy * window_shares(x_shape, out, size, stride, pads, count_include_pad, dy)[:, :, None]
    for p in range(size[0]):
        for q in range(size[1]):
            shifted(wide, p, q, stride, out)[...] += part
    inside = wide[:, pads[0] : pads[0] + x_shape[1], pads[2] : pads[2] + x_shape[2]]
    return np.ascontiguousarray(inside)


def forward_fused(
    x: Array, *, size: Pair, stride: Pair, pads: Pads, ceil_mode: bool, count_include_pad: bool
) -> Array:
    """Add whole pixels, channels innermost; a row of outputs is the unit of work."""
    y = empty(out_shape(x.shape, size, stride, pads, ceil_mode), x.dtype)
    shares = window_shares(x.shape, y.shape[1:3], size, stride, pads, count_include_pad, x)
    n_chunks = chunks(y.shape[0] * y.shape[1])
    fused_forward_loop(x, size, stride, (pads[0], pads[2]), shares, y, n_chunks)
    return y


@parallel
def fused_forward_loop(
    x: Array, size: Pair, stride: Pair, corner: Pair, shares: Array, y: Array, n_chunks: int
) -> None:
    """x (N, H, W, C), shares (OH, OW) -> y (N, OH, OW, C); corner = (top, left) padding."""
    _, h, w, _ = x.shape
    n, oh, ow, _ = y.shape
    for chunk in prange(n_chunks):
        for row in range(chunk * (n * oh) // n_chunks, (chunk + 1) * (n * oh) // n_chunks):
            i, a = row // oh, row % oh
            top = a * stride[0] - corner[0]
            for b in range(ow):
                left = b * stride[1] - corner[1]
                total, share = y[i, a, b], shares[a, b]
                total[:] = 0
                for p in range(max(0, -top), min(size[0], h - top)):
                    for q in range(max(0, -left), min(size[1], w - left)):
                        pixel = x[i, top + p, left + q]
                        for c in range(total.size):
                            total[c] += pixel[c]
                for c in range(total.size):
                    total[c] *= share


def backward_fused(
    dy: Array,
    *,
    x_shape: tuple[int, ...],
    size: Pair,
    stride: Pair,
    pads: Pads,
    ceil_mode: bool,
    count_include_pad: bool,
) -> Array:
    """One image per task, so overlapping windows never meet on two threads."""
    dx = empty(x_shape, dy.dtype)
    shares = window_shares(x_shape, dy.shape[1:3], size, stride, pads, count_include_pad, dy)
    fused_backward_loop(dy, size, stride, (pads[0], pads[2]), shares, dx, chunks(len(dx)))
    return dx


@parallel
def fused_backward_loop(
    dy: Array, size: Pair, stride: Pair, corner: Pair, shares: Array, dx: Array, n_chunks: int
) -> None:
    """Gradient dy (N, OH, OW, C), shares (OH, OW) -> dx (N, H, W, C)."""
    n, h, w, _ = dx.shape
    _, oh, ow, _ = dy.shape
    for chunk in prange(n_chunks):
        for i in range(chunk * n // n_chunks, (chunk + 1) * n // n_chunks):
            dx[i] = 0
            for a in range(oh):
                top = a * stride[0] - corner[0]
                for b in range(ow):
                    left = b * stride[1] - corner[1]
                    dy_pixel, share = dy[i, a, b], shares[a, b]
                    for p in range(max(0, -top), min(size[0], h - top)):
                        for q in range(max(0, -left), min(size[1], w - left)):
                            dx_pixel = dx[i, top + p, left + q]
                            for c in range(dx_pixel.size):
                                dx_pixel[c] += dy_pixel[c] * share


forward = Ladder(
    "avg_pool.forward",
    check=_check_forward,
    naive=forward_naive,
    numpy=forward_numpy,
    fused=forward_fused,
)
backward = Ladder(
    "avg_pool.backward",
    check=_check_backward,
    naive=backward_naive,
    numpy=backward_numpy,
    fused=backward_fused,
)
