"""Ops without a kernel of their own: NumPy arithmetic with broadcasting, and moving axes.

`Tensor`'s operators and methods call these; `concat` and `pad` are called by name.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from minidnn.errors import DTypeError, ShapeError
from minidnn.tensor import Array, Axis, Backward, Tensor, op

__all__ = ["concat", "pad"]


def _same_dtype(a: Array, b: Array) -> None:
    if a.dtype != b.dtype:
        raise DTypeError(f"expected two tensors of one dtype, got {a.dtype} and {b.dtype}")
    try:
        np.broadcast_shapes(a.shape, b.shape)
    except ValueError:
        raise ShapeError(f"expected shapes that broadcast, got {a.shape} and {b.shape}") from None


def _unbroadcast(grad: Array, shape: tuple[int, ...]) -> Array:
    """Sum over the axes along which an operand of `shape` was repeated."""
    if grad.shape == shape:
        return grad
    grad = grad.sum(axis=tuple(range(grad.ndim - len(shape))))
    repeated = tuple(i for i, size in enumerate(shape) if size == 1 and grad.shape[i] != 1)
    return np.asarray(grad.sum(axis=repeated, keepdims=True) if repeated else grad)


@op
def add(a: Array, b: Array) -> tuple[Array, Backward]:
    """A + b."""
    _same_dtype(a, b)
    return a + b, (lambda dy: _unbroadcast(dy, a.shape), lambda dy: _unbroadcast(dy, b.shape))


@op
def sub(a: Array, b: Array) -> tuple[Array, Backward]:
    """A - b."""
    _same_dtype(a, b)
    return a - b, (lambda dy: _unbroadcast(dy, a.shape), lambda dy: _unbroadcast(-dy, b.shape))


@op
def mul(a: Array, b: Array) -> tuple[Array, Backward]:
    """A * b, element by element."""
    _same_dtype(a, b)
    return a * b, (
        lambda dy: _unbroadcast(dy * b, a.shape),
        lambda dy: _unbroadcast(dy * a, b.shape),
    )


@op
def div(a: Array, b: Array) -> tuple[Array, Backward]:
    """A / b, element by element."""
    _same_dtype(a, b)
    y = a / b
    return y, (
        lambda dy: _unbroadcast(dy / b, a.shape),
        lambda dy: _unbroadcast(-dy * y / b, b.shape),
    )


@op
def neg(x: Array) -> tuple[Array, Backward]:
    """-x."""
    return -x, lambda dy: -dy


@op
def power(x: Array, *, exponent: float) -> tuple[Array, Backward]:
    """x to a fixed power."""
    p = x.dtype.type(exponent)
    return x**p, lambda dy: dy * p * x ** (p - x.dtype.type(1))


@op
def exp(x: Array) -> tuple[Array, Backward]:
    """e**x."""
    y = np.exp(x)
    return y, lambda dy: dy * y


@op
def log(x: Array) -> tuple[Array, Backward]:
    """Natural logarithm."""
    return np.log(x), lambda dy: dy / x


@op(macs=lambda y, a, b: y.size * a.shape[-1])
def matmul(a: Array, b: Array) -> tuple[Array, Backward]:
    """A @ b for matrices, (M, K) @ (K, N) -> (M, N); layers use the faster `linear` op."""
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[0]:
        raise ShapeError(f"@: expected shapes (M, K) and (K, N), got {a.shape} and {b.shape}")
    if a.dtype != b.dtype:
        raise DTypeError(f"@: expected one dtype, got {a.dtype} and {b.dtype}")
    return a @ b, (lambda dy: dy @ b.T, lambda dy: a.T @ dy)


def _spread(dy: Array, axis: Axis, keepdims: bool, shape: tuple[int, ...]) -> Array:
    """Repeat a reduced gradient along the axes that were summed away."""
    if axis is not None and not keepdims:
        dy = np.expand_dims(dy, axis)
    return np.broadcast_to(dy, shape).copy()


@op
def sum_(x: Array, *, axis: Axis, keepdims: bool) -> tuple[Array, Backward]:
    """Sum over axes."""
    y = np.asarray(x.sum(axis=axis, keepdims=keepdims))
    return y, lambda dy: _spread(dy, axis, keepdims, x.shape)


@op
def mean(x: Array, *, axis: Axis, keepdims: bool) -> tuple[Array, Backward]:
    """Average over axes."""
    if x.size == 0:
        raise ShapeError(f"mean: expected at least one value, got shape {x.shape}")
    y = np.asarray(x.mean(axis=axis, keepdims=keepdims))
    share = x.dtype.type(y.size / x.size)
    return y, lambda dy: _spread(dy * share, axis, keepdims, x.shape)


@op
def max_(x: Array, *, axis: Axis, keepdims: bool) -> tuple[Array, Backward]:
    """Maximum over axes; equal maxima share the gradient, as in PyTorch's amax."""
    kept = x.max(axis=axis, keepdims=True)
    y = np.asarray(kept if keepdims else x.max(axis=axis))

    def backward(dy: Array) -> Array:
        here = (x == kept).astype(x.dtype)
        share = here / here.sum(axis=axis, keepdims=True)
        return np.asarray(_spread(dy, axis, keepdims, x.shape) * share)

    return y, backward


@op
def reshape(x: Array, *, shape: tuple[int, ...]) -> tuple[Array, Backward]:
    """Same values, other shape."""
    try:
        y = x.reshape(shape)
    except ValueError:
        raise ShapeError(
            f"reshape: {x.size} values of shape {x.shape} do not fit {shape}"
        ) from None
    return y, lambda dy: dy.reshape(x.shape)


@op
def transpose(x: Array, *, axes: tuple[int, ...]) -> tuple[Array, Backward]:
    """Axes in another order, made contiguous."""
    if sorted(axis % max(1, x.ndim) for axis in axes) != list(range(x.ndim)):
        raise ShapeError(f"transpose: expected each of {x.ndim} axes once, got {axes}")
    back = np.argsort([axis % x.ndim for axis in axes])  # -1 is the last axis, not the first
    return np.ascontiguousarray(x.transpose(axes)), lambda dy: np.ascontiguousarray(
        dy.transpose(back)
    )


@op
def getitem(x: Array, *, index: Any) -> tuple[Array, Backward]:
    """x[index] with NumPy's meaning; an index list may name an element twice."""
    y = np.ascontiguousarray(x[index])

    def backward(dy: Array) -> Array:
        dx = np.zeros_like(x)
        np.add.at(dx, index, dy)
        return dx

    return y.reshape(np.shape(x[index])), backward


@op
def _concat(*parts: Array, axis: int) -> tuple[Array, Backward]:
    ends = np.cumsum([part.shape[axis] for part in parts])[:-1]

    def backward(dy: Array) -> tuple[Array, ...]:
        return tuple(np.ascontiguousarray(piece) for piece in np.split(dy, ends, axis=axis))

    return np.concatenate(parts, axis=axis), backward


def concat(tensors: Sequence[Tensor | Array], axis: int = -1) -> Tensor:
    """Join tensors along an axis; the default is the channels of NHWC.

    Parameters
    ----------
    tensors : sequence of Tensor
        Equal in shape but for `axis`, and in dtype.
    axis : int

    Raises
    ------
    ShapeError, DTypeError
    """
    shapes = [np.shape(t.data if isinstance(t, Tensor) else t) for t in tensors]
    if len({t.dtype for t in tensors}) > 1:
        raise DTypeError(f"concat: expected one dtype, got {[str(t.dtype) for t in tensors]}")
    others = {tuple(np.delete(shape, axis)) for shape in shapes if -len(shape) <= axis < len(shape)}
    if not shapes or len(others) != 1:
        raise ShapeError(
            f"concat: expected shapes that differ along axis {axis} only, got {shapes}"
        )
    out: Tensor = _concat(*tensors, axis=axis)
    return out


@op
def _pad(x: Array, *, widths: tuple[tuple[int, int], ...]) -> tuple[Array, Backward]:
    inside = tuple(slice(low, low + size) for (low, _), size in zip(widths, x.shape, strict=True))
    return np.pad(x, widths), lambda dy: np.ascontiguousarray(dy[inside])


def pad(x: Tensor, widths: Sequence[tuple[int, int]]) -> Tensor:
    """Surround with zeros: ``widths`` holds (before, after) for every axis, as in `numpy.pad`."""
    pairs = tuple((int(before), int(after)) for before, after in widths)
    if len(pairs) != x.ndim or math.prod(w + 1 > 0 for pair in pairs for w in pair) == 0:
        raise ShapeError(f"pad: expected {x.ndim} pairs of widths >= 0, got {widths}")
    out: Tensor = _pad(x, widths=pairs)
    return out
