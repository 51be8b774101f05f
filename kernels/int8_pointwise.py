"""8-bit pointwise (1x1) convolution: in NHWC a product of matrices, `int8_gemm`, without a copy.

x (..., Cin) uint8 codes, the rest as there, y (..., Cout): all pixels of all images are the rows
of one matrix. The rungs are those of `int8_gemm`, which holds the loops.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from . import int8_gemm
from .checks import Array, ShapeError
from .int8.checks import check_integers
from .ladder import Ladder


def check(
    x: Array, panels: Array, bias: Array, scale: Array, slope: Array, *, zero: int,
    as_float: bool = False,
) -> None:  # fmt: skip
    """Raise unless x is (..., Cin) uint8, panels hold (Cin, Cout), and the rest is (Cout,)."""
    check_integers("x", x, np.uint8)
    if x.ndim < 2 or x.size == 0:
        raise ShapeError(f"x: expected shape (..., Cin) with at least one row, got {x.shape}")
    int8_gemm.check_weights(panels, bias, scale, slope, x.shape[-1], zero, as_float=as_float)


def _on_pixels(product: Callable[..., Array]) -> Callable[..., Array]:
    """Turn a product of matrices into one of an (..., C) array with a matrix."""

    @functools.wraps(product)  # keeps the docstring, the rung's idea
    def run(
        x: Array, panels: Array, bias: Array, scale: Array, slope: Array, *, zero: int,
        as_float: bool = False,
    ) -> Array:  # fmt: skip
        a = x.reshape(-1, x.shape[-1])
        y = product(a, panels, bias, scale, slope, zero=zero, as_float=as_float)
        return y.reshape(*x.shape[:-1], bias.size)

    return run


rungs = {name: _on_pixels(rung) for name, rung in int8_gemm.rungs.items()}

forward = Ladder("int8_pointwise.forward", check=check, **rungs)
