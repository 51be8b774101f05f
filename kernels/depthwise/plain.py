"""Depthwise convolution, checks and the rungs to compare with: python, numpy and naive."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..checks import Array, ShapeError, check_array
from ..jit import kernel
from ..memory import empty, empty_like
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
    """Plain loops, run by Python itself: a full convolution's seven, less the one over Cin.

    Saves: nothing; this is the definition. Measure: time per product. Python spends it on
    finding out, again for each, what `*` means for these two objects.
    """
    y = new_output(x, w, stride, pads)
    plain_python(naive_forward_loop)(x, w, y, stride, pads)
    return y


def backward_python(
    dy: Array, x: Array, w: Array, *, stride: Pair = (1, 1), pads: Pads = (0, 0, 0, 0)
) -> tuple[Array, Array]:
    """The same loops, run by Python itself: a product hands its gradient to both factors.

    Saves: nothing. Measure: twice the products of forward, so twice the time.
    """
    dx, dw = np.zeros_like(x), np.zeros(w.shape)
    plain_python(naive_backward_loop)(dy, x, w, dx, dw, stride, pads)
    return dx, dw.astype(w.dtype)


# --- numpy ----------------------------------------------------------------------------


def forward_numpy(x: Array, w: Array, *, stride: Pair = (1, 1), pads: Pads = (0, 0, 0, 0)) -> Array:
    """Add up one shifted slice of the padded input per tap: nine expressions for all products.

    Saves: Python's work per product, now once per tap. Measure: GB/s. Each tap goes through
    all of x and y, three times over, so memory is the limit.
    """
    y = new_output(x, w, stride, pads)
    y.fill(0)
    padded, size = zero_padded(x, pads), (y.shape[1], y.shape[2])
    for ky, kx in np.ndindex(*w.shape[:2]):
        y += shifted(padded, ky, kx, stride, size) * w[ky, kx]
    return y


def backward_numpy(
    dy: Array, x: Array, w: Array, *, stride: Pair = (1, 1), pads: Pads = (0, 0, 0, 0)
) -> tuple[Array, Array]:
    """Two whole-array expressions per tap, on the slices of the forward pass.

    Saves: as forward. Measure: GB/s, and how much memory the products take before they are
    summed: an array of the size of dy per tap.
    """
    padded, dw, size = zero_padded(x, pads), empty_like(w), (dy.shape[1], dy.shape[2])
    dpadded = np.zeros_like(padded)
    for ky, kx in np.ndindex(*w.shape[:2]):
        seen = shifted(padded, ky, kx, stride, size)
        dw[ky, kx] = (seen * dy).sum((0, 1, 2), dtype=np.float64)
        shifted(dpadded, ky, kx, stride, size)[...] += dy * w[ky, kx]
    top, _, left, _ = pads
    dx = dpadded[:, top : top + x.shape[1], left : left + x.shape[2]]
    return np.ascontiguousarray(dx), dw


# --- naive ----------------------------------------------------------------------------


def forward_naive(x: Array, w: Array, *, stride: Pair = (1, 1), pads: Pads = (0, 0, 0, 0)) -> Array:
    """Compile the plain loops: six of them and a bounds test, as machine code.

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


def backward_naive(
    dy: Array, x: Array, w: Array, *, stride: Pair = (1, 1), pads: Pads = (0, 0, 0, 0)
) -> tuple[Array, Array]:
    """Compile the same loops: each product hands its gradient to both factors.

    Saves: as forward. Measure: against forward; the gradients are added to memory one by one.
    """
    dx, dw = np.zeros_like(x), np.zeros(w.shape)
    naive_backward_loop(dy, x, w, dx, dw, stride, pads)
    return dx, dw.astype(w.dtype)


@kernel
def naive_backward_loop(
    dy: Array, x: Array, w: Array, dx: Array, dw: Array, stride: Pair, pads: Pads
) -> None:
    """dy (N, OH, OW, C), x, w -> dx (N, H, W, C), dw (KH, KW, C) float64; both start at zero."""
    for n in range(dy.shape[0]):
        for oy in range(dy.shape[1]):
            for ox in range(dy.shape[2]):
                for c in range(dy.shape[3]):
                    for ky in range(w.shape[0]):
                        for kx in range(w.shape[1]):
                            iy, ix = oy * stride[0] + ky - pads[0], ox * stride[1] + kx - pads[2]
                            if 0 <= iy < x.shape[1] and 0 <= ix < x.shape[2]:
                                dx[n, iy, ix, c] += dy[n, oy, ox, c] * w[ky, kx, c]
                                dw[ky, kx, c] += dy[n, oy, ox, c] * x[n, iy, ix, c]
