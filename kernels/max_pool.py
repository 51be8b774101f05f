"""Max pooling: the largest value of each window, and where in the window it stood.

| rung  | the one idea                                                              |
|-------|---------------------------------------------------------------------------|
| naive | for every output element, look at every element of its window             |
| numpy | for every position in the window, compare whole shifted arrays            |
| fused | channels innermost: a window of pixels at a time, all threads             |

The position p * kw + q is one byte per output element: a quarter of what the values take,
and backward needs neither x nor y. Of equal values the first wins. A NaN in a window is the
result (the last one, if several), as in PyTorch. Padding never wins.
"""

from __future__ import annotations

import numpy as np

from .checks import Array, DTypeError, ShapeError, check_array
from .jit import chunks, kernel, parallel, prange
from .ladder import Ladder
from .memory import empty
from .windows import Pads, Pair, check_pooled, check_windows, out_shape, padded, shifted


def _check_forward(x: Array, *, size: Pair, stride: Pair, pads: Pads, ceil_mode: bool) -> None:
    check_array("x", x)
    check_windows(x.shape, size, stride, pads, ceil_mode)
    if size[0] * size[1] > 256:
        raise ShapeError(
            f"max_pool: expected a window of at most 256 pixels (positions are bytes), got {size}"
        )


def _check_backward(
    dy: Array,
    argmax: Array,
    *,
    x_shape: tuple[int, ...],
    size: Pair,
    stride: Pair,
    pads: Pads,
    ceil_mode: bool,
) -> None:
    check_pooled("dy", dy, x_shape, size, stride, pads, ceil_mode)
    if argmax.dtype != np.uint8:
        raise DTypeError(f"argmax: expected uint8, got {argmax.dtype}")
    if argmax.shape != dy.shape:
        raise ShapeError(f"argmax: expected shape {dy.shape}, got {argmax.shape}")


def forward_naive(
    x: Array, *, size: Pair, stride: Pair, pads: Pads, ceil_mode: bool
) -> tuple[Array, Array]:
    """Search the window of every output element; channels outermost, so it jumps through memory."""
    y = empty(out_shape(x.shape, size, stride, pads, ceil_mode), x.dtype)
    argmax = empty(y.shape, np.uint8)
    naive_forward_loop(x, size, stride, (pads[0], pads[2]), y, argmax)
    return y, argmax


@kernel
def naive_forward_loop(
    x: Array, size: Pair, stride: Pair, corner: Pair, y: Array, argmax: Array
) -> None:
    """x (N, H, W, C) -> y, argmax (N, OH, OW, C); corner = (top, left) padding."""
    _, h, w, _ = x.shape
    n, oh, ow, channels = y.shape
    for i in range(n):
        for c in range(channels):
            for a in range(oh):
                for b in range(ow):
                    best, where = -np.inf, -1
                    for p in range(size[0]):
                        for q in range(size[1]):
                            row, column = (
                                a * stride[0] - corner[0] + p,
                                b * stride[1] - corner[1] + q,
                            )
                            if 0 <= row < h and 0 <= column < w:
                                v = x[i, row, column, c]
                                if where < 0 or v > best or np.isnan(v):
                                    best, where = v, p * size[1] + q
                    y[i, a, b, c] = best
                    argmax[i, a, b, c] = where


def backward_naive(
    dy: Array,
    argmax: Array,
    *,
    x_shape: tuple[int, ...],
    size: Pair,
    stride: Pair,
    pads: Pads,
    ceil_mode: bool,
) -> Array:
    """Send each gradient to the element that was chosen."""
    dx = np.zeros(x_shape, dy.dtype)
    naive_backward_loop(dy, argmax, size, stride, (pads[0], pads[2]), dx)
    return dx


@kernel
def naive_backward_loop(
    dy: Array, argmax: Array, size: Pair, stride: Pair, corner: Pair, dx: Array
) -> None:
    """dy, argmax (N, OH, OW, C) -> dx (N, H, W, C), which starts at zero."""
    n, oh, ow, channels = dy.shape
    for i in range(n):
        for c in range(channels):
            for a in range(oh):
                for b in range(ow):
                    where = argmax[i, a, b, c]
                    row = a * stride[0] - corner[0] + where // size[1]
                    column = b * stride[1] - corner[1] + where % size[1]
                    inside = 0 <= row < dx.shape[1] and 0 <= column < dx.shape[2]
                    # Always so for what forward gives; from others memory is safe.
                    if inside and where < size[0] * size[1]:
                        dx[i, row, column, c] += dy[i, a, b, c]


def forward_numpy(
    x: Array, *, size: Pair, stride: Pair, pads: Pads, ceil_mode: bool
) -> tuple[Array, Array]:
    """Loop over the positions in a window only, each a comparison of whole arrays."""
    shape = out_shape(x.shape, size, stride, pads, ceil_mode)
    out = shape[1], shape[2]
    wide = padded(x, size, stride, pads, out, -np.inf)
    # Where all is -inf nothing is larger: the first element inside the input stands.
    first_p = np.maximum(0, pads[0] - np.arange(out[0]) * stride[0])
    first_q = np.maximum(0, pads[2] - np.arange(out[1]) * stride[1])
    first = (first_p[:, None] * size[1] + first_q)[:, :, None].astype(np.uint8)
    y, argmax = np.full(shape, -np.inf, x.dtype), np.broadcast_to(first, shape).copy()
    for p in range(size[0]):
        for q in range(size[1]):
            v = shifted(wide, p, q, stride, out)
            take = (v > y) | np.isnan(v)
            y[take], argmax[take] = v[take], p * size[1] + q
    return y, argmax


def backward_numpy(
    dy: Array,
    argmax: Array,
    *,
    x_shape: tuple[int, ...],
    size: Pair,
    stride: Pair,
    pads: Pads,
    ceil_mode: bool,
) -> Array:
    """Loop over the positions in a window; at one position no two windows meet."""
    out = dy.shape[1], dy.shape[2]
    wide = padded(np.zeros(x_shape, dy.dtype), size, stride, pads, out, 0)
    for p in range(size[0]):
        for q in range(size[1]):
            here = argmax == p * size[1] + q
            shifted(wide, p, q, stride, out)[...] += np.where(here, dy, dy.dtype.type(0))
    inside = wide[:, pads[0] : pads[0] + x_shape[1], pads[2] : pads[2] + x_shape[2]]
    return np.ascontiguousarray(inside)


def forward_fused(
    x: Array, *, size: Pair, stride: Pair, pads: Pads, ceil_mode: bool
) -> tuple[Array, Array]:
    """Compare whole pixels, channels innermost; a row of outputs is the unit of work."""
    y = empty(out_shape(x.shape, size, stride, pads, ceil_mode), x.dtype)
    argmax = empty(y.shape, np.uint8)
    n_chunks = chunks(y.shape[0] * y.shape[1])
    fused_forward_loop(x, size, stride, (pads[0], pads[2]), y, argmax, n_chunks)
    return y, argmax


@parallel
def fused_forward_loop(
    x: Array, size: Pair, stride: Pair, corner: Pair, y: Array, argmax: Array, n_chunks: int
) -> None:
    """x (N, H, W, C) -> y, argmax (N, OH, OW, C); corner = (top, left) padding."""
    _, h, w, _ = x.shape
    n, oh, ow, _ = y.shape
    for chunk in prange(n_chunks):
        for row in range(chunk * (n * oh) // n_chunks, (chunk + 1) * (n * oh) // n_chunks):
            i, a = row // oh, row % oh
            top = a * stride[0] - corner[0]
            for b in range(ow):
                left = b * stride[1] - corner[1]
                first_p, first_q = max(0, -top), max(0, -left)
                best, where = y[i, a, b], argmax[i, a, b]
                origin = x[i, top + first_p, left + first_q]
                position = np.uint8(first_p * size[1] + first_q)
                for c in range(best.size):
                    best[c] = origin[c]
                    where[c] = position
                for p in range(first_p, min(size[0], h - top)):
                    for q in range(first_q, min(size[1], w - left)):
                        pixel = x[i, top + p, left + q]
                        position = np.uint8(p * size[1] + q)
                        for c in range(best.size):
                            v = pixel[c]
                            take = (v > best[c]) | (v != v)
                            best[c] = v if take else best[c]
                            where[c] = position if take else where[c]


def backward_fused(
    dy: Array,
    argmax: Array,
    *,
    x_shape: tuple[int, ...],
    size: Pair,
    stride: Pair,
    pads: Pads,
    ceil_mode: bool,
) -> Array:
    """One image per task, so overlapping windows never meet on two threads; selects, no scatter."""
    dx = empty(x_shape, dy.dtype)
    fused_backward_loop(
        dy, argmax, size, stride, (pads[0], pads[2]), dx, dy.dtype.type(0), chunks(len(dx))
    )
    return dx


@parallel
def fused_backward_loop(
    dy: Array,
    argmax: Array,
    size: Pair,
    stride: Pair,
    corner: Pair,
    dx: Array,
    zero: np.floating,
    n_chunks: int,
) -> None:
    """dy, argmax (N, OH, OW, C) -> dx (N, H, W, C); `zero` comes typed, as in relu."""
    n, h, w, _ = dx.shape
    _, oh, ow, _ = dy.shape
    for chunk in prange(n_chunks):
        for i in range(chunk * n // n_chunks, (chunk + 1) * n // n_chunks):
            dx[i] = zero
            for a in range(oh):
                top = a * stride[0] - corner[0]
                for b in range(ow):
                    left = b * stride[1] - corner[1]
                    dy_pixel, where = dy[i, a, b], argmax[i, a, b]
                    for p in range(max(0, -top), min(size[0], h - top)):
                        for q in range(max(0, -left), min(size[1], w - left)):
                            dx_pixel = dx[i, top + p, left + q]
                            position = np.uint8(p * size[1] + q)
                            for c in range(dx_pixel.size):
                                dx_pixel[c] += dy_pixel[c] if where[c] == position else zero


forward = Ladder(
    "max_pool.forward",
    check=_check_forward,
    naive=forward_naive,
    numpy=forward_numpy,
    fused=forward_fused,
)
backward = Ladder(
    "max_pool.backward",
    check=_check_backward,
    naive=backward_naive,
    numpy=backward_numpy,
    fused=backward_fused,
)
