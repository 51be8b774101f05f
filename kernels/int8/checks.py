"""What the 8-bit ladders refuse: integers of the wrong kind, and factors that leave float32."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..checks import Array, DTypeError, InputError, LayoutError, ShapeError, describe


def check_integers(
    name: str, a: Array, dtype: Any, shape: tuple[int | str, ...] | None = None
) -> None:
    """Raise unless `a` is a C-contiguous array of that dtype and shape; a str names any size."""
    if not isinstance(a, np.ndarray):
        raise DTypeError(f"{name}: expected an ndarray, got {describe(a)}")
    if a.dtype != dtype:
        raise DTypeError(f"{name}: expected {np.dtype(dtype)}, got {a.dtype}")
    if shape is not None:
        fits = a.ndim == len(shape) and all(
            isinstance(want, str) or want == have for want, have in zip(shape, a.shape, strict=True)
        )
        if not fits:
            raise ShapeError(f"{name}: expected shape {shape}, got {a.shape}".replace("'", ""))
    if not a.flags.c_contiguous or not a.flags.aligned:
        raise LayoutError(
            f"{name}: expected a C-contiguous, aligned array, got strides {a.strides} for shape "
            f"{a.shape}; use np.ascontiguousarray({name})"
        )


def check_zero(name: str, zero: int) -> None:
    """Raise unless a zero point is a code."""
    if not 0 <= zero <= 255:
        raise InputError(f"{name}: expected a zero point from 0 to 255, got {zero}")


def check_factors(bias: Array, scale: Array, slope: Array, channels: int, zero: int) -> None:
    """Raise unless bias, scale and slope have a number per channel, and no sum leaves float32."""
    check_integers("bias", bias, np.int32, (channels,))
    check_integers("scale", scale, np.float32, (channels,))
    check_integers("slope", slope, np.float32, (channels,))
    check_zero("zero", zero)
    largest = 2.0**31 * np.abs(scale.astype(np.float64)) * np.maximum(1.0, np.abs(slope))
    if channels and not largest.max() < np.finfo(np.float32).max:
        raise InputError(
            "scale, slope: expected finite factors that keep a sum of 32 bits inside float32, "
            f"got scales from {scale.min()} to {scale.max()} and slopes from {slope.min()} to "
            f"{slope.max()}"
        )
