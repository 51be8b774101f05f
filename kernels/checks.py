"""Errors about arrays, and the few checks every kernel shares.

The classes live here because `minidnn` builds its own errors on them while the
kernels must not know `minidnn`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


class InputError(ValueError):
    """Bad input.

    Attributes
    ----------
    origin : object or None
        The layer that met it.
    where : str
        That layer's path in the model, once known.
    """

    origin: object | None = None
    where: str = ""

    def __str__(self) -> str:
        text = super().__str__()
        return f"{self.where}: {text}" if self.where else text


class ShapeError(InputError):
    """An array has the wrong number of axes or sizes."""


class DTypeError(InputError, TypeError):
    """An array has the wrong element type, or two arrays differ in it."""


class LayoutError(InputError):
    """An array is not C-contiguous, or not aligned; the kernels never copy silently."""


def describe(a: object) -> str:
    """Return 'ndarray of shape (2, 3) float32', or what else the object is."""
    if isinstance(a, np.ndarray):
        return f"ndarray of shape {a.shape} {a.dtype}"
    return f"{type(a).__name__} {a!r:.60}"


def check_array(
    name: str,
    a: Array,
    shape: tuple[int | str, ...] | None = None,
    *,
    like: Array | None = None,
) -> None:
    """Raise unless `a` is a C-contiguous, aligned float array of the given shape.

    Parameters
    ----------
    name : str
        The argument's name, for the message.
    a : ndarray
        The array to check.
    shape : tuple of int or str, optional
        An int must match exactly; a str only names an axis of any size.
    like : ndarray, optional
        An array whose dtype `a` must share.

    Raises
    ------
    ShapeError, DTypeError, LayoutError
    """
    if not isinstance(a, np.ndarray):
        raise DTypeError(f"{name}: expected an ndarray, got {describe(a)}")
    if a.dtype not in FLOATS:
        raise DTypeError(
            f"{name}: expected float32 (or float64 for gradient checks), got {a.dtype}; "
            f"convert it yourself, e.g. {name}.astype(np.float32)"
        )
    if like is not None and a.dtype != like.dtype:
        raise DTypeError(f"{name}: expected {like.dtype} like its input, got {a.dtype}")
    if shape is not None:
        fits = a.ndim == len(shape) and all(
            isinstance(want, str) or want == have for want, have in zip(shape, a.shape, strict=True)
        )
        if not fits:
            wanted = "(" + ", ".join(str(s) for s in shape) + ("," if len(shape) == 1 else "") + ")"
            raise ShapeError(f"{name}: expected shape {wanted}, got {a.shape}")
    if not a.flags.c_contiguous:
        raise LayoutError(
            f"{name}: expected a C-contiguous array, got strides {a.strides} "
            f"for shape {a.shape}; use np.ascontiguousarray({name})"
        )
    if not a.flags.aligned:
        raise LayoutError(
            f"{name}: expected an array aligned to its numbers of {a.itemsize} bytes, "
            f"got one at address {a.ctypes.data:#x}; use {name}.copy()"
        )
