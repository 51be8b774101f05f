"""Batch norm, PReLU, depthwise and pointwise convolution as one op: the fused twin of four.

    a = prelu(gamma * (x - mean) / sqrt(var + eps) + beta),  d = depthwise(a, w),  y = d @ matrix

| rung   | the one idea                                                                 |
|--------|------------------------------------------------------------------------------|
| naive  | the naive rungs of the four ops, one after the other                         |
| numpy  | their numpy rungs                                                            |
| apart  | their fastest rungs: what fusing has to beat                                 |
| images | a thread takes a few images through all four while they are in its L2 cache  |

The loops of `images` are the serial ones of the four ops, called for a few images at a time, so
that one reads from the core's own cache what the other wrote. a, its gradient and that of d are
never stored: they live in a scratch array of the thread, and the backward pass computes a again.
What is kept in between is d alone, for the gradient of the matrix.

The batch's statistics are the border of such a block: mean and var of x must be known before
it starts, and those of y are collected on the way. Where no batch norm or activation stands
in front, mean 0, var 1, eps 0, gamma 1, beta 0 and slope 1 change nothing.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from . import batchnorm, depthwise, pointwise, prelu
from .batchnorm import add_statistics, as_rows, combine, inverse_std, quiet, row_chunks
from .batchnorm_prelu import (
    activate,
    add_sums,
    check_given,
    from_sums,
    go_back,
    go_back_loop,
    spread,
)
from .checks import Array, check_array
from .depthwise.plain import check_forward as check_depthwise
from .depthwise.simd import add_up as add_up_taps
from .depthwise.simd import applies as depthwise_applies
from .depthwise.simd import new_sums
from .depthwise.sliding import backward_lines, forward_lines, padded
from .gemm import multiply, transpose
from .jit import MAX_CHUNKS, kernel, max_threads, parallel, prange, thread_id
from .ladder import Ladder, rung_of
from .memory import empty, empty_like
from .tile import TILE_COLUMNS
from .windows import Pads, Pair, output_size

Output: TypeAlias = tuple[Array, Array, Array, Array]  # y, d, mean and variance of y
# dx, dgamma, dbeta, dslope, dw, dmatrix
Gradients: TypeAlias = tuple[Array, Array, Array, Array, Array, Array]

# Rows of a matrix product that a group of images should have, to fill its register tiles.
ROWS = 196
# Groups that there must be to keep threads busy.
SHARES = 8
# A larger matrix stands behind maps so small that a batch of them fits the last-level cache.
LARGEST_MATRIX = 1 << 18


def _check_forward(
    x: Array, gamma: Array, beta: Array, slope: Array, mean: Array, var: Array, w: Array,
    matrix: Array, *, eps: float, pads: Pads,
) -> None:  # fmt: skip
    check_depthwise(x, w, pads=pads)
    check_given(x, gamma, beta, slope, mean, var, eps=eps)
    check_array("matrix", matrix, (x.shape[3], "Cout"), like=x)


def _check_backward(
    dy: Array, x: Array, d: Array, gamma: Array, beta: Array, slope: Array, mean: Array, var: Array,
    w: Array, matrix: Array, *, eps: float, pads: Pads, frozen: bool = False,
) -> None:  # fmt: skip
    _check_forward(x, gamma, beta, slope, mean, var, w, matrix, eps=eps, pads=pads)
    shape = _output_shape(x, w, matrix, pads)
    check_array("dy", dy, shape, like=x)
    check_array("d", d, (*shape[:3], x.shape[3]), like=x)


def _output_shape(x: Array, w: Array, matrix: Array, pads: Pads) -> tuple[int, ...]:
    size = output_size(x.shape[1:3], w.shape[:2], stride=(1, 1), pads=pads)
    return x.shape[0], *size, matrix.shape[1]


# --- one op after the other -------------------------------------------------------------


def _forward_in_turn(
    rung: str | None, x: Array, gamma: Array, beta: Array, slope: Array, mean: Array, var: Array,
    w: Array, matrix: Array, eps: float, pads: Pads,
) -> Output:  # fmt: skip
    z = rung_of(batchnorm.inference, rung)(x, gamma, beta, mean, var, eps=eps)
    a = rung_of(prelu.forward, rung)(z, slope)
    d = rung_of(depthwise.forward, rung)(a, w, pads=pads)
    y = rung_of(pointwise.forward, rung)(d, matrix)
    one, zero = np.ones(y.shape[3], y.dtype), np.zeros(y.shape[3], y.dtype)
    return y, d, *rung_of(batchnorm.forward, rung)(y, one, zero, eps=1.0)[1:]


def _backward_in_turn(
    rung: str | None, dy: Array, x: Array, d: Array, gamma: Array, beta: Array, slope: Array,
    mean: Array, var: Array, w: Array, matrix: Array, eps: float, pads: Pads, frozen: bool,
) -> Gradients:  # fmt: skip
    z = rung_of(batchnorm.inference, rung)(x, gamma, beta, mean, var, eps=eps)
    a = rung_of(prelu.forward, rung)(z, slope)
    dmatrix = rung_of(pointwise.backward_weight, rung)(dy, d)
    dd = rung_of(pointwise.backward_input, rung)(dy, matrix)
    da, dw = rung_of(depthwise.backward, rung)(dd, a, w, pads=pads)
    dz, dslope = rung_of(prelu.backward, rung)(da, z, slope)
    normalise = batchnorm.inference_backward if frozen else batchnorm.backward
    dx, dgamma, dbeta = rung_of(normalise, rung)(dz, x, gamma, mean, var, eps=eps)
    return dx, dgamma, dbeta, dslope, dw, dmatrix


def forward_naive(
    x: Array, gamma: Array, beta: Array, slope: Array, mean: Array, var: Array, w: Array,
    matrix: Array, *, eps: float, pads: Pads,
) -> Output:  # fmt: skip
    """Normalise, activate, convolve twice, look at y again: plain loops, every array stored."""
    args = (x, gamma, beta, slope, mean, var, w, matrix)
    return _forward_in_turn("naive", *args, eps, pads)


def forward_numpy(
    x: Array, gamma: Array, beta: Array, slope: Array, mean: Array, var: Array, w: Array,
    matrix: Array, *, eps: float, pads: Pads,
) -> Output:  # fmt: skip
    """The same in whole-array expressions."""
    args = (x, gamma, beta, slope, mean, var, w, matrix)
    return _forward_in_turn("numpy", *args, eps, pads)


def forward_apart(
    x: Array, gamma: Array, beta: Array, slope: Array, mean: Array, var: Array, w: Array,
    matrix: Array, *, eps: float, pads: Pads,
) -> Output:  # fmt: skip
    """Each op's fastest loop, one after the other: every array goes out to memory and back."""
    args = (x, gamma, beta, slope, mean, var, w, matrix)
    return _forward_in_turn(None, *args, eps, pads)


def backward_naive(
    dy: Array, x: Array, d: Array, gamma: Array, beta: Array, slope: Array, mean: Array, var: Array,
    w: Array, matrix: Array, *, eps: float, pads: Pads, frozen: bool = False,
) -> Gradients:  # fmt: skip
    """Compute a again, then go back through one op after the other."""
    args = (dy, x, d, gamma, beta, slope, mean, var, w, matrix)
    return _backward_in_turn("naive", *args, eps, pads, frozen)


def backward_numpy(
    dy: Array, x: Array, d: Array, gamma: Array, beta: Array, slope: Array, mean: Array, var: Array,
    w: Array, matrix: Array, *, eps: float, pads: Pads, frozen: bool = False,
) -> Gradients:  # fmt: skip
    """The same in whole-array expressions."""
    args = (dy, x, d, gamma, beta, slope, mean, var, w, matrix)
    return _backward_in_turn("numpy", *args, eps, pads, frozen)


def backward_apart(
    dy: Array, x: Array, d: Array, gamma: Array, beta: Array, slope: Array, mean: Array, var: Array,
    w: Array, matrix: Array, *, eps: float, pads: Pads, frozen: bool = False,
) -> Gradients:  # fmt: skip
    """Each op's fastest loop, one after the other: every gradient goes out to memory and back."""
    args = (dy, x, d, gamma, beta, slope, mean, var, w, matrix)
    return _backward_in_turn(None, *args, eps, pads, frozen)


# --- image by image ---------------------------------------------------------------------


def group_size(x_shape: tuple[int, ...]) -> int:
    """Return how many images a thread takes at a time: ROWS pixels, or one image."""
    return max(1, min(x_shape[0], -(-ROWS // (x_shape[1] * x_shape[2]))))


def worthwhile(matrix_shape: tuple[int, ...]) -> bool:
    """Tell whether a block with such a matrix can gain, with enough images."""
    return matrix_shape[0] * matrix_shape[1] <= LARGEST_MATRIX


def _applies(x: Array, w: Array, matrix: Array) -> bool:
    groups = len(x) // group_size(x.shape)
    return depthwise_applies(x, w, (1, 1)) and worthwhile(matrix.shape) and groups >= SHARES


def _borders(images: int, group: int, n_chunks: int) -> Array:
    """Return the image each chunk starts with, and the number of images: whole groups."""
    groups = -(-images // group)
    n_chunks = min(n_chunks, groups)
    return np.minimum(np.arange(n_chunks + 1) * groups // n_chunks * group, images)


def _room(group: int, image: tuple[int, ...]) -> Array:
    """Return room for a group of images of that shape, for each thread."""
    return empty((max_threads(), group, *image), np.float32)


@kernel
def pixels(x: Array) -> Array:
    """x (N, H, W, C) -> (N * H * W, C), the same memory."""
    return x.reshape(x.shape[0] * x.shape[1] * x.shape[2], x.shape[3])


@quiet
def forward_images(
    x: Array, gamma: Array, beta: Array, slope: Array, mean: Array, var: Array, w: Array,
    matrix: Array, *, eps: float, pads: Pads,
) -> Output:  # fmt: skip
    """Fused, a few images in cache: d and y alone are stored; where that does not fit, as apart."""
    if not _applies(x, w, matrix):
        return forward_apart(x, gamma, beta, slope, mean, var, w, matrix, eps=eps, pads=pads)
    y = empty(_output_shape(x, w, matrix, pads), x.dtype)
    group, c_in, c_out = group_size(x.shape), *matrix.shape
    d = empty((*y.shape[:3], c_in), x.dtype)
    borders = _borders(len(x), group, MAX_CHUNKS)
    stats = np.zeros((len(borders) - 1, 2, c_out))
    forward_loop(
        x, mean, (gamma * inverse_std(var, eps)).astype(x.dtype), beta, spread(slope, c_in),
        padded(w), matrix, d, y, _room(group, x.shape[1:]), (pads[0], pads[2]), borders,
        np.empty((max_threads(), 2, c_out), np.float32), stats,
    )  # fmt: skip
    mean_y, var_y = combine(stats, np.diff(borders) * (y[0].size // c_out))
    return y, d, mean_y.astype(x.dtype), var_y.astype(x.dtype)


@parallel
def forward_loop(
    x: Array, mean: Array, scale: Array, beta: Array, slope: Array, w: Array, matrix: Array,
    d: Array, y: Array, a: Array, before: Pair, borders: Array, sums: Array, stats: Array,
) -> None:  # fmt: skip
    """x (N, H, W, Cin) -> d (N, OH, OW, Cin), y (N, OH, OW, Cout), stats (chunks, 2, Cout).

    stats start at zero; a (threads, images, H, W, Cin) and sums are scratch.
    """
    columns = -(-matrix.shape[1] // TILE_COLUMNS)
    for chunk in prange(len(borders) - 1):
        thread, low, high = thread_id(), borders[chunk], borders[chunk + 1]
        for first in range(low, high, a.shape[1]):
            last = min(first + a.shape[1], high)
            lines, out = (last - first) * y.shape[1], pixels(y[first:last])
            a_now, d_now = a[thread, : last - first], d[first:last]
            activate(pixels(x[first:last]), mean, scale, beta, slope, pixels(a_now))
            forward_lines(a_now, w, d_now, 0, lines, before, False)
            multiply(pixels(d_now), matrix, out, 0, columns)
            seen = (first - low) * y.shape[1] * y.shape[2]
            add_statistics(out, seen, sums[thread], stats[chunk])


@quiet
def backward_images(
    dy: Array, x: Array, d: Array, gamma: Array, beta: Array, slope: Array, mean: Array, var: Array,
    w: Array, matrix: Array, *, eps: float, pads: Pads, frozen: bool = False,
) -> Gradients:  # fmt: skip
    """Fused: each gradient is used while it is in cache; where that does not fit, as apart."""
    if not _applies(x, w, matrix):
        args = (dy, x, d, gamma, beta, slope, mean, var, w, matrix)
        return backward_apart(*args, eps=eps, pads=pads, frozen=frozen)
    group, c_in, rows = group_size(x.shape), x.shape[3], as_rows(x)
    inverse, borders = inverse_std(var, eps), _borders(len(x), group, MAX_CHUNKS // 2)
    scale = gamma * inverse
    z_of = (mean, scale.astype(x.dtype), beta, spread(slope, c_in))
    dx, by_x, shift = empty_like(x), np.zeros_like(mean), np.zeros_like(mean)
    dw, sums = new_sums(len(borders) - 1, w), np.zeros((len(borders) - 1, 3, c_in))
    backward_loop(
        dy, x, *z_of, padded(w), transpose(matrix), by_x, shift, dx, dw,
        _room(group, x.shape[1:]), _room(group, (*dy.shape[1:3], c_in)), (pads[0], pads[2]),
        borders, frozen, np.empty((max_threads(), 3, c_in), np.float32), sums,
    )  # fmt: skip
    by_x, shift, dgamma, dbeta, dslope = from_sums(sums, scale, inverse, len(rows), slope)
    if not frozen:
        go_back_loop(as_rows(dx), rows, *z_of, by_x, shift, row_chunks(rows))
    return dx, dgamma, dbeta, dslope, add_up_taps(dw), pointwise.backward_weight(dy, d)


@parallel
def backward_loop(
    dy: Array, x: Array, mean: Array, scale: Array, beta: Array, slope: Array, w: Array,
    transposed: Array, by_x: Array, shift: Array, dx: Array, dw: Array, a: Array, dd: Array,
    before: Pair, borders: Array, frozen: bool, sums32: Array, sums: Array,
) -> None:  # fmt: skip
    """dy (N, OH, OW, Cout), x (N, H, W, Cin) -> dx, and per chunk dw and sums, from zero.

    Unless mean and var are frozen, dx is left as the gradient of the activated map: the
    rest needs the sums of all chunks. a, dd (threads, images, ...) and sums32 are scratch.
    """
    columns = -(-transposed.shape[1] // TILE_COLUMNS)
    for chunk in prange(len(borders) - 1):
        thread, low, high = thread_id(), borders[chunk], borders[chunk + 1]
        for first in range(low, high, a.shape[1]):
            last = min(first + a.shape[1], high)
            x_now, dx_now = x[first:last], dx[first:last]
            a_now, dd_now = a[thread, : last - first], dd[thread, : last - first]
            multiply(pixels(dy[first:last]), transposed, pixels(dd_now), 0, columns)
            activate(pixels(x_now), mean, scale, beta, slope, pixels(a_now))
            lines, channels = (last - first) * x.shape[1], (0, x.shape[3])
            backward_lines(dd_now, a_now, w, dx_now, dw[chunk], 0, lines, before, channels, False)
            x_rows, dx_rows = pixels(x_now), pixels(dx_now)
            z_of = mean, scale, beta, slope
            add_sums(dx_rows, x_rows, *z_of, sums32[thread], sums[chunk])
            if frozen:
                go_back(dx_rows, x_rows, *z_of, by_x, shift, dx_rows)


forward = Ladder(
    "separable.forward",
    check=_check_forward,
    naive=forward_naive,
    numpy=forward_numpy,
    apart=forward_apart,
    images=forward_images,
)
backward = Ladder(
    "separable.backward",
    check=_check_backward,
    naive=backward_naive,
    numpy=backward_numpy,
    apart=backward_apart,
    images=backward_images,
)
