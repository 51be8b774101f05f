"""Leaky ReLU: y = x where x > 0, else slope * x, with one fixed slope (Maas et al. 2013).

| rung  | the one idea                                                              |
|-------|---------------------------------------------------------------------------|
| naive | one loop, one branch per element                                          |
| numpy | whole-array expressions, one temporary array                              |
| fused | one pass on all threads, branch turned into a select                      |

At x == 0 the slope side is taken: only x > 0 passes dy unchanged.
"""

from __future__ import annotations

import numpy as np

from .checks import Array, check_array
from .jit import chunks, kernel, parallel, prange
from .ladder import Ladder
from .memory import empty_like

GRAIN = 1 << 13  # elements that make a chunk worth a thread


def _check_forward(x: Array, *, slope: float) -> None:
    check_array("x", x)


def _check_backward(dy: Array, x: Array, *, slope: float) -> None:
    check_array("x", x)
    check_array("dy", dy, x.shape, like=x)


def forward_naive(x: Array, *, slope: float) -> Array:
    """Visit every element and branch on its sign."""
    y = empty_like(x)
    naive_forward_loop(x.reshape(-1), x.dtype.type(slope), y.reshape(-1))
    return y


@kernel
def naive_forward_loop(x: Array, slope: np.floating, y: Array) -> None:
    """x (size,) -> y (size,)."""
    for i in range(x.size):
        if x[i] > 0:
            y[i] = x[i]
        else:
            y[i] = slope * x[i]


def backward_naive(dy: Array, x: Array, *, slope: float) -> Array:
    """Visit every element; dy passes whole where x was positive."""
    dx = empty_like(x)
    naive_backward_loop(dy.reshape(-1), x.reshape(-1), x.dtype.type(slope), dx.reshape(-1))
    return dx


@kernel
def naive_backward_loop(dy: Array, x: Array, slope: np.floating, dx: Array) -> None:
    """dy, x (size,) -> dx (size,)."""
    for i in range(x.size):
        if x[i] > 0:
            dx[i] = dy[i]
        else:
            dx[i] = slope * dy[i]


def forward_numpy(x: Array, *, slope: float) -> Array:
    """Whole arrays at a time."""
    return np.where(x > 0, x, x.dtype.type(slope) * x)


def backward_numpy(dy: Array, x: Array, *, slope: float) -> Array:
    """Whole arrays at a time."""
    return np.where(x > 0, dy, x.dtype.type(slope) * dy)


def forward_fused(x: Array, *, slope: float) -> Array:
    """One pass on all threads: x is read once, y written once."""
    y = empty_like(x)
    n_chunks = chunks(x.size, GRAIN)
    fused_forward_loop(x.reshape(-1), x.dtype.type(slope), y.reshape(-1), n_chunks)
    return y


@parallel
def fused_forward_loop(x: Array, slope: np.floating, y: Array, n_chunks: int) -> None:
    """x (size,) -> y (size,)."""
    for chunk in prange(n_chunks):
        part = slice(chunk * x.size // n_chunks, (chunk + 1) * x.size // n_chunks)
        x_part, y_part = x[part], y[part]
        for i in range(x_part.size):
            v = x_part[i]
            y_part[i] = v if v > 0 else slope * v


def backward_fused(dy: Array, x: Array, *, slope: float) -> Array:
    """One pass on all threads."""
    dx = empty_like(x)
    n_chunks = chunks(x.size, GRAIN)
    fused_backward_loop(
        dy.reshape(-1), x.reshape(-1), x.dtype.type(slope), dx.reshape(-1), n_chunks
    )
    return dx


@parallel
def fused_backward_loop(dy: Array, x: Array, slope: np.floating, dx: Array, n_chunks: int) -> None:
    """dy, x (size,) -> dx (size,)."""
    for chunk in prange(n_chunks):
        part = slice(chunk * x.size // n_chunks, (chunk + 1) * x.size // n_chunks)
        dy_part, x_part, dx_part = dy[part], x[part], dx[part]
        for i in range(x_part.size):
            g = dy_part[i]
            dx_part[i] = g if x_part[i] > 0 else slope * g


forward = Ladder(
    "leaky_relu.forward",
    check=_check_forward,
    naive=forward_naive,
    numpy=forward_numpy,
    fused=forward_fused,
)
backward = Ladder(
    "leaky_relu.backward",
    check=_check_backward,
    naive=backward_naive,
    numpy=backward_numpy,
    fused=backward_fused,
)
