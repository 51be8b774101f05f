"""Batch norm, PReLU and max pooling as one op: the fused twin of three.

    a = prelu(gamma * (x - mean) / sqrt(var + eps) + beta),   y = max_pool(a)

| rung   | the one idea                                                                 |
|--------|------------------------------------------------------------------------------|
| naive  | the naive rungs of the three ops, one after the other                        |
| numpy  | their numpy rungs                                                            |
| images | a thread takes one image through all three while it is in its L2 cache       |

With windows of 2x2, y and its gradient are a quarter of x. One op after the other, forward
and backward pass 13 times over arrays as large as x; here a and its gradient live in a
scratch array per thread, and 6 passes are left. As in `separable`, the statistics of x are
given, and mean 0, var 1, eps 0, gamma 1, beta 0, slope 1 stand for no norm and no activation.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from . import batchnorm, max_pool, prelu
from .batchnorm import as_rows, inverse_std, quiet
from .batchnorm_prelu import activate, add_sums, check_given, from_sums, go_back, spread
from .checks import Array, check_array
from .jit import chunks, kernel, max_threads, parallel, prange, thread_id
from .ladder import Ladder, rung_of
from .max_pool import pool_image, unpool_image
from .memory import empty, empty_like
from .windows import Pads, Pair, out_shape

Gradients: TypeAlias = tuple[Array, Array, Array, Array]  # dx, dgamma, dbeta, dslope

# Images there must be, to keep threads busy.
SHARES = 8


def _check_forward(
    x: Array, gamma: Array, beta: Array, slope: Array, mean: Array, var: Array, *,
    eps: float, size: Pair, stride: Pair, pads: Pads, ceil_mode: bool,
) -> None:  # fmt: skip
    max_pool.check_forward(x, size=size, stride=stride, pads=pads, ceil_mode=ceil_mode)
    check_given(x, gamma, beta, slope, mean, var, eps=eps)


def _check_backward(
    dy: Array, argmax: Array, x: Array, gamma: Array, beta: Array, slope: Array, mean: Array,
    var: Array, *, eps: float, size: Pair, stride: Pair, pads: Pads, ceil_mode: bool,
) -> None:  # fmt: skip
    max_pool.check_backward(
        dy, argmax, x_shape=x.shape, size=size, stride=stride, pads=pads, ceil_mode=ceil_mode
    )
    check_array("dy", dy, like=x)
    check_given(x, gamma, beta, slope, mean, var, eps=eps)


# --- one op after the other -------------------------------------------------------------


def _forward_in_turn(
    rung: str | None, x: Array, gamma: Array, beta: Array, slope: Array, mean: Array, var: Array,
    eps: float, size: Pair, stride: Pair, pads: Pads, ceil_mode: bool,
) -> tuple[Array, Array]:  # fmt: skip
    z = rung_of(batchnorm.inference, rung)(x, gamma, beta, mean, var, eps=eps)
    a = rung_of(prelu.forward, rung)(z, slope)
    pool = rung_of(max_pool.forward, rung)
    return pool(a, size=size, stride=stride, pads=pads, ceil_mode=ceil_mode)


def _backward_in_turn(
    rung: str | None, dy: Array, argmax: Array, x: Array, gamma: Array, beta: Array,
    slope: Array, mean: Array, var: Array, eps: float, size: Pair, stride: Pair, pads: Pads,
    ceil_mode: bool,
) -> Gradients:  # fmt: skip
    da = rung_of(max_pool.backward, rung)(
        dy, argmax, x_shape=x.shape, size=size, stride=stride, pads=pads, ceil_mode=ceil_mode
    )
    z = rung_of(batchnorm.inference, rung)(x, gamma, beta, mean, var, eps=eps)
    dz, dslope = rung_of(prelu.backward, rung)(da, z, slope)
    return *rung_of(batchnorm.backward, rung)(dz, x, gamma, mean, var, eps=eps), dslope


def forward_naive(
    x: Array, gamma: Array, beta: Array, slope: Array, mean: Array, var: Array, *,
    eps: float, size: Pair, stride: Pair, pads: Pads, ceil_mode: bool,
) -> tuple[Array, Array]:  # fmt: skip
    """Normalise, activate, pool: plain loops, every array stored."""
    given = x, gamma, beta, slope, mean, var
    return _forward_in_turn("naive", *given, eps, size, stride, pads, ceil_mode)


def forward_numpy(
    x: Array, gamma: Array, beta: Array, slope: Array, mean: Array, var: Array, *,
    eps: float, size: Pair, stride: Pair, pads: Pads, ceil_mode: bool,
) -> tuple[Array, Array]:  # fmt: skip
    """The same in whole-array expressions."""
    given = x, gamma, beta, slope, mean, var
    return _forward_in_turn("numpy", *given, eps, size, stride, pads, ceil_mode)


def backward_naive(
    dy: Array, argmax: Array, x: Array, gamma: Array, beta: Array, slope: Array, mean: Array,
    var: Array, *, eps: float, size: Pair, stride: Pair, pads: Pads, ceil_mode: bool,
) -> Gradients:  # fmt: skip
    """Scatter dy to the winners, then go back through one op after the other."""
    given = dy, argmax, x, gamma, beta, slope, mean, var
    return _backward_in_turn("naive", *given, eps, size, stride, pads, ceil_mode)


def backward_numpy(
    dy: Array, argmax: Array, x: Array, gamma: Array, beta: Array, slope: Array, mean: Array,
    var: Array, *, eps: float, size: Pair, stride: Pair, pads: Pads, ceil_mode: bool,
) -> Gradients:  # fmt: skip
    """The same in whole-array expressions."""
    given = dy, argmax, x, gamma, beta, slope, mean, var
    return _backward_in_turn("numpy", *given, eps, size, stride, pads, ceil_mode)


# --- image by image ---------------------------------------------------------------------


@kernel
def pixels(x: Array) -> Array:
    """x (H, W, C) -> (H * W, C), the same memory."""
    return x.reshape(x.shape[0] * x.shape[1], x.shape[2])


@quiet
def forward_images(
    x: Array, gamma: Array, beta: Array, slope: Array, mean: Array, var: Array, *,
    eps: float, size: Pair, stride: Pair, pads: Pads, ceil_mode: bool,
) -> tuple[Array, Array]:  # fmt: skip
    """Store nothing but the winners; with few images, one op after the other."""
    if len(x) < SHARES:
        given = x, gamma, beta, slope, mean, var
        return _forward_in_turn(None, *given, eps, size, stride, pads, ceil_mode)
    y = empty(out_shape(x.shape, size, stride, pads, ceil_mode), x.dtype)
    argmax = empty(y.shape, np.uint8)
    z_of = (mean, (gamma * inverse_std(var, eps)).astype(x.dtype), beta, spread(slope, len(beta)))
    a = empty((max_threads(), *x.shape[1:]), x.dtype)
    forward_loop(x, *z_of, a, size, stride, (pads[0], pads[2]), y, argmax, chunks(len(x)))
    return y, argmax


@parallel
def forward_loop(
    x: Array, mean: Array, scale: Array, beta: Array, slope: Array, a: Array, size: Pair,
    stride: Pair, corner: Pair, y: Array, argmax: Array, n_chunks: int,
) -> None:  # fmt: skip
    """x (N, H, W, C) -> y, argmax (N, OH, OW, C); a (threads, H, W, C) is scratch."""
    images = len(x)
    for chunk in prange(n_chunks):
        a_now = a[thread_id()]
        for i in range(chunk * images // n_chunks, (chunk + 1) * images // n_chunks):
            activate(pixels(x[i]), mean, scale, beta, slope, pixels(a_now))
            pool_image(a_now, size, stride, corner, y[i], argmax[i])


@quiet
def backward_images(
    dy: Array, argmax: Array, x: Array, gamma: Array, beta: Array, slope: Array, mean: Array,
    var: Array, *, eps: float, size: Pair, stride: Pair, pads: Pads, ceil_mode: bool,
) -> Gradients:  # fmt: skip
    """Scatter dy twice, to a scratch array for the sums and to dx: cheaper than to store it."""
    if len(x) < SHARES:
        given = dy, argmax, x, gamma, beta, slope, mean, var
        return _backward_in_turn(None, *given, eps, size, stride, pads, ceil_mode)
    inverse, channels, corner = inverse_std(var, eps), len(mean), (pads[0], pads[2])
    scale = gamma * inverse
    z_of = (mean, scale.astype(x.dtype), beta, spread(slope, channels))
    sums = np.zeros((chunks(len(x)), 3, channels))
    scratch = np.empty((max_threads(), 3, channels), x.dtype)
    da = empty((max_threads(), *x.shape[1:]), x.dtype)
    sums_loop(dy, argmax, x, *z_of, size, stride, corner, da, scratch, sums)
    by_x, shift, *gradients = from_sums(sums, scale, inverse, len(as_rows(x)), slope)
    dx = empty_like(x)
    dx_loop(dy, argmax, x, *z_of, by_x, shift, size, stride, corner, dx, chunks(len(x)))
    dgamma, dbeta, dslope = gradients
    return dx, dgamma, dbeta, dslope


@parallel
def sums_loop(
    dy: Array, argmax: Array, x: Array, mean: Array, scale: Array, beta: Array, slope: Array,
    size: Pair, stride: Pair, corner: Pair, da: Array, scratch: Array, sums: Array,
) -> None:  # fmt: skip
    """dy, argmax (N, OH, OW, C), x (N, H, W, C) -> sums (chunks, 3, C), from zero."""
    images, n_chunks = len(x), len(sums)
    for chunk in prange(n_chunks):
        thread = thread_id()
        da_rows = pixels(da[thread])
        for i in range(chunk * images // n_chunks, (chunk + 1) * images // n_chunks):
            unpool_image(dy[i], argmax[i], size, stride, corner, da[thread])
            args = da_rows, pixels(x[i]), mean, scale, beta, slope
            add_sums(*args, scratch[thread], sums[chunk])


@parallel
def dx_loop(
    dy: Array, argmax: Array, x: Array, mean: Array, scale: Array, beta: Array, slope: Array,
    by_x: Array, shift: Array, size: Pair, stride: Pair, corner: Pair, dx: Array, n_chunks: int,
) -> None:  # fmt: skip
    """dy, argmax (N, OH, OW, C), x (N, H, W, C), all others (C,) -> dx (N, H, W, C)."""
    images = len(x)
    for chunk in prange(n_chunks):
        for i in range(chunk * images // n_chunks, (chunk + 1) * images // n_chunks):
            unpool_image(dy[i], argmax[i], size, stride, corner, dx[i])
            dx_rows = pixels(dx[i])
            go_back(dx_rows, pixels(x[i]), mean, scale, beta, slope, by_x, shift, dx_rows)


forward = Ladder(
    "batchnorm_prelu_max_pool.forward",
    check=_check_forward,
    naive=forward_naive,
    numpy=forward_numpy,
    images=forward_images,
)
backward = Ladder(
    "batchnorm_prelu_max_pool.backward",
    check=_check_backward,
    naive=backward_naive,
    numpy=backward_numpy,
    images=backward_images,
)
