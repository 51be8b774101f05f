"""The arithmetic of 8-bit inference: one fixed expression for each step.

``acc = bias + sum(codes * weights)`` in int32, then in float32, rounded after each operation::

    y = float32(acc) * scale[c]
    y = y if y > 0 else y * slope[c]          # PReLU; slope 1: none, slope 0: ReLU
    code = clip(rint(y) + zero, 0, 255)       # rint: to the nearest, of two to the even one

Nothing here may be reordered or fused into a multiply-add, or a code near a half would flip.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..checks import Array, DTypeError, InputError
from ..jit import exact


class SumError(InputError):
    """Sums of products could leave the range of int32."""


LARGEST_WEIGHT = 127  # -128 has no opposite, so that weights are symmetric
INT32 = np.iinfo(np.int32)


def quantise_weights(w: Array) -> tuple[Array, Array]:
    """Quantise weights symmetrically, with a scale for each output channel.

    Parameters
    ----------
    w : ndarray of shape (..., N), float32
        Output channels last: (K, N), (KH, KW, C) of a depthwise convolution, and so on.

    Returns
    -------
    ndarray of shape (..., N), int8, and ndarray of shape (N,), float32
        Integers from -127 to 127, and the scales: w is about integers * scales. A channel of
        zeros has scale 1.

    Raises
    ------
    InputError
        If a weight is NaN or infinite.
    """
    if w.dtype != np.float32:
        raise DTypeError(f"w: expected float32, got {w.dtype}")
    if not np.isfinite(w).all():
        raise InputError("w: expected finite weights, got NaN or infinity")
    largest = np.abs(w.reshape(-1, w.shape[-1])).max(axis=0, initial=0.0)
    # So small that a scale would have no float32: as good as zero.
    tiny = largest < LARGEST_WEIGHT * np.finfo(np.float32).tiny
    scales = np.where(tiny, np.float32(1), largest / np.float32(LARGEST_WEIGHT))
    integers = np.clip(np.rint(w / scales), -LARGEST_WEIGHT, LARGEST_WEIGHT)
    return integers.astype(np.int8), scales


def quantise_bias(bias: Array, weights: Array, zero: int, scales: Array) -> Array:
    """Return the int32 bias of a layer, which holds the input's zero point too.

    Parameters
    ----------
    bias : ndarray of shape (N,), float
        The layer's bias.
    weights : ndarray of shape (..., N), int8
        Output channels last.
    zero : int
        Zero point of the input.
    scales : ndarray of shape (N,)
        What one unit of the sum stands for: scale of the input * scales of the weights.

    Returns
    -------
    ndarray of shape (N,), int32
        rint(bias / scales) - zero * (sum of the channel's weights).

    Raises
    ------
    SumError
        If a sum could leave int32 for some input: see `accumulator_bounds`.
    """
    columns = weights.reshape(-1, weights.shape[-1])
    folded = np.rint(bias.astype(np.float64) / scales.astype(np.float64))
    folded -= zero * columns.sum(axis=0, dtype=np.int64)
    low, high = accumulator_bounds(folded, weights)
    fits = (low >= INT32.min) & (high <= INT32.max)  # false where a bias is NaN
    if not fits.all():
        c = int(np.argmin(fits))
        raise SumError(
            f"channel {c}: its sum could leave the range of int32: from {low[c]:.0f} to "
            f"{high[c]:.0f} over {len(columns)} products with bias {folded[c]:.0f}; keep this "
            f"layer in float32"
        )
    return folded.astype(np.int32)


def accumulator_bounds(bias: Array, weights: Array) -> tuple[Array, Array]:
    """Return the least and the greatest sum of each channel, over all inputs, as float64.

    Codes are 0 to 255, so a sum is least where all negative weights meet 255. It is bounded by
    255 * 127 * K on top of the bias: below 2 ** 31 up to K = 66,311 products.
    """
    columns = weights.reshape(-1, weights.shape[-1]).astype(np.int64)
    low = bias + 255.0 * np.minimum(columns, 0).sum(axis=0)
    return low, bias + 255.0 * np.maximum(columns, 0).sum(axis=0)


def requantised(acc: Array, scale: Any, slope: Any, zero: int, *, as_float: bool) -> Array:
    """Turn sums (..., N) int32 into codes, or into float32: the reference for all rungs.

    scale and slope are float32, one number for each channel or one for all.
    """
    y = acc.astype(np.float32) * scale
    y = np.where(y > 0, y, y * slope)
    if as_float:
        return np.asarray(y)
    codes: Array = np.clip(np.rint(y) + zero, 0, 255)
    return codes.astype(np.uint8)


@exact
def scaled(acc: Any, scale: Any, slope: Any) -> Any:
    """Return float32(acc) * scale, and times slope where that is not positive."""
    y = np.float32(acc) * scale
    return y if y > 0 else y * slope


@exact
def code_of(y: Any, zero: int) -> Any:
    """Return clip(rint(y) + zero, 0, 255) for a float32 y; cut off first, so that it fits int32."""
    low, high = np.float32(-zero), np.float32(255 - zero)
    y = low if y < low else y
    y = high if y > high else y
    return np.int32(np.rint(y)) + np.int32(zero)


@exact
def requantise(acc: Array, scale: Array, slope: Array, zero: int, y: Array) -> None:
    """acc (N,) int32 -> y (N,), codes if it has bytes and float32 otherwise."""
    if y.itemsize == 4:
        for c in range(y.size):
            y[c] = scaled(acc[c], scale[c], slope[c])
    else:
        for c in range(y.size):
            y[c] = code_of(scaled(acc[c], scale[c], slope[c]), zero)
