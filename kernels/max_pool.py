"""Max pooling: the largest value of each window, and where in the window it stood.

| rung  | the one idea                                                              |
|-------|---------------------------------------------------------------------------|
| naive | for every output element, look at every element of its window             |
| numpy | for every position in the window, compare whole shifted arrays            |
| fused | channels innermost: a window of pixels at a time, rows of maps on threads |

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
from .simd import (
    VECTOR_BYTES,
    load,
    load_bytes,
    splat_byte,
    store,
    store_bytes,
    where_beaten,
    where_equal,
    whole_vectors,
    zero,
)
from .windows import Pads, Pair, check_pooled, check_windows, out_shape, padded, shifted

GRAIN = 1 << 14  # elements of the input that make a chunk worth a thread: about 5 microseconds


def check_forward(x: Array, *, size: Pair, stride: Pair, pads: Pads, ceil_mode: bool) -> None:
    check_array("x", x)
    check_windows(x.shape, size, stride, pads, ceil_mode)
    if size[0] * size[1] > 256:
        raise ShapeError(
            f"max_pool: expected a window of at most 256 pixels (positions are bytes), got {size}"
        )


def check_backward(
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
    n_chunks = line_chunks(y.shape, x.size)
    fused_forward_loop(x, size, stride, (pads[0], pads[2]), y, argmax, n_chunks)
    return y, argmax


def line_chunks(shape: tuple[int, ...], elements: int) -> int:
    """Cut the rows of maps (N, H, W, C) into chunks that pass over at least GRAIN elements."""
    lines = shape[0] * shape[1]
    return chunks(lines, max(1, GRAIN * lines // max(1, elements)))


@parallel
def fused_forward_loop(
    x: Array, size: Pair, stride: Pair, corner: Pair, y: Array, argmax: Array, n_chunks: int
) -> None:
    """x (N, H, W, C) -> y, argmax (N, OH, OW, C); corner = (top, left) padding."""
    n, oh, _, _ = y.shape
    for chunk in prange(n_chunks):
        for line in range(chunk * (n * oh) // n_chunks, (chunk + 1) * (n * oh) // n_chunks):
            i, a = line // oh, line % oh
            pool_row(x[i], a, size, stride, corner, y[i, a], argmax[i, a])


@kernel
def pool_image(x: Array, size: Pair, stride: Pair, corner: Pair, y: Array, argmax: Array) -> None:
    """x (H, W, C) -> y, argmax (OH, OW, C): one image of `forward`, on the calling thread."""
    for a in range(y.shape[0]):
        pool_row(x, a, size, stride, corner, y[a], argmax[a])


@kernel
def pool_row(
    x: Array, a: int, size: Pair, stride: Pair, corner: Pair, y: Array, argmax: Array
) -> None:
    """x (H, W, C) -> y, argmax (OW, C): row `a` of the output."""
    h, w, channels = x.shape
    top, pixel_bytes = a * stride[0] - corner[0], x.itemsize * channels
    whole = whole_vectors(x) if size == (2, 2) and 0 <= top <= h - 2 else 0
    for b in range(y.shape[0]):
        left, done = b * stride[1] - corner[1], 0
        if whole > 0 and 0 <= left <= w - 2:
            above = x.ctypes.data + (top * w + left) * pixel_bytes
            below, y_at = above + w * pixel_bytes, y.ctypes.data + b * pixel_bytes
            pool_four(above, below, pixel_bytes, whole, y_at, argmax.ctypes.data + b * channels)
            done = whole >> 2
        if done < channels:
            best, where = y[b, done:], argmax[b, done:]
            first_p, first_q = max(0, -top), max(0, -left)
            origin = x[top + first_p, left + first_q, done:]
            position = np.uint8(first_p * size[1] + first_q)
            for c in range(best.size):
                best[c] = origin[c]
                where[c] = position
            for p in range(first_p, min(size[0], h - top)):
                for q in range(first_q, min(size[1], w - left)):
                    pixel = x[top + p, left + q, done:]
                    position = np.uint8(p * size[1] + q)
                    for c in range(best.size):
                        v = pixel[c]
                        take = (v > best[c]) | (v != v)
                        best[c] = v if take else best[c]
                        where[c] = position if take else where[c]


@kernel
def pool_four(above: int, below: int, pixel: int, whole: int, best: int, where: int) -> None:
    """Pool a 2x2 window with whole vectors; the winners of its two rows meet.

    All are addresses of rows of pixels, but `pixel`, the bytes of one, and `whole`, how many
    of them vectors cover.
    """
    zeroth, first = splat_byte(np.uint8(0)), splat_byte(np.uint8(1))
    second, third = splat_byte(np.uint8(2)), splat_byte(np.uint8(3))
    for at in range(0, whole, VECTOR_BYTES):
        v0, v1 = load(above + at), load(above + pixel + at)
        v2, v3 = load(below + at), load(below + pixel + at)
        top, p = where_beaten(v0, v1, v1, v0), where_beaten(v0, v1, first, zeroth)
        bottom, q = where_beaten(v2, v3, v3, v2), where_beaten(v2, v3, third, second)
        store(where_beaten(top, bottom, bottom, top), best + at)
        store_bytes(where_beaten(top, bottom, q, p), where + (at >> 2))


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
    """One row of dx per task, which gathers from all windows over it; selects, no scatter."""
    dx = empty(x_shape, dy.dtype)
    n_chunks = line_chunks(x_shape, dx.size)
    fused_backward_loop(dy, argmax, size, stride, (pads[0], pads[2]), dx, n_chunks)
    return dx


@parallel
def fused_backward_loop(
    dy: Array, argmax: Array, size: Pair, stride: Pair, corner: Pair, dx: Array, n_chunks: int
) -> None:
    """dy, argmax (N, OH, OW, C) -> dx (N, H, W, C)."""
    n, h, _, _ = dx.shape
    for chunk in prange(n_chunks):
        for line in range(chunk * (n * h) // n_chunks, (chunk + 1) * (n * h) // n_chunks):
            i, row = line // h, line % h
            unpool_row(dy[i], argmax[i], row, size, stride, corner, dx[i, row])


@kernel
def unpool_image(
    dy: Array, argmax: Array, size: Pair, stride: Pair, corner: Pair, dx: Array
) -> None:
    """dy, argmax (OH, OW, C) -> dx (H, W, C), all of it: one image of `backward`."""
    for row in range(dx.shape[0]):
        unpool_row(dy, argmax, row, size, stride, corner, dx[row])


@kernel
def unpool_row(
    dy: Array, argmax: Array, row: int, size: Pair, stride: Pair, corner: Pair, dx: Array
) -> None:
    """dy, argmax (OH, OW, C) -> dx (W, C): row `row` of the input.

    The windows over a row are `a` with a * stride <= row + corner < a * stride + size.
    """
    (oh, ow, channels), w, place = dy.shape, dx.shape[0], row + corner[0]
    none = dx.dtype.type(0)
    done = unpool_two(dy, argmax, row, size, stride, corner, dx)
    if done == channels:
        return
    dx[:, done:] = none
    for a in range(max(0, (place - size[0]) // stride[0] + 1), min(oh, place // stride[0] + 1)):
        p = place - a * stride[0]
        for b in range(ow):
            left = b * stride[1] - corner[1]
            dy_pixel, where = dy[a, b, done:], argmax[a, b, done:]
            for q in range(max(0, -left), min(size[1], w - left)):
                dx_pixel = dx[left + q, done:]
                position = np.uint8(p * size[1] + q)
                for c in range(dx_pixel.size):
                    dx_pixel[c] += dy_pixel[c] if where[c] == position else none


@kernel
def unpool_two(
    dy: Array, argmax: Array, row: int, size: Pair, stride: Pair, corner: Pair, dx: Array
) -> int:
    """Do the channels that vectors cover where windows are 2x2 side by side; return how many.

    Each pixel has one window at most, so nothing is added up: all are written once.
    """
    (oh, ow, channels), w, whole = dy.shape, dx.shape[0], whole_vectors(dx)
    fits = size == (2, 2) and stride == (2, 2) and corner == (0, 0) and 2 * ow <= w
    if not fits or whole == 0:
        return 0
    a, pixel = row // 2, dx.itemsize * channels
    here = splat_byte(np.uint8(row % 2 * 2))
    beside = splat_byte(np.uint8(row % 2 * 2 + 1))
    windows = ow if a < oh else 0
    for b in range(windows):
        dy_at = dy.ctypes.data + (a * ow + b) * pixel
        won_at = argmax.ctypes.data + (a * ow + b) * channels
        left = dx.ctypes.data + 2 * b * pixel
        for at in range(0, whole, VECTOR_BYTES):
            g, winner = load(dy_at + at), load_bytes(won_at + (at >> 2))
            store(where_equal(winner, here, g, zero()), left + at)
            store(where_equal(winner, beside, g, zero()), left + pixel + at)
    done = whole >> 2
    dx[2 * windows :, :done] = 0
    return done


forward = Ladder(
    "max_pool.forward",
    check=check_forward,
    naive=forward_naive,
    numpy=forward_numpy,
    fused=forward_fused,
)
backward = Ladder(
    "max_pool.backward",
    check=check_backward,
    naive=backward_naive,
    numpy=backward_numpy,
    fused=backward_fused,
)
