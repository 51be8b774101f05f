"""Pointwise (1x1) convolution: in NHWC a matrix product over (pixels, channels), without a copy.

y (..., Cout) = x (..., Cin) @ w (Cin, Cout): all pixels of all images are the rows of one
matrix, so small maps fill BLAS's tiles as well as large ones. The rungs are those of
`gemm`, which holds the loops: forward is its ladder nn, the input gradient nt, the weight
gradient tn.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from . import gemm
from .checks import Array, ShapeError, check_array
from .ladder import Ladder

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
