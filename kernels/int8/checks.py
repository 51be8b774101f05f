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


def check_factors(
    bias: Array, scale: Array, slope: Array, channels: int, zero: int, *, as_float: bool = False
) -> None:
    """Raise unless bias, scale and slope have a number per channel, and requantised sums fit."""
    check_integers("bias", bias, np.int32, (channels,))
    check_integers("scale", scale, np.float32, (channels,))
    check_integers("slope", slope, np.float32, (channels,))
    check_zero("zero", zero)
    if not channels:
        return
    steepest = np.abs(scale.astype(np.float64)) * np.maximum(1.0, np.abs(slope))
    limit = np.finfo(np.float32).max / 2.0**31 if as_float else 1.0
    if not steepest.max() < limit:  # so that NaN does not pass
        c = int(np.argmax(np.where(np.isnan(steepest), np.inf, steepest)))
        raise InputError(
            f"channel {c}: expected scale and scale * slope below {limit:.4g} in size, got scale "
            f"{scale[c]} and slope {slope[c]}: one unit of the sum would be more than one code; "
            f"give the output a larger scale"
        )
