"""Ops that do the work of several layers; `minidnn.fusion` finds where they fit.

The readable twin of each is its layers one after the other, and a test holds both equal.
"""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np

from minidnn.kernels import batchnorm as batchnorm_kernel
from minidnn.kernels import batchnorm_prelu as batchnorm_prelu_kernel
from minidnn.kernels import batchnorm_prelu_max_pool as max_pool_kernel
from minidnn.kernels import bias as bias_kernel
from minidnn.kernels import separable as separable_kernel
from minidnn.kernels.windows import Pads
from minidnn.layers.norm import affine, check_training, move
from minidnn.tensor import Array, Backward, op


def _separable_macs(y: Array, w: Array, matrix: Array, matrix_bias: Array | None) -> int:
    """Count a depthwise convolution w (3, 3, C) and the matrix (C, K) behind it."""
    pixels: int = y.size // y.shape[-1]
    return pixels * (w.size + matrix.size)


class Moments:
    """Mean and variance per channel that one op collected while it wrote an array for the next."""

    def __init__(self) -> None:
        self.of: weakref.ref[Array] | None = None
        self.values: tuple[Array, Array] | None = None

    def put(self, y: Array, mean: Array, var: Array) -> None:
        """Keep the moments of y (..., C)."""
        self.of, self.values = weakref.ref(y), (mean, var)

    def take(self, x: Array) -> tuple[Array, Array]:
        """Return the moments of x (..., C): those kept, if they are its own."""
        if self.of is not None and self.of() is x and self.values is not None:
            return self.values
        mean, var = batchnorm_kernel.statistics(x)
        return mean.astype(x.dtype), var.astype(x.dtype)


@op
def batchnorm_prelu(
    x: Array,
    weight: Array | None,
    bias: Array | None,
    slope: Array,
    *,
    running_mean: Array,
    running_var: Array,
    eps: float,
    momentum: float,
) -> tuple[Array, Backward]:
    """`batchnorm` and `prelu` in one; the loops are in `minidnn.kernels.batchnorm_prelu`."""
    check_training(x, running_mean, running_var)
    gamma, beta = affine(x, weight, bias)
    y, mean, var = batchnorm_prelu_kernel.forward(x, gamma, beta, slope, eps=eps)
    move(running_mean, running_var, mean, var, momentum, x)

    def backward(dy: Array) -> tuple[Array, Array, Array, Array]:
        return batchnorm_prelu_kernel.backward(dy, x, gamma, beta, slope, mean, var, eps=eps)

    return y, backward


@op
def batchnorm_prelu_max_pool(
    x: Array,
    weight: Array | None,
    bias: Array | None,
    slope: Array,
    *,
    running_mean: Array,
    running_var: Array,
    eps: float,
    momentum: float,
    known: Moments,
    windows: dict[str, Any],
) -> tuple[Array, Backward]:
    """`batchnorm`, `prelu`, `max_pool` in one; see `minidnn.kernels.batchnorm_prelu_max_pool`."""
    check_training(x, running_mean, running_var)
    gamma, beta = affine(x, weight, bias)
    mean, var = known.take(x)
    move(running_mean, running_var, mean, var, momentum, x)
    given, settings = (x, gamma, beta, slope, mean, var), {"eps": eps, **windows}
    y, argmax = max_pool_kernel.forward(*given, **settings)
    return y, lambda dy: max_pool_kernel.backward(dy, argmax, *given, **settings)


@op(macs=lambda y, x, gamma, beta, slope, *weights, **settings: _separable_macs(y, *weights))
def batchnorm_prelu_separable(
    x: Array,
    weight: Array | None,
    bias: Array | None,
    slope: Array,
    w: Array,
    matrix: Array,
    matrix_bias: Array | None,
    *,
    running_mean: Array,
    running_var: Array,
    eps: float,
    momentum: float,
    pads: Pads,
    known: Moments,
    collected: Moments,
) -> tuple[Array, Backward]:
    """`batchnorm`, `prelu`, `depthwise`, `pointwise` in one; see `minidnn.kernels.separable`."""
    check_training(x, running_mean, running_var)
    gamma, beta = affine(x, weight, bias)
    mean, var = known.take(x)
    move(running_mean, running_var, mean, var, momentum, x)
    given = x, gamma, beta, slope, mean, var, w, matrix
    y, d, *moments = separable_kernel.forward(*given, eps=eps, pads=pads)
    _finish(y, moments, matrix_bias, collected)

    def backward(dy: Array) -> tuple[Array | None, ...]:
        grads = separable_kernel.backward(dy, x, d, *given[1:], eps=eps, pads=pads)
        return *grads, None if matrix_bias is None else bias_kernel.backward(dy)

    return y, backward


@op(macs=lambda y, x, *weights, **settings: _separable_macs(y, *weights))
def separable(
    x: Array, w: Array, matrix: Array, matrix_bias: Array | None, *, pads: Pads, collected: Moments
) -> tuple[Array, Backward]:
    """`depthwise` and `pointwise` in one; the loops are in `minidnn.kernels.separable`."""
    one, zero = np.ones(x.shape[3], x.dtype), np.zeros(x.shape[3], x.dtype)
    given = x, one, zero, one, zero, one, w, matrix  # a norm and an activation that do nothing
    settings: dict[str, Any] = {"eps": 0.0, "pads": pads}
    y, d, *moments = separable_kernel.forward(*given, **settings)
    _finish(y, moments, matrix_bias, collected)

    def backward(dy: Array) -> tuple[Array | None, ...]:
        grads = separable_kernel.backward(dy, x, d, *given[1:], **settings, frozen=True)
        dx, *_, dw, dmatrix = grads
        return dx, dw, dmatrix, None if matrix_bias is None else bias_kernel.backward(dy)

    return y, backward


def _finish(y: Array, moments: list[Array], bias: Array | None, collected: Moments) -> None:
    """Add the bias to what a kernel returned, in place, and keep the moments."""
    mean, var = moments
    if bias is not None:
        bias_kernel.forward(y, bias, out=y)
        mean = mean + bias
    collected.put(y, mean, var)
