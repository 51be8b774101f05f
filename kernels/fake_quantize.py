"""Fake quantisation: float numbers become those that codes stand for, and stay float.

    y = clip(rint(x / scale), -zero, 255 - zero) * scale

That is `dequantize` of `quantize`, without the bytes between: what training with 8 bits sees (Jacob
et al. 2018, eq. 12). Backward is the straight-through estimator (Bengio et al. 2013,
arXiv:1308.3432): rounding has the derivative 0 almost everywhere, which teaches nothing, so it
counts as 1 where x has a code of its own, and as 0 where x is cut off. `inside` says where.

x (...), y (...), inside (...) uint8; scale a positive float32 number, zero from 0 to 255. NaN stays
NaN and counts as inside.

| rung  | the one idea                                              |
|-------|-----------------------------------------------------------|
| naive | one number after the other                                |
| numpy | whole arrays, five passes                                 |
| fused | one pass, by vectors, in chunks on all threads            |
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .checks import Array, check_array
from .int8.checks import check_integers, check_zero
from .jit import chunks, exact, parallel, prange
from .ladder import Ladder
from .memory import empty, empty_like
from .quantize import GRAIN, check_scale


def _check_forward(x: Array, *, scale: float, zero: int) -> None:
    check_array("x", x)
    check_scale(scale)
    check_zero("zero", zero)


def _check_backward(dy: Array, inside: Array) -> None:
    check_array("dy", dy)
    check_integers("inside", inside, np.uint8, dy.shape)


def _ends(x: Array, scale: float, zero: int) -> tuple[Any, Any, Any]:
    """Return the scale, and the first and last code less the zero point, as x's kind of float."""
    number = x.dtype.type
    return number(np.float32(scale)), number(-zero), number(255 - zero)


def forward_naive(x: Array, *, scale: float, zero: int) -> tuple[Array, Array]:
    """Take one number after the other, on one thread."""
    y, inside = empty_like(x), empty(x.shape, np.uint8)
    round_off(x.reshape(-1), y.reshape(-1), inside.reshape(-1), *_ends(x, scale, zero))
    return y, inside


@exact
def round_off(x: Array, y: Array, inside: Array, scale: Any, low: Any, high: Any) -> None:
    """x (size,) -> y and inside (size,); scale and ends have the type of x."""
    for i in range(x.size):
        code = np.rint(x[i] / scale)
        kept = low if code < low else code
        kept = high if kept > high else kept
        y[i] = kept * scale
        inside[i] = 0 if code < low or code > high else 1


def backward_naive(dy: Array, inside: Array) -> Array:
    """Take one number after the other, on one thread."""
    dx = empty_like(dy)
    pass_on(dy.reshape(-1), inside.reshape(-1), dx.reshape(-1), dy.dtype.type(0))
    return dx


@exact
def pass_on(dy: Array, inside: Array, dx: Array, nothing: Any) -> None:
    """dy, inside (size,) -> dx (size,); `nothing` is a zero of dy's type."""
    for i in range(dy.size):
        dx[i] = dy[i] if inside[i] else nothing


def forward_numpy(x: Array, *, scale: float, zero: int) -> tuple[Array, Array]:
    """Divide, round, clip, multiply and compare whole arrays."""
    one, low, high = _ends(x, scale, zero)
    with np.errstate(over="ignore"):
        codes = np.rint(x / one)
    inside = ~((codes < low) | (codes > high))
    return np.clip(codes, low, high) * one, inside.astype(np.uint8)


def backward_numpy(dy: Array, inside: Array) -> Array:
    """Choose whole arrays."""
    return np.where(inside, dy, dy.dtype.type(0))


@parallel
def fused_forward_loop(
    x: Array, y: Array, inside: Array, scale: Any, low: Any, high: Any, n_chunks: int
) -> None:
    """x (size,) -> y and inside (size,), in chunks."""
    for chunk in prange(n_chunks):
        part = slice(chunk * x.size // n_chunks, (chunk + 1) * x.size // n_chunks)
        round_off(x[part], y[part], inside[part], scale, low, high)


def forward_fused(x: Array, *, scale: float, zero: int) -> tuple[Array, Array]:
    """Do all steps on a vector of numbers at a time, on all threads."""
    y, inside = empty_like(x), empty(x.shape, np.uint8)
    fused_forward_loop(
        x.reshape(-1), y.reshape(-1), inside.reshape(-1), *_ends(x, scale, zero),
        chunks(x.size, GRAIN),
    )  # fmt: skip
    return y, inside


@parallel
def fused_backward_loop(dy: Array, inside: Array, dx: Array, nothing: Any, n_chunks: int) -> None:
    """dy, inside (size,) -> dx (size,), in chunks."""
    for chunk in prange(n_chunks):
        part = slice(chunk * dy.size // n_chunks, (chunk + 1) * dy.size // n_chunks)
        pass_on(dy[part], inside[part], dx[part], nothing)


def backward_fused(dy: Array, inside: Array) -> Array:
    """Choose a vector of numbers at a time, on all threads."""
    dx = empty_like(dy)
    fused_backward_loop(
        dy.reshape(-1), inside.reshape(-1), dx.reshape(-1), dy.dtype.type(0),
        chunks(dy.size, GRAIN),
    )  # fmt: skip
    return dx


forward = Ladder(
    "fake_quantize.forward",
    check=_check_forward,
    naive=forward_naive,
    numpy=forward_numpy,
    fused=forward_fused,
)
backward = Ladder(
    "fake_quantize.backward",
    check=_check_backward,
    naive=backward_naive,
    numpy=backward_numpy,
    fused=backward_fused,
)
