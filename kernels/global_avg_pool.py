"""Global average pooling: the mean over all pixels of an image (Lin et al. 2014, section 3.2).

| rung  | the one idea                                                              |
|-------|---------------------------------------------------------------------------|
| naive | for every image and channel, add up its pixels                            |
| numpy | a whole-array expression                                                  |
| fused | channels innermost, an image per task, all threads                        |
"""

from __future__ import annotations

import numpy as np

from .checks import Array, ShapeError, check_array
from .jit import chunks, kernel, parallel, prange
from .ladder import Ladder
from .memory import empty


def _check_forward(x: Array) -> None:
    check_array("x", x, ("N", "H", "W", "C"))
    if x.shape[1] * x.shape[2] == 0:
        raise ShapeError(f"x: expected at least one pixel, got shape {x.shape}")


def _check_backward(dy: Array, *, x_shape: tuple[int, ...]) -> None:
    if len(x_shape) != 4 or x_shape[1] * x_shape[2] == 0:
        raise ShapeError(f"x_shape: expected (N, H, W, C) with pixels, got {x_shape}")
    check_array("dy", dy, (x_shape[0], x_shape[3]))


def _pixels(x_shape: tuple[int, ...]) -> tuple[int, int, int]:
    """(N, H, W, C) -> (N, H * W, C)."""
    n, h, w, c = x_shape
    return n, h * w, c


def forward_naive(x: Array) -> Array:
    """Add up the pixels of one channel after the other; each step jumps by a whole pixel."""
    y = np.empty((x.shape[0], x.shape[3]), x.dtype)
    naive_forward_loop(x.reshape(_pixels(x.shape)), y)
    return y


@kernel
def naive_forward_loop(x: Array, y: Array) -> None:
    """x (N, P, C) -> y (N, C)."""
    n, pixels, channels = x.shape
    for i in range(n):
        for c in range(channels):
            total = 0.0
            for p in range(pixels):
                total += x[i, p, c]
            y[i, c] = total / pixels


def backward_naive(dy: Array, *, x_shape: tuple[int, ...]) -> Array:
    """Give every pixel the same share of its channel's gradient."""
    dx = np.empty(_pixels(x_shape), dy.dtype)
    naive_backward_loop(dy, dx)
    return dx.reshape(x_shape)


@kernel
def naive_backward_loop(dy: Array, dx: Array) -> None:
    """Gradient dy (N, C) -> dx (N, P, C)."""
    n, pixels, channels = dx.shape
    for i in range(n):
        for c in range(channels):
            for p in range(pixels):
                dx[i, p, c] = dy[i, c] / pixels


def forward_numpy(x: Array) -> Array:
    """Whole arrays at a time."""
    y: Array = x.mean(axis=(1, 2), dtype=np.float64).astype(x.dtype)
    return y


def backward_numpy(dy: Array, *, x_shape: tuple[int, ...]) -> Array:
    """Whole arrays at a time."""
    share = dy / dy.dtype.type(x_shape[1] * x_shape[2])
    return np.broadcast_to(share[:, None, None], x_shape).copy()


def forward_fused(x: Array) -> Array:
    """Read x once in memory order, all channels of a pixel at a time."""
    y = np.zeros((x.shape[0], x.shape[3]), x.dtype)
    fused_forward_loop(x.reshape(_pixels(x.shape)), y, chunks(len(y)))
    return y


@parallel
def fused_forward_loop(x: Array, y: Array, n_chunks: int) -> None:
    """x (N, P, C) -> y (N, C), which starts at zero."""
    n, pixels, _ = x.shape
    for chunk in prange(n_chunks):
        for i in range(chunk * n // n_chunks, (chunk + 1) * n // n_chunks):
            total = y[i]
            for p in range(pixels):
                pixel = x[i, p]
                for c in range(pixel.size):
                    total[c] += pixel[c]
            for c in range(total.size):
                total[c] /= pixels


def backward_fused(dy: Array, *, x_shape: tuple[int, ...]) -> Array:
    """Write dx once in memory order."""
    dx = empty(_pixels(x_shape), dy.dtype)
    share = dy / dy.dtype.type(dx.shape[1])
    fused_backward_loop(share, dx, chunks(len(dx)))
    return dx.reshape(x_shape)


@parallel
def fused_backward_loop(share: Array, dx: Array, n_chunks: int) -> None:
    """Share (N, C) -> dx (N, P, C)."""
    n, pixels, _ = dx.shape
    for chunk in prange(n_chunks):
        for i in range(chunk * n // n_chunks, (chunk + 1) * n // n_chunks):
            source = share[i]
            for p in range(pixels):
                pixel = dx[i, p]
                for c in range(pixel.size):
                    pixel[c] = source[c]


forward = Ladder(
    "global_avg_pool.forward",
    check=_check_forward,
    naive=forward_naive,
    numpy=forward_numpy,
    fused=forward_fused,
)
backward = Ladder(
    "global_avg_pool.backward",
    check=_check_backward,
    naive=backward_naive,
    numpy=backward_numpy,
    fused=backward_fused,
)
