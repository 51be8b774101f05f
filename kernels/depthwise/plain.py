"""Depthwise convolution, checks and the rungs to compare with: python, numpy and naive."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..checks import Array, ShapeError, check_array
from ..jit import kernel
from ..memory import empty
from ..windows import Pads, Pair, output_size, shifted, zero_padded


def check_forward(
    x: Array, w: Array, *, stride: Pair = (1, 1), pads: Pads = (0, 0, 0, 0)
) -> tuple[int, ...]:
    check_array("x", x, ("N", "H", "W", "C"))
    check_array("w", w, ("KH", "KW", x.shape[3]), like=x)
    if x.shape[0] < 1 or x.shape[3] < 1:
        raise ShapeError(f"x: expected at least one image and one channel, got shape {x.shape}")
    return output_size(x.shape[1:3], w.shape[:2], stride=stride, pads=pads)


def check_backward(
    dy: Array, x: Array, w: Array, *, stride: Pair = (1, 1), pads: Pads = (0, 0, 0, 0)
) -> None:
    size = check_forward(x, w, stride=stride, pads=pads)
    check_array("dy", dy, (x.shape[0], *size, x.shape[3]), like=x)


def check_input(
    dy: Array, w: Array, *, size: Pair, stride: Pair = (1, 1), pads: Pads = (0, 0, 0, 0)
) -> None:
    check_array("w", w, ("KH", "KW", "C"), like=dy)
    if dy.ndim != 4 or dy.size == 0:
        raise ShapeError(f"dy: expected shape (N, OH, OW, C), none of them 0, got {dy.shape}")
    out = output_size(size, w.shape[:2], stride=stride, pads=pads)
    check_array("dy", dy, ("N", *out, w.shape[2]))


def check_weight(
    dy: Array, x: Array, *, kernel_size: Pair, stride: Pair = (1, 1), pads: Pads = (0, 0, 0, 0)
) -> None:
    check_array("x", x, ("N", "H", "W", "C"))
    if x.size == 0:
        raise ShapeError(f"x: expected at least one number, got shape {x.shape}")
    out = output_size(x.shape[1:3], kernel_size, stride=stride, pads=pads)
    check_array("dy", dy, (x.shape[0], *out, x.shape[3]), like=x)


def new_output(x: Array, w: Array, stride: Pair, pads: Pads) -> Array:
    oh, ow = output_size(x.shape[1:3], w.shape[:2], stride=stride, pads=pads)
    return empty((x.shape[0], oh, ow, x.shape[3]), x.dtype)


# --- python ---------------------------------------------------------------------------
# The loops are those of naive further down, before they are compiled.


def plain_python(compiled: Any) -> Any:
    """Return the Python function behind a compiled one."""
    return getattr(compiled, "py_func", compiled)  # with NUMBA_DISABLE_JIT=1 it is the function


def forward_python(
    x: Array, w: Array, *, stride: Pair = (1, 1), pads: Pads = (0, 0, 0, 0)
) -> Array:
    """Plain loops, run by Python: a full convolution's seven, less the one over input channels.

    Saves: nothing; this is the definition. Measure: time per product. Python spends it on
    finding out, again for each, what `*` means for these two objects.
    """
    y = new_output(x, w, stride, pads)
    plain_python(naive_forward_loop)(x, w, y, stride, pads)
    return y


def input_python(
    dy: Array, w: Array, *, size: Pair, stride: Pair = (1, 1), pads: Pads = (0, 0, 0, 0)
) -> Array:
    """Plain loops, run by Python: each product hands its gradient to the pixel it read.

    Saves: nothing. Measure: against forward, with as many products.
    """
    dx = np.zeros((len(dy), *size, w.shape[2]), dy.dtype)
    plain_python(naive_input_loop)(dy, w, dx, stride, pads)
    return dx


def weight_python(
    dy: Array, x: Array, *, kernel_size: Pair, stride: Pair = (1, 1), pads: Pads = (0, 0, 0, 0)
) -> Array:
    """Plain loops, run by Python: each product hands its gradient to its weight.

    Saves: nothing. Measure: against forward, with as many products.
    """
    dw = np.zeros((*kernel_size, x.shape[3]))
    plain_python(naive_weight_loop)(dy, x, dw, stride, pads)
    return dw.astype(x.dtype)


# --- numpy ----------------------------------------------------------------------------


def forward_numpy(x: Array, w: Array, *, stride: Pair = (1, 1), pads: Pads = (0, 0, 0, 0)) -> Array:
    """Whole arrays: one shifted slice of the padded input per tap, nine expressions in all.

    Saves: Python's work per product, now once per tap. Measure: GB/s. Each tap goes through
    all of x and y, three times over, so memory is the limit.
    """
    y = new_output(x, w, stride, pads)
    y.fill(0)
    padded, size = zero_padded(x, pads), (y.shape[1], y.shape[2])
    for ky, kx in np.ndindex(*w.shape[:2]):
        y += shifted(padded, ky, kx, stride, size) * w[ky, kx]
    return y


def input_numpy(
    dy: Array, w: Array, *, size: Pair, stride: Pair = (1, 1), pads: Pads = (0, 0, 0, 0)
) -> Array:
    """Whole arrays: dy times a weight, added to one shifted slice of the padded gradient per tap.

    Saves and measure: as forward.
    """
    top, bottom, left, right = pads
    shape = (len(dy), size[0] + top + bottom, size[1] + left + right, w.shape[2])
    padded = np.zeros(shape, dy.dtype)
    for ky, kx in np.ndindex(*w.shape[:2]):
        shifted(padded, ky, kx, stride, (dy.shape[1], dy.shape[2]))[...] += dy * w[ky, kx]
    return np.ascontiguousarray(padded[:, top : top + size[0], left : left + size[1]])


def weight_numpy(
    dy: Array, x: Array, *, kernel_size: Pair, stride: Pair = (1, 1), pads: Pads = (0, 0, 0, 0)
) -> Array:
    """Whole arrays: one shifted slice of the padded input per tap, times dy, summed over pixels.

    Saves: as forward. Measure: GB/s; the products of a tap are an array like dy before they
    are summed.
    """
    padded, dw = zero_padded(x, pads), empty((*kernel_size, x.shape[3]), x.dtype)
    for ky, kx in np.ndindex(*kernel_size):
        seen = shifted(padded, ky, kx, stride, (dy.shape[1], dy.shape[2]))
        dw[ky, kx] = (seen * dy).sum((0, 1, 2), dtype=np.float64)
    return dw


# --- naive ----------------------------------------------------------------------------


def forward_naive(x: Array, w: Array, *, stride: Pair = (1, 1), pads: Pads = (0, 0, 0, 0)) -> Array:
    """The loops of python, compiled: six of them and a bounds test, as machine code.

    Saves: all that Python does between two products. Measure: it beats NumPy only where
    its one test per product costs less than NumPy's passes over memory.
    """
    y = new_output(x, w, stride, pads)
    naive_forward_loop(x, w, y, stride, pads)
    return y


@kernel
def naive_forward_loop(x: Array, w: Array, y: Array, stride: Pair, pads: Pads) -> None:
    """x (N, H, W, C), w (KH, KW, C) -> y (N, OH, OW, C)."""
    for n in range(y.shape[0]):
        for oy in range(y.shape[1]):
            for ox in range(y.shape[2]):
                for c in range(y.shape[3]):
                    total = x.dtype.type(0)
                    for ky in range(w.shape[0]):
                        for kx in range(w.shape[1]):
                            iy, ix = oy * stride[0] + ky - pads[0], ox * stride[1] + kx - pads[2]
                            if 0 <= iy < x.shape[1] and 0 <= ix < x.shape[2]:
                                total += x[n, iy, ix, c] * w[ky, kx, c]
                    y[n, oy, ox, c] = total


def input_naive(
    dy: Array, w: Array, *, size: Pair, stride: Pair = (1, 1), pads: Pads = (0, 0, 0, 0)
) -> Array:
    """The loops of python, compiled: each product hands its gradient to the pixel it read.

    Saves: as forward. Measure: against forward; gradients are added to memory one by one.
    """
    dx = np.zeros((len(dy), *size, w.shape[2]), dy.dtype)
    naive_input_loop(dy, w, dx, stride, pads)
    return dx


@kernel
def naive_input_loop(dy: Array, w: Array, dx: Array, stride: Pair, pads: Pads) -> None:
    """dy (N, OH, OW, C), w (KH, KW, C) -> dx (N, H, W, C) that starts at zero."""
    for n in range(dy.shape[0]):
        for oy in range(dy.shape[1]):
            for ox in range(dy.shape[2]):
                for c in range(dy.shape[3]):
                    for ky in range(w.shape[0]):
                        for kx in range(w.shape[1]):
                            iy, ix = oy * stride[0] + ky - pads[0], ox * stride[1] + kx - pads[2]
                            if 0 <= iy < dx.shape[1] and 0 <= ix < dx.shape[2]:
                                dx[n, iy, ix, c] += dy[n, oy, ox, c] * w[ky, kx, c]


def weight_naive(
    dy: Array, x: Array, *, kernel_size: Pair, stride: Pair = (1, 1), pads: Pads = (0, 0, 0, 0)
) -> Array:
    """The loops of python, compiled: each product hands its gradient to its weight.

    Saves and measure: as for the other gradient.
    """
    dw = np.zeros((*kernel_size, x.shape[3]))
    naive_weight_loop(dy, x, dw, stride, pads)
    return dw.astype(x.dtype)


@kernel
def naive_weight_loop(dy: Array, x: Array, dw: Array, stride: Pair, pads: Pads) -> None:
    """dy (N, OH, OW, C), x (N, H, W, C) -> dw (KH, KW, C) float64 that starts at zero."""
    for n in range(dy.shape[0]):
        for oy in range(dy.shape[1]):
            for ox in range(dy.shape[2]):
                for c in range(dy.shape[3]):
                    for ky in range(dw.shape[0]):
                        for kx in range(dw.shape[1]):
                            iy, ix = oy * stride[0] + ky - pads[0], ox * stride[1] + kx - pads[2]
                            if 0 <= iy < x.shape[1] and 0 <= ix < x.shape[2]:
                                dw[ky, kx, c] += dy[n, oy, ox, c] * x[n, iy, ix, c]
