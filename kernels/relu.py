"""ReLU: y = x where x > 0, else 0 — PReLU with every slope fixed at zero.

| rung  | the one idea                                                              |
|-------|---------------------------------------------------------------------------|
| naive | one loop, one branch per element                                          |
| numpy | a whole-array expression                                                  |
| fused | one pass on all threads, branch turned into a select                      |

At x == 0 the gradient is zero. relu(-inf) is 0, and NaN stays NaN: the test is "x <= 0",
which is false for NaN, and nothing is multiplied by zero.
"""

from __future__ import annotations

import numpy as np

from .checks import Array, check_array
from .jit import chunks, kernel, parallel, prange
from .ladder import Ladder
from .memory import empty_like

GRAIN = 1 << 13  # elements that make a chunk worth a thread


def _check_forward(x: Array) -> None:
    check_array("x", x)


def _check_backward(dy: Array, x: Array) -> None:
    check_array("x", x)
    check_array("dy", dy, x.shape, like=x)


def forward_naive(x: Array) -> Array:
    """Visit every element and branch on its sign."""
    y = empty_like(x)
    naive_forward_loop(x.reshape(-1), y.reshape(-1))
    return y


@kernel
def naive_forward_loop(x: Array, y: Array) -> None:
    """x (size,) -> y (size,)."""
    for i in range(x.size):
        if x[i] <= 0:
            y[i] = 0
        else:
            y[i] = x[i]


def backward_naive(dy: Array, x: Array) -> Array:
    """Visit every element; dy passes where x did."""
    dx = empty_like(x)
    naive_backward_loop(dy.reshape(-1), x.reshape(-1), dx.reshape(-1))
    return dx


@kernel
def naive_backward_loop(dy: Array, x: Array, dx: Array) -> None:
    """dy, x (size,) -> dx (size,)."""
    for i in range(x.size):
        if x[i] <= 0:
            dx[i] = 0
        else:
            dx[i] = dy[i]


def forward_numpy(x: Array) -> Array:
    """Whole arrays at a time; `maximum` keeps NaN."""
    y: Array = np.maximum(x, x.dtype.type(0))
    return y


def backward_numpy(dy: Array, x: Array) -> Array:
    """Whole arrays at a time, with a temporary mask."""
    return np.where(x <= 0, x.dtype.type(0), dy)


def forward_fused(x: Array) -> Array:
    """One pass on all threads: x is read once, y written once."""
    y = empty_like(x)
    fused_forward_loop(x.reshape(-1), y.reshape(-1), x.dtype.type(0), chunks(x.size, GRAIN))
    return y


@parallel
def fused_forward_loop(x: Array, y: Array, zero: np.floating, n_chunks: int) -> None:
    """x (size,) -> y (size,); `zero` comes typed, so that nothing is widened to float64."""
    for chunk in prange(n_chunks):
        part = slice(chunk * x.size // n_chunks, (chunk + 1) * x.size // n_chunks)
        x_part, y_part = x[part], y[part]
        for i in range(x_part.size):
            v = x_part[i]
            y_part[i] = zero if v <= zero else v


def backward_fused(dy: Array, x: Array) -> Array:
    """One pass on all threads."""
    dx = empty_like(x)
    n_chunks = chunks(x.size, GRAIN)
    fused_backward_loop(dy.reshape(-1), x.reshape(-1), dx.reshape(-1), x.dtype.type(0), n_chunks)
    return dx


@parallel
def fused_backward_loop(dy: Array, x: Array, dx: Array, zero: np.floating, n_chunks: int) -> None:
    """dy, x (size,) -> dx (size,)."""
    for chunk in prange(n_chunks):
        part = slice(chunk * x.size // n_chunks, (chunk + 1) * x.size // n_chunks)
        dy_part, x_part, dx_part = dy[part], x[part], dx[part]
        for i in range(x_part.size):
            dx_part[i] = zero if x_part[i] <= zero else dy_part[i]


forward = Ladder(
    "relu.forward",
    check=_check_forward,
    naive=forward_naive,
    numpy=forward_numpy,
    fused=forward_fused,
)
backward = Ladder(
    "relu.backward",
    check=_check_backward,
    naive=backward_naive,
    numpy=backward_numpy,
    fused=backward_fused,
)
