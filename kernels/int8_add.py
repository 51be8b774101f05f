"""8-bit addition: two maps of codes that meet, with an activation, as in residual networks.

x, other (..., C) uint8 codes with zero points `zero_in` and `zero_other`, slope (C,) float32::

    y = float32(x - zero_in) * scale + float32(other - zero_other) * scale_other
    y = y if y > 0 else y * slope[c]          # slope 1: no activation
    code = clip(rint(y) + zero, 0, 255)

`scale` = scale of x / scale of y and `scale_other` = scale of other / scale of y are float32
numbers. Every operation is rounded to float32 by itself: two products, one sum.

| rung  | the one idea                                             |
|-------|----------------------------------------------------------|
| naive | one code after the other                                 |
| numpy | ten passes over whole arrays                             |
| fused | one pass, by vectors of codes, in chunks on all threads  |
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .checks import Array, InputError, ShapeError
from .int8.arithmetic import code_of
from .int8.checks import check_integers, check_zero
from .jit import chunks, exact, parallel, prange
from .ladder import Ladder
from .memory import empty
from .quantize import check_scale

GRAIN = 1 << 15  # codes of a map that make a chunk worth a thread


def check(
    x: Array, other: Array, slope: Array, *, scale: float, scale_other: float, zero_in: int,
    zero_other: int, zero: int,
) -> None:  # fmt: skip
    """Raise unless both are codes of one shape, slope is (C,), and no sum leaves float32."""
    check_integers("x", x, np.uint8)
    if x.ndim < 1:
        raise ShapeError(f"x: expected shape (..., C), got {x.shape}")
    check_integers("other", other, np.uint8, x.shape)
    check_integers("slope", slope, np.float32, x.shape[-1:])
    check_scale(scale)
    check_scale(scale_other)
    for name, code in (("zero_in", zero_in), ("zero_other", zero_other), ("zero", zero)):
        check_zero(name, code)
    # As floats of Python, which do not warn; not "above", so that NaN does not pass.
    steepest = float(np.abs(slope).max(initial=1))
    largest = 256 * (float(scale) + float(scale_other)) * steepest
    if not largest < float(np.finfo(np.float32).max):
        raise InputError(
            f"expected scales and slopes whose products fit float32, got scales {scale} and "
            f"{scale_other}, and a slope of {steepest}"
        )


def forward_naive(
    x: Array, other: Array, slope: Array, *, scale: float, scale_other: float, zero_in: int,
    zero_other: int, zero: int,
) -> Array:  # fmt: skip
    """Take one code after the other, channel after channel, which jumps through memory."""
    y = empty(x.shape, np.uint8)
    naive_loop(
        x.reshape(-1), other.reshape(-1), y.reshape(-1), slope, np.float32(scale),
        np.float32(scale_other), zero_in, zero_other, zero,
    )  # fmt: skip
    return y


@exact
def naive_loop(
    x: Array, other: Array, y: Array, slope: Array, scale: Any, scale_other: Any, zero_in: int,
    zero_other: int, zero: int,
) -> None:  # fmt: skip
    """x, other (pixels * C,) -> y the same."""
    for c in range(slope.size):
        for i in range(c, x.size, slope.size):
            real = joined(x[i], other[i], slope[c], scale, scale_other, zero_in, zero_other)
            y[i] = code_of(real, zero)


@exact
def joined(
    x: Any, other: Any, slope: Any, scale: Any, scale_other: Any, zero_in: int, zero_other: int
) -> Any:
    """Return the activated sum of two codes, in units of the output's scale."""
    first = np.float32(np.int32(x) - np.int32(zero_in)) * scale
    y = first + np.float32(np.int32(other) - np.int32(zero_other)) * scale_other
    return y if y > 0 else y * slope


def forward_numpy(
    x: Array, other: Array, slope: Array, *, scale: float, scale_other: float, zero_in: int,
    zero_other: int, zero: int,
) -> Array:  # fmt: skip
    """Shift, convert, multiply, add, activate, round, clip: whole arrays each time."""
    first = (x.astype(np.int32) - np.int32(zero_in)).astype(np.float32) * np.float32(scale)
    second = (other.astype(np.int32) - np.int32(zero_other)).astype(np.float32)
    y = first + second * np.float32(scale_other)
    codes: Array = np.clip(np.rint(np.where(y > 0, y, y * slope)) + zero, 0, 255)
    return codes.astype(np.uint8)


@exact
def add(
    x: Array, other: Array, y: Array, slope: Array, scale: Any, scale_other: Any, zero_in: int,
    zero_other: int, zero: int,
) -> None:  # fmt: skip
    """x, other (pixels * C,) -> y the same, which may be one of them; scales are float32.

    What a plan calls inside its own parallel loop, for whole pixels of any number.
    """
    channels = slope.size
    for start in range(0, x.size, channels):
        stop = start + channels
        seen, more, out = x[start:stop], other[start:stop], y[start:stop]
        for c in range(out.size):
            real = joined(seen[c], more[c], slope[c], scale, scale_other, zero_in, zero_other)
            out[c] = code_of(real, zero)


@parallel
def add_loop(
    x: Array, other: Array, y: Array, slope: Array, scale: Any, scale_other: Any, zero_in: int,
    zero_other: int, zero: int, n_chunks: int,
) -> None:  # fmt: skip
    """Cut the pixels into chunks, and run `add` on each."""
    pixels = x.size // slope.size
    for chunk in prange(n_chunks):
        low = chunk * pixels // n_chunks * slope.size
        high = (chunk + 1) * pixels // n_chunks * slope.size
        add(
            x[low:high], other[low:high], y[low:high], slope, scale, scale_other, zero_in,
            zero_other, zero,
        )  # fmt: skip


def forward_fused(
    x: Array, other: Array, slope: Array, *, scale: float, scale_other: float, zero_in: int,
    zero_other: int, zero: int,
) -> Array:  # fmt: skip
    """Read both maps once and write codes, a vector of channels at a time."""
    y = empty(x.shape, np.uint8)
    if y.size:
        n_chunks = chunks(y.size // slope.size, max(1, GRAIN // slope.size))
        add_loop(
            x.reshape(-1), other.reshape(-1), y.reshape(-1), slope, np.float32(scale),
            np.float32(scale_other), zero_in, zero_other, zero, n_chunks,
        )  # fmt: skip
    return y


forward = Ladder(
    "int8_add.forward",
    check=check,
    naive=forward_naive,
    numpy=forward_numpy,
    fused=forward_fused,
)
