"""Pointwise (1x1) convolution: in NHWC a matrix product over (pixels, channels), without a copy.

y (..., Cout) = x (..., Cin) @ w (Cin, Cout): all pixels of all images are the rows of one
matrix, so small maps fill BLAS's tiles as well as large ones. The rungs are those of
`gemm`, which holds the loops: forward is its ladder nn, the input gradient nt, the weight
gradient tn.

Two ladders go on with y while it is in registers:

| ladder             | result                                                                 |
|--------------------|------------------------------------------------------------------------|
| forward_bias_prelu | prelu(y + bias), as at inference with batch norm folded into w         |
| forward_moments    | y, its mean and its biased variance per channel, as batch norm trains  |

Their rungs naive and numpy are those of the ops, one after the other; the rung simd saves the
passes over y (`gemm.epilogue`): nothing left of the first, a quarter to a half of the second.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from . import batchnorm, bias, gemm, prelu
from .checks import Array, ShapeError, check_array
from .gemm import epilogue
from .ladder import Ladder, rung_of

Product = Callable[[Array, Array], Array]


def _check_weight(w: Array, like: Array) -> None:
    check_array("w", w, ("Cin", "Cout"), like=like)


def _check_rows(name: str, x: Array, channels: int) -> None:
    if x.ndim < 2 or x.shape[-1] != channels:
        raise ShapeError(f"{name}: expected shape (..., {channels}), got {x.shape}")
    if x.size == 0:
        raise ShapeError(f"{name}: expected at least one row, got shape {x.shape}")


def check_forward(x: Array, w: Array) -> None:
    """Raise unless x is (..., Cin) and w is (Cin, Cout)."""
    check_array("x", x)
    _check_weight(w, x)
    _check_rows("x", x, w.shape[0])


def check_forward_bias_prelu(x: Array, w: Array, b: Array, slope: Array) -> None:
    """Raise unless x is (..., Cin), w is (Cin, Cout), and b and slope are (Cout,)."""
    check_forward(x, w)
    check_array("b", b, (w.shape[1],), like=x)
    check_array("slope", slope, (w.shape[1],), like=x)


def check_backward_input(dy: Array, w: Array) -> None:
    """Raise unless dy is (..., Cout) and w is (Cin, Cout)."""
    check_array("dy", dy)
    _check_weight(w, dy)
    _check_rows("dy", dy, w.shape[1])


def check_backward_weight(dy: Array, x: Array) -> None:
    """Raise unless dy is (..., Cout) and x is (..., Cin) with the same rows."""
    check_array("x", x)
    _check_rows("x", x, x.shape[-1] if x.ndim else 0)
    check_array("dy", dy, (*x.shape[:-1], "Cout"), like=x)


def _rows(x: Array) -> Array:
    return x.reshape(-1, x.shape[-1])


def _on_pixels(product: Product) -> Product:
    """Turn a product of matrices into one of (..., C) arrays with a matrix."""

    @functools.wraps(product)  # keeps the docstring, the rung's idea
    def run(x: Array, w: Array) -> Array:
        y = product(_rows(x), w)
        return y.reshape(*x.shape[:-1], y.shape[-1])

    return run


def _over_pixels(product: Product) -> Product:
    """Turn a product of matrices into one that sums over the pixels of two (..., C) arrays."""

    @functools.wraps(product)
    def run(dy: Array, x: Array) -> Array:
        return product(_rows(x), _rows(dy))

    return run


def _bias_prelu_in_turn(rung: str | None, x: Array, w: Array, b: Array, slope: Array) -> Array:
    y = rung_of(forward, rung)(x, w)
    return rung_of(prelu.forward, rung)(rung_of(bias.forward, rung)(y, b), slope)


def forward_bias_prelu_naive(x: Array, w: Array, b: Array, slope: Array) -> Array:
    """Multiply, add, activate: y is written three times."""
    return _bias_prelu_in_turn("naive", x, w, b, slope)


def forward_bias_prelu_numpy(x: Array, w: Array, b: Array, slope: Array) -> Array:
    """The same in whole-array expressions."""
    return _bias_prelu_in_turn("numpy", x, w, b, slope)


def forward_bias_prelu_simd(x: Array, w: Array, b: Array, slope: Array) -> Array:
    """Add and activate before a tile leaves the registers; float64 runs one op after the other."""
    if x.dtype != np.float32:
        return _bias_prelu_in_turn(None, x, w, b, slope)
    return epilogue.nn_activate(_rows(x), w, b, slope).reshape(*x.shape[:-1], -1)


def _moments_in_turn(rung: str | None, x: Array, w: Array) -> tuple[Array, Array, Array]:
    y = rung_of(forward, rung)(x, w)
    one, zero = np.ones(w.shape[1], x.dtype), np.zeros(w.shape[1], x.dtype)
    return y, *rung_of(batchnorm.forward, rung)(y, one, zero, eps=1.0)[1:]


def forward_moments_naive(x: Array, w: Array) -> tuple[Array, Array, Array]:
    """Multiply, then look at y twice more: for the mean, and for the deviations from it."""
    return _moments_in_turn("naive", x, w)


def forward_moments_numpy(x: Array, w: Array) -> tuple[Array, Array, Array]:
    """The same in whole-array expressions, statistics in float64."""
    return _moments_in_turn("numpy", x, w)


@batchnorm.quiet
def forward_moments_simd(x: Array, w: Array) -> tuple[Array, Array, Array]:
    """Sum up a tile before it leaves the registers; float64 runs one op after the other."""
    if x.dtype != np.float32:
        return _moments_in_turn(None, x, w)
    y, mean, var = epilogue.nn_moments(_rows(x), w)
    return y.reshape(*x.shape[:-1], -1), mean.astype(x.dtype), var.astype(x.dtype)


forward_rungs = {name: _on_pixels(rung) for name, rung in gemm.nn.rungs.items()}
backward_input_rungs = {name: _on_pixels(rung) for name, rung in gemm.nt.rungs.items()}
backward_weight_rungs = {name: _over_pixels(rung) for name, rung in gemm.tn.rungs.items()}

forward = Ladder("pointwise.forward", check=check_forward, **forward_rungs)
backward_input = Ladder(
    "pointwise.backward_input", check=check_backward_input, **backward_input_rungs
)
backward_weight = Ladder(
    "pointwise.backward_weight", check=check_backward_weight, **backward_weight_rungs
)
forward_bias_prelu = Ladder(
    "pointwise.forward_bias_prelu",
    check=check_forward_bias_prelu,
    naive=forward_bias_prelu_naive,
    numpy=forward_bias_prelu_numpy,
    simd=forward_bias_prelu_simd,
)
forward_moments = Ladder(
    "pointwise.forward_moments",
    check=check_forward,
    naive=forward_moments_naive,
    numpy=forward_moments_numpy,
    simd=forward_moments_simd,
)
