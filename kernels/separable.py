"""Batch norm, PReLU, depthwise and pointwise convolution as one op: the fused twin of four.

    a = prelu(gamma * (x - mean) / sqrt(var + eps) + beta),  d = depthwise(a, w),  y = d @ matrix

| rung   | the one idea                                                                 |
|--------|------------------------------------------------------------------------------|
| naive  | the naive rungs of the four ops, one after the other                         |
| numpy  | their numpy rungs                                                            |
| images | a thread takes a few images through all four while they are in its L2 cache  |

One op after the other, forward and backward pass 26 times over arrays as large as x and y,
and keep a and d in between. The loops of `images` are the same serial ones, called image by
image: a and d live in two scratch arrays per thread, are never stored, and the backward pass
computes them again. That leaves 11 passes, over x, y and their gradients only.

The batch's statistics are the border of such a block: mean and var of x must be known before
it starts, and those of y are collected on the way. Where no batch norm or activation stands
in front, mean 0, var 1, eps 0, gamma 1, beta 0 and slope 1 change nothing.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from . import batchnorm, depthwise, pointwise, prelu
from .batchnorm import BLOCK, add_statistics, as_rows, combine, inverse_std, quiet, row_chunks
from .batchnorm_prelu import activate, add_sums, check_given, go_back_in_place, go_back_loop, spread
from .checks import Array, check_array
from .depthwise.plain import check_forward as check_depthwise
from .depthwise.simd import add_up as add_up_taps
from .depthwise.simd import applies as depthwise_applies
from .depthwise.simd import new_sums
from .depthwise.sliding import backward_lines, forward_lines, padded
from .gemm import MAX_PARTIAL, add_up, multiply, multiply_transposed, transpose
from .jit import MAX_CHUNKS, kernel, max_threads, parallel, prange, thread_id
from .ladder import Ladder, rung_of
from .memory import empty, empty_like
from .tile import TILE_COLUMNS
from .windows import Pads, Pair, output_size

Output: TypeAlias = tuple[Array, Array, Array]  # y, its mean, its variance
# dx, dgamma, dbeta, dslope, dw, dmatrix
Gradients: TypeAlias = tuple[Array, Array, Array, Array, Array, Array]

# Rows of a matrix product that a group of images should have, to fill its register tiles.
ROWS = 196
# Groups, and partial gradients of the matrix, that there must be to keep threads busy.
SHARES = 8


def _check_forward(
    x: Array, gamma: Array, beta: Array, slope: Array, mean: Array, var: Array, w: Array,
    matrix: Array, *, eps: float, pads: Pads,
) -> None:  # fmt: skip
    check_depthwise(x, w, pads=pads)
    check_given(x, gamma, beta, slope, mean, var, eps=eps)
    check_array("matrix", matrix, (x.shape[3], "Cout"), like=x)


def _check_backward(
    dy: Array, x: Array, gamma: Array, beta: Array, slope: Array, mean: Array, var: Array,
    w: Array, matrix: Array, *, eps: float, pads: Pads, frozen: bool = False,
) -> None:  # fmt: skip
    _check_forward(x, gamma, beta, slope, mean, var, w, matrix, eps=eps, pads=pads)
    check_array("dy", dy, _output_shape(x, w, matrix, pads), like=x)


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
    return y, *rung_of(batchnorm.forward, rung)(y, one, zero, eps=1.0)[1:]


def _backward_in_turn(
    rung: str | None, dy: Array, x: Array, gamma: Array, beta: Array, slope: Array, mean: Array,
    var: Array, w: Array, matrix: Array, eps: float, pads: Pads, frozen: bool,
) -> Gradients:  # fmt: skip
    z = rung_of(batchnorm.inference, rung)(x, gamma, beta, mean, var, eps=eps)
    a = rung_of(prelu.forward, rung)(z, slope)
    d = rung_of(depthwise.forward, rung)(a, w, pads=pads)
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


def backward_naive(
    dy: Array, x: Array, gamma: Array, beta: Array, slope: Array, mean: Array, var: Array,
    w: Array, matrix: Array, *, eps: float, pads: Pads, frozen: bool = False,
) -> Gradients:  # fmt: skip
    """Compute a and d again, then go back through one op after the other."""
    args = (dy, x, gamma, beta, slope, mean, var, w, matrix)
    return _backward_in_turn("naive", *args, eps, pads, frozen)


def backward_numpy(
    dy: Array, x: Array, gamma: Array, beta: Array, slope: Array, mean: Array, var: Array,
    w: Array, matrix: Array, *, eps: float, pads: Pads, frozen: bool = False,
) -> Gradients:  # fmt: skip
    """The same in whole-array expressions."""
    args = (dy, x, gamma, beta, slope, mean, var, w, matrix)
    return _backward_in_turn("numpy", *args, eps, pads, frozen)


# --- image by image ---------------------------------------------------------------------


def group_size(x_shape: tuple[int, ...]) -> int:
    """Return how many images a thread takes at a time: ROWS pixels, or one image."""
    return max(1, min(x_shape[0], -(-ROWS // (x_shape[1] * x_shape[2]))))


def partials(x_shape: tuple[int, ...], matrix_shape: tuple[int, ...]) -> int:
    """Return how many partial gradients of the matrix are worth their memory."""
    groups = -(-x_shape[0] // group_size(x_shape))
    return min(MAX_CHUNKS // 2, groups, MAX_PARTIAL // (matrix_shape[0] * matrix_shape[1]))


def worthwhile(matrix_shape: tuple[int, ...]) -> bool:
    """Tell whether a block with such a matrix can gain, with enough images.

    Large matrices stand behind small maps, which fit the last-level cache as a whole batch.
    """
    return matrix_shape[0] * matrix_shape[1] * 2 * SHARES <= MAX_PARTIAL


def _applies(x: Array, w: Array, matrix: Array) -> bool:
    shares = partials(x.shape, matrix.shape)
    return depthwise_applies(x, w, (1, 1)) and worthwhile(matrix.shape) and shares >= SHARES


def _borders(images: int, group: int, n_chunks: int) -> Array:
    """Return the image each chunk starts with, and the number of images: whole groups."""
    groups = -(-images // group)
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
    """Store nothing but y; few images, float64 and other kernels: one op after the other."""
    if not _applies(x, w, matrix):
        args = (x, gamma, beta, slope, mean, var, w, matrix)
        return _forward_in_turn(None, *args, eps, pads)
    y = empty(_output_shape(x, w, matrix, pads), x.dtype)
    group, c_in, c_out = group_size(x.shape), *matrix.shape
    borders = _borders(len(x), group, min(MAX_CHUNKS, -(-len(x) // group)))
    stats = np.zeros((len(borders) - 1, 2, c_out))
    forward_loop(
        x, mean, (gamma * inverse_std(var, eps)).astype(x.dtype), beta, spread(slope, c_in),
        padded(w), matrix, y, _room(group, x.shape[1:]), _room(group, (*y.shape[1:3], c_in)),
        (pads[0], pads[2]), borders,
        np.empty((max_threads(), 2, c_out), np.float32), stats,
    )  # fmt: skip
    mean_y, var_y = combine(stats, np.diff(borders) * (y[0].size // c_out))
    return y, mean_y.astype(x.dtype), var_y.astype(x.dtype)


@parallel
def forward_loop(
    x: Array, mean: Array, scale: Array, beta: Array, slope: Array, w: Array, matrix: Array,
    y: Array, a: Array, d: Array, before: Pair, borders: Array, sums: Array, stats: Array,
) -> None:  # fmt: skip
    """x (N, H, W, Cin) -> y (N, OH, OW, Cout), stats (chunks, 2, Cout) from zero.

    a (threads, images, H, W, Cin), d (threads, images, OH, OW, Cin) and sums are scratch.
    """
    columns = -(-matrix.shape[1] // TILE_COLUMNS)
    for chunk in prange(len(borders) - 1):
        thread, low, high = thread_id(), borders[chunk], borders[chunk + 1]
        for first in range(low, high, a.shape[1]):
            last = min(first + a.shape[1], high)
            lines, out = (last - first) * y.shape[1], pixels(y[first:last])
            a_now, d_now = a[thread, : last - first], d[thread, : last - first]
            activate(pixels(x[first:last]), mean, scale, beta, slope, pixels(a_now))
            forward_lines(a_now, w, d_now, 0, lines, before, None)
            multiply(pixels(d_now), matrix, out, 0, columns)
            seen = (first - low) * y.shape[1] * y.shape[2]
            add_statistics(out, seen, sums[thread], stats[chunk])


@quiet
def backward_images(
    dy: Array, x: Array, gamma: Array, beta: Array, slope: Array, mean: Array, var: Array,
    w: Array, matrix: Array, *, eps: float, pads: Pads, frozen: bool = False,
) -> Gradients:  # fmt: skip
    """Compute a and d again, and use each gradient while it is in cache."""
    if not _applies(x, w, matrix):
        args = (dy, x, gamma, beta, slope, mean, var, w, matrix)
        return _backward_in_turn(None, *args, eps, pads, frozen)
    group, c_in, rows = group_size(x.shape), x.shape[3], as_rows(x)
    n_chunks = partials(x.shape, matrix.shape)
    inverse = inverse_std(var, eps)
    scale = gamma * inverse
    z_of = (mean, scale.astype(x.dtype), beta, spread(slope, c_in))
    dx, by_x, shift = empty_like(x), np.zeros_like(mean), np.zeros_like(mean)
    dw = new_sums(n_chunks, w)
    dmatrix = empty((n_chunks, *matrix.shape), np.float32)
    sums = np.zeros((n_chunks, 3, c_in))
    backward_loop(
        dy, x, *z_of, padded(w), transpose(matrix), by_x, shift, dx, dw, dmatrix,
        _room(group, x.shape[1:]), _room(group, (*dy.shape[1:3], c_in)),
        (pads[0], pads[2]), _borders(len(x), group, n_chunks), frozen,
        np.empty((max_threads(), 3, c_in), np.float32), sums,
    )  # fmt: skip
    sum_dz, sum_dz_x, dslope = sums.sum(axis=0)
    if not frozen:
        by_x = (-scale * inverse**2 * sum_dz_x / len(rows)).astype(x.dtype)
        shift = (-scale * sum_dz / len(rows)).astype(x.dtype)
        go_back_loop(as_rows(dx), rows, *z_of, by_x, shift, row_chunks(rows))
    if slope.shape == (1,):
        dslope = dslope.sum(keepdims=True)
    return (
        dx,
        (sum_dz_x * inverse).astype(x.dtype),
        sum_dz.astype(x.dtype),
        dslope.astype(x.dtype),
        add_up_taps(dw),
        add_up(dmatrix),
    )


@parallel
def backward_loop(
    dy: Array, x: Array, mean: Array, scale: Array, beta: Array, slope: Array, w: Array,
    transposed: Array, by_x: Array, shift: Array, dx: Array, dw: Array, dmatrix: Array,
    a: Array, d: Array, before: Pair, borders: Array, frozen: bool, sums32: Array, sums: Array,
) -> None:  # fmt: skip
    """dy (N, OH, OW, Cout), x (N, H, W, Cin) -> dx, and per chunk dw (from zero), dmatrix, sums.

    Unless mean and var are frozen, dx is left as the gradient of the activated map: the
    rest needs the sums of all chunks.
    """
    channels = 0, x.shape[3]
    columns = -(-transposed.shape[1] // TILE_COLUMNS)
    out_columns = -(-transposed.shape[0] // TILE_COLUMNS)
    for chunk in prange(len(borders) - 1):
        thread, low, high = thread_id(), borders[chunk], borders[chunk + 1]
        for first in range(low, high, a.shape[1]):
            last = min(first + a.shape[1], high)
            x_now, dx_now, dy_now = x[first:last], dx[first:last], pixels(dy[first:last])
            a_now, d_now = a[thread, : last - first], d[thread, : last - first]
            activate(pixels(x_now), mean, scale, beta, slope, pixels(a_now))
            lines = (last - first) * dy.shape[1]
            forward_lines(a_now, w, d_now, 0, lines, before, None)
            multiply_transposed(pixels(d_now), dy_now, dmatrix[chunk], 0, out_columns, first > low)
            multiply(dy_now, transposed, pixels(d_now), 0, columns)  # d is done with: now dd
            lines = (last - first) * x.shape[1]
            backward_lines(d_now, a_now, w, dx_now, dw[chunk], 0, lines, before, channels, None)
            x_rows, dx_rows = pixels(x_now), pixels(dx_now)
            for start in range(0, len(x_rows), BLOCK):
                block = slice(start, min(start + BLOCK, len(x_rows)))
                args = dx_rows[block], x_rows[block], mean, scale, beta, slope
                add_sums(*args, sums32[thread], sums[chunk])
            if frozen:
                go_back_in_place(dx_rows, x_rows, mean, scale, beta, slope, by_x, shift)


forward = Ladder(
    "separable.forward",
    check=_check_forward,
    naive=forward_naive,
    numpy=forward_numpy,
    images=forward_images,
)
backward = Ladder(
    "separable.backward",
    check=_check_backward,
    naive=backward_naive,
    numpy=backward_numpy,
    images=backward_images,
)
