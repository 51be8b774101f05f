"""Batch norm: its checks, and the rungs to compare with, naive and numpy."""

from __future__ import annotations

import numpy as np

from ..checks import Array, ShapeError, check_array
from ..jit import kernel
from ..memory import empty_like


def check_forward(x: Array, gamma: Array, beta: Array, *, eps: float) -> None:
    check_array("x", x)
    if x.ndim < 2 or x.size == 0:
        raise ShapeError(f"x: expected shape (..., C) with at least one row, got {x.shape}")
    check_array("gamma", gamma, x.shape[-1:], like=x)
    check_array("beta", beta, x.shape[-1:], like=x)


def check_inference(
    x: Array, gamma: Array, beta: Array, mean: Array, var: Array, *, eps: float
) -> None:
    check_array("x", x)
    if x.ndim < 2:
        raise ShapeError(f"x: expected shape (..., C), got {x.shape}")
    for name, a in (("gamma", gamma), ("beta", beta), ("mean", mean), ("var", var)):
        check_array(name, a, x.shape[-1:], like=x)


def check_backward(
    dy: Array, x: Array, gamma: Array, mean: Array, var: Array, *, eps: float
) -> None:
    check_inference(x, gamma, gamma, mean, var, eps=eps)
    check_array("dy", dy, x.shape, like=x)


def as_rows(x: Array) -> Array:
    return x.reshape(-1, x.shape[-1])


# A batch with infinities gives NaN, as it must, but no warnings on the way.
quiet = np.errstate(invalid="ignore", over="ignore")


def inverse_std(var: Array, eps: float) -> Array:
    """1 / sqrt(var + eps) in float64."""
    inverse: Array = 1 / np.sqrt(var.astype(np.float64) + eps)
    return inverse


# --- naive ----------------------------------------------------------------------------


def forward_naive(x: Array, gamma: Array, beta: Array, *, eps: float) -> tuple[Array, Array, Array]:
    """Follow algorithm 1 channel by channel: jumps through memory by a whole row each time."""
    rows, y = as_rows(x), empty_like(as_rows(x))
    mean, var = np.empty_like(gamma), np.empty_like(gamma)
    naive_forward_loop(rows, gamma, beta, eps, y, mean, var)
    return y.reshape(x.shape), mean, var


@kernel
def naive_forward_loop(
    x: Array, gamma: Array, beta: Array, eps: float, y: Array, mean: Array, var: Array
) -> None:
    """X, y (rows, C), all others (C,)."""
    rows, channels = x.shape
    for c in range(channels):
        total = 0.0
        for row in range(rows):
            total += x[row, c]
        m = total / rows
        squares = 0.0
        for row in range(rows):
            squares += (x[row, c] - m) ** 2
        v = squares / rows
        for row in range(rows):
            y[row, c] = gamma[c] * (x[row, c] - m) / np.sqrt(v + eps) + beta[c]
        mean[c] = m
        var[c] = v


def inference_naive(
    x: Array, gamma: Array, beta: Array, mean: Array, var: Array, *, eps: float
) -> Array:
    """Write the formula down: a square root and a division per element."""
    y = empty_like(as_rows(x))
    naive_inference_loop(as_rows(x), gamma, beta, mean, var, eps, y)
    return y.reshape(x.shape)


@kernel
def naive_inference_loop(
    x: Array, gamma: Array, beta: Array, mean: Array, var: Array, eps: float, y: Array
) -> None:
    """X, y (rows, C), all others (C,)."""
    for row in range(x.shape[0]):
        for c in range(x.shape[1]):
            y[row, c] = gamma[c] * (x[row, c] - mean[c]) / np.sqrt(var[c] + eps) + beta[c]


def backward_naive(
    dy: Array, x: Array, gamma: Array, mean: Array, var: Array, *, eps: float
) -> tuple[Array, Array, Array]:
    """Two loops over a channel's column: the two sums, then dx."""
    dx = empty_like(as_rows(x))
    dgamma, dbeta = np.empty_like(gamma), np.empty_like(gamma)
    naive_backward_loop(as_rows(dy), as_rows(x), gamma, mean, var, eps, dx, dgamma, dbeta)
    return dx.reshape(x.shape), dgamma, dbeta


@kernel
def naive_backward_loop(
    dy: Array,
    x: Array,
    gamma: Array,
    mean: Array,
    var: Array,
    eps: float,
    dx: Array,
    dgamma: Array,
    dbeta: Array,
) -> None:
    """dy, x, dx (rows, C), all others (C,); the mean and variance depend on x too."""
    rows, channels = x.shape
    for c in range(channels):
        inverse = 1 / np.sqrt(var[c] + eps)
        sum_dy, sum_dy_xhat = 0.0, 0.0
        for row in range(rows):
            sum_dy += dy[row, c]
            sum_dy_xhat += dy[row, c] * (x[row, c] - mean[c]) * inverse
        for row in range(rows):
            xhat = (x[row, c] - mean[c]) * inverse
            through_stats = (sum_dy + xhat * sum_dy_xhat) / rows
            dx[row, c] = gamma[c] * inverse * (dy[row, c] - through_stats)
        dgamma[c] = sum_dy_xhat
        dbeta[c] = sum_dy


def inference_backward_naive(
    dy: Array, x: Array, gamma: Array, mean: Array, var: Array, *, eps: float
) -> tuple[Array, Array, Array]:
    """With fixed statistics dx is dy times a constant per channel."""
    dx = empty_like(as_rows(x))
    dgamma, dbeta = np.zeros(gamma.shape), np.zeros(gamma.shape)
    naive_inference_backward_loop(as_rows(dy), as_rows(x), gamma, mean, var, eps, dx, dgamma, dbeta)
    return dx.reshape(x.shape), dgamma.astype(x.dtype), dbeta.astype(x.dtype)


@kernel
def naive_inference_backward_loop(
    dy: Array,
    x: Array,
    gamma: Array,
    mean: Array,
    var: Array,
    eps: float,
    dx: Array,
    dgamma: Array,
    dbeta: Array,
) -> None:
    """dy, x, dx (rows, C), all others (C,); dgamma and dbeta start at zero, in float64."""
    for row in range(x.shape[0]):
        for c in range(x.shape[1]):
            inverse = 1 / np.sqrt(var[c] + eps)
            dx[row, c] = dy[row, c] * gamma[c] * inverse
            dgamma[c] += dy[row, c] * (x[row, c] - mean[c]) * inverse
            dbeta[c] += dy[row, c]


# --- numpy ----------------------------------------------------------------------------


@quiet
def forward_numpy(x: Array, gamma: Array, beta: Array, *, eps: float) -> tuple[Array, Array, Array]:
    """Whole arrays at a time, statistics in float64: several temporary arrays as large as x."""
    wide = as_rows(x).astype(np.float64)
    mean, var = wide.mean(axis=0), wide.var(axis=0)
    y = gamma * (wide - mean) / np.sqrt(var + eps) + beta
    return y.astype(x.dtype).reshape(x.shape), mean.astype(x.dtype), var.astype(x.dtype)


@quiet
def inference_numpy(
    x: Array, gamma: Array, beta: Array, mean: Array, var: Array, *, eps: float
) -> Array:
    """Whole arrays at a time."""
    y: Array = gamma * (x - mean) * inverse_std(var, eps).astype(x.dtype) + beta
    return y


def _sums_numpy(dy: Array, x: Array, mean: Array, inverse: Array) -> tuple[Array, Array]:
    """Return the sums over rows of dy * xhat and of dy, in float64."""
    wide = as_rows(dy).astype(np.float64)
    return (wide * (as_rows(x) - mean)).sum(axis=0) * inverse, wide.sum(axis=0)


@quiet
def backward_numpy(
    dy: Array, x: Array, gamma: Array, mean: Array, var: Array, *, eps: float
) -> tuple[Array, Array, Array]:
    """Whole arrays at a time."""
    inverse, rows = inverse_std(var, eps), x.size // x.shape[-1]
    dgamma, dbeta = _sums_numpy(dy, x, mean, inverse)
    xhat = (x - mean) * inverse
    dx = gamma * inverse * (dy - (dbeta + xhat * dgamma) / rows)
    return dx.astype(x.dtype), dgamma.astype(x.dtype), dbeta.astype(x.dtype)


@quiet
def inference_backward_numpy(
    dy: Array, x: Array, gamma: Array, mean: Array, var: Array, *, eps: float
) -> tuple[Array, Array, Array]:
    """Whole arrays at a time."""
    inverse = inverse_std(var, eps)
    dgamma, dbeta = _sums_numpy(dy, x, mean, inverse)
    dx = dy * (gamma * inverse).astype(x.dtype)
    return dx, dgamma.astype(x.dtype), dbeta.astype(x.dtype)
