"""Quantisation: float32 numbers become codes, code = clip(rint(x / scale) + zero, 0, 255).

x (...) float32, scale a positive float32 number, zero from 0 to 255. Infinities become the
smallest and the largest code. A NaN has no code, so it is an error.

| rung  | the one idea                                              |
|-------|-----------------------------------------------------------|
| naive | one number after the other                                |
| numpy | five passes over whole arrays                             |
| fused | one pass, by vectors, in chunks on all threads            |
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .checks import Array, DTypeError, InputError, check_array
from .int8.arithmetic import code_of
from .int8.checks import check_zero
from .jit import chunks, exact, parallel, prange
from .ladder import Ladder
from .memory import empty

GRAIN = 1 << 14  # numbers that make a chunk worth a thread


def check_scale(scale: float) -> None:
    """Raise unless a scale is a positive, finite float32."""
    one = np.float32(scale)
    if not (one >= np.finfo(np.float32).tiny and np.isfinite(one)):
        raise InputError(f"scale: expected a positive, finite float32 number, got {scale}")


def check(x: Array, *, scale: float, zero: int) -> None:
    """Raise unless x is float32, scale positive and zero a code."""
    check_array("x", x)
    if x.dtype != np.float32:
        raise DTypeError(f"x: expected float32, got {x.dtype}")
    check_scale(scale)
    check_zero("zero", zero)


def _refuse(nans: int) -> None:
    if nans:
        raise InputError(f"x: expected numbers, got {nans} NaN, which no code stands for")


def forward_naive(x: Array, *, scale: float, zero: int) -> Array:
    """Take one number after the other, on one thread."""
    y = empty(x.shape, np.uint8)
    _refuse(quantise(x.reshape(-1), y.reshape(-1), np.float32(scale), zero))
    return y


@exact
def quantise(x: Array, y: Array, scale: Any, zero: int) -> int:
    """x (N,) -> y (N,); return how many NaN there were. scale is float32."""
    nans = 0
    for i in range(x.size):
        value = x[i]
        nans += value != value
        y[i] = code_of(np.float32(0) if value != value else value / scale, zero)
    return nans


def forward_numpy(x: Array, *, scale: float, zero: int) -> Array:
    """Divide, round, shift, clip and convert whole arrays."""
    _refuse(int(np.isnan(x).sum()))
    with np.errstate(over="ignore"):
        codes: Array = np.clip(np.rint(x / np.float32(scale)) + zero, 0, 255)
    return codes.astype(np.uint8)


@parallel
def quantise_loop(x: Array, y: Array, scale: Any, zero: int, nans: Array) -> None:
    """x (N,) -> y (N,), in as many chunks as nans (chunks,) has room to count in."""
    for chunk in prange(nans.size):
        low, high = chunk * x.size // nans.size, (chunk + 1) * x.size // nans.size
        nans[chunk] = quantise(x[low:high], y[low:high], scale, zero)


def forward_fused(x: Array, *, scale: float, zero: int) -> Array:
    """Do all steps on a vector of numbers at a time, on all threads."""
    y = empty(x.shape, np.uint8)
    nans = np.zeros(chunks(x.size, GRAIN), np.int64)
    quantise_loop(x.reshape(-1), y.reshape(-1), np.float32(scale), zero, nans)
    _refuse(int(nans.sum()))
    return y


forward = Ladder(
    "quantize.forward",
    check=check,
    naive=forward_naive,
    numpy=forward_numpy,
    fused=forward_fused,
)
