"""Dropout: each element is kept with probability 1 - p and then divided by it, or becomes zero.

(Srivastava et al. 2014, in the "inverted" form, so that evaluation does nothing.)

| rung  | the one idea                                                              |
|-------|---------------------------------------------------------------------------|
| naive | draw, branch, multiply, element by element                                |
| numpy | draw all numbers, compare, multiply: 64 random bits per element in memory |
| fused | numbers never leave the registers; one byte per element is kept           |

Element i is kept where ``rng.uniform(seed, offset + i) >= p``: a function of its place alone,
so every rung and every number of threads gives the same bits. Dropped elements are multiplied
by zero rather than replaced, so a NaN stays visible.
"""

from __future__ import annotations

import math

import numpy as np

from . import rng
from .checks import Array, DTypeError, InputError, ShapeError, check_array
from .jit import chunks, kernel, parallel, prange
from .ladder import Ladder
from .memory import empty, empty_like

GRAIN = 1 << 12  # elements that make a chunk worth a thread
S11 = rng.S11
bits = rng.bits


def _check_forward(x: Array, *, p: float, seed: int, offset: int) -> None:
    check_array("x", x)
    if not 0 <= p <= 1:
        raise InputError(f"dropout: expected 0 <= p <= 1, got {p}")


def _check_backward(dy: Array, keep: Array, *, p: float) -> None:
    check_array("dy", dy)
    if keep.dtype != np.uint8:
        raise DTypeError(f"keep: expected uint8, got {keep.dtype}")
    if keep.shape != dy.shape:
        raise ShapeError(f"keep: expected shape {dy.shape}, got {keep.shape}")


def _scale(p: float, like: Array) -> np.floating:
    """What a kept element is multiplied with; with p = 1 nothing is kept."""
    scale: np.floating = like.dtype.type(1 / (1 - p) if p < 1 else 0)
    return scale


def _limit(p: float) -> np.uint64:
    """Uniform numbers are k / 2**53; k below this limit means uniform < p, exactly."""
    return np.uint64(math.ceil(p * 2.0**53))


def _unsigned(n: int) -> np.uint64:
    return np.uint64(n % 2**64)


def forward_naive(x: Array, *, p: float, seed: int, offset: int) -> tuple[Array, Array]:
    """Draw a number per element and branch."""
    y, keep = empty_like(x), empty(x.shape, np.uint8)
    naive_forward_loop(
        x.reshape(-1), p, _scale(p, x), _unsigned(seed), offset, y.reshape(-1), keep.reshape(-1)
    )
    return y, keep


@kernel
def naive_forward_loop(
    x: Array, p: float, scale: np.floating, seed: np.uint64, offset: int, y: Array, keep: Array
) -> None:
    """x (size,) -> y, keep (size,)."""
    for i in range(x.size):
        if rng.uniform(seed, offset + i) >= p:
            keep[i] = 1
            y[i] = x[i] * scale
        else:
            keep[i] = 0
            y[i] = x[i] * 0


def backward_naive(dy: Array, keep: Array, *, p: float) -> Array:
    """Multiply with the same factors."""
    dx = empty_like(dy)
    naive_backward_loop(dy.reshape(-1), keep.reshape(-1), _scale(p, dy), dx.reshape(-1))
    return dx


@kernel
def naive_backward_loop(dy: Array, keep: Array, scale: np.floating, dx: Array) -> None:
    """dy, keep (size,) -> dx (size,)."""
    for i in range(dy.size):
        if keep[i]:
            dx[i] = dy[i] * scale
        else:
            dx[i] = dy[i] * 0


def forward_numpy(x: Array, *, p: float, seed: int, offset: int) -> tuple[Array, Array]:
    """Whole arrays at a time."""
    counters = offset + np.arange(x.size).reshape(x.shape)
    keep = (rng.uniform_numpy(seed, counters) >= p).astype(np.uint8)
    return x * (keep * _scale(p, x)), keep


def backward_numpy(dy: Array, keep: Array, *, p: float) -> Array:
    """Whole arrays at a time."""
    dx: Array = dy * (keep * _scale(p, dy))
    return dx


def forward_fused(x: Array, *, p: float, seed: int, offset: int) -> tuple[Array, Array]:
    """One pass on all threads; the comparison is between integers, with no branch."""
    y, keep = empty_like(x), empty(x.shape, np.uint8)
    fused_forward_loop(
        x.reshape(-1),
        _limit(p),
        _scale(p, x),
        _unsigned(seed),
        _unsigned(offset),
        y.reshape(-1),
        keep.reshape(-1),
        chunks(x.size, GRAIN),
    )
    return y, keep


@parallel
def fused_forward_loop(
    x: Array,
    limit: np.uint64,
    scale: np.floating,
    seed: np.uint64,
    offset: np.uint64,
    y: Array,
    keep: Array,
    n_chunks: int,
) -> None:
    """x (size,) -> y, keep (size,)."""
    for chunk in prange(n_chunks):
        low, high = chunk * x.size // n_chunks, (chunk + 1) * x.size // n_chunks
        x_part, y_part, keep_part = x[low:high], y[low:high], keep[low:high]
        start = offset + np.uint64(low)
        for i in range(x_part.size):
            kept = np.uint8(bits(seed, start + np.uint64(i)) >> S11 >= limit)
            keep_part[i] = kept
            y_part[i] = x_part[i] * (scale * kept)


def backward_fused(dy: Array, keep: Array, *, p: float) -> Array:
    """One pass on all threads."""
    dx = empty_like(dy)
    n_chunks = chunks(dy.size, GRAIN)
    fused_backward_loop(dy.reshape(-1), keep.reshape(-1), _scale(p, dy), dx.reshape(-1), n_chunks)
    return dx


@parallel
def fused_backward_loop(
    dy: Array, keep: Array, scale: np.floating, dx: Array, n_chunks: int
) -> None:
    """dy, keep (size,) -> dx (size,)."""
    for chunk in prange(n_chunks):
        part = slice(chunk * dy.size // n_chunks, (chunk + 1) * dy.size // n_chunks)
        dy_part, keep_part, dx_part = dy[part], keep[part], dx[part]
        for i in range(dy_part.size):
            dx_part[i] = dy_part[i] * (scale * keep_part[i])


forward = Ladder(
    "dropout.forward",
    check=_check_forward,
    naive=forward_naive,
    numpy=forward_numpy,
    fused=forward_fused,
)
backward = Ladder(
    "dropout.backward",
    check=_check_backward,
    naive=backward_naive,
    numpy=backward_numpy,
    fused=backward_fused,
)
