"""Dequantisation: codes become the float32 numbers they stand for, x = (code - zero) * scale.

| rung  | the one idea                                   |
|-------|------------------------------------------------|
| naive | one code after the other                       |
| numpy | whole arrays                                   |
| fused | one pass, by vectors, in chunks on all threads |
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .checks import Array
from .int8.checks import check_integers, check_zero
from .jit import chunks, exact, parallel, prange
from .ladder import Ladder
from .memory import empty
from .quantize import GRAIN, check_scale


def check(codes: Array, *, scale: float, zero: int) -> None:
    """Raise unless codes are uint8, scale positive and zero a code."""
    check_integers("codes", codes, np.uint8)
    check_scale(scale)
    check_zero("zero", zero)


def forward_naive(codes: Array, *, scale: float, zero: int) -> Array:
    """Take one code after the other, on one thread."""
    x = empty(codes.shape, np.float32)
    dequantise(codes.reshape(-1), x.reshape(-1), np.float32(scale), zero)
    return x


@exact
def dequantise(codes: Array, x: Array, scale: Any, zero: int) -> None:
    """codes (N,) -> x (N,) float32; scale is float32."""
    for i in range(codes.size):
        x[i] = np.float32(np.int32(codes[i]) - np.int32(zero)) * scale


def forward_numpy(codes: Array, *, scale: float, zero: int) -> Array:
    """Subtract, convert and multiply whole arrays."""
    return (codes.astype(np.int32) - np.int32(zero)).astype(np.float32) * np.float32(scale)


@parallel
def dequantise_loop(codes: Array, x: Array, scale: Any, zero: int, n_chunks: int) -> None:
    """codes (N,) -> x (N,), in chunks."""
    for chunk in prange(n_chunks):
        low, high = chunk * x.size // n_chunks, (chunk + 1) * x.size // n_chunks
        dequantise(codes[low:high], x[low:high], scale, zero)


def forward_fused(codes: Array, *, scale: float, zero: int) -> Array:
    """Do all steps on a vector of codes at a time, on all threads."""
    x = empty(codes.shape, np.float32)
    n_chunks = chunks(codes.size, GRAIN)
    dequantise_loop(codes.reshape(-1), x.reshape(-1), np.float32(scale), zero, n_chunks)
    return x


forward = Ladder(
    "dequantize.forward",
    check=check,
    naive=forward_naive,
    numpy=forward_numpy,
    fused=forward_fused,
)
