"""Products with a matrix, and the bias."""

from __future__ import annotations

from typing import Any

import numpy as np


def nn(a: Any, b: Any) -> Any:
    """Rows of a against columns of b."""
    return np.einsum("ik,kj->ij", a, b)


def nt(a: Any, b: Any) -> Any:
    """Rows of a against rows of b."""
    return np.einsum("ik,jk->ij", a, b)


def tn(a: Any, b: Any) -> Any:
    """Columns of a against columns of b."""
    return np.einsum("ki,kj->ij", a, b)


def matrix(x: Any, w: Any) -> Any:
    """The last axis of x against the first of w."""
    return np.einsum("...k,kj->...j", x, w)


def matrix_backward_input(dy: Any, w: Any) -> Any:
    """The last axis of dy against the last of w."""
    return np.einsum("...j,kj->...k", dy, w)


def matrix_backward_weight(dy: Any, x: Any) -> Any:
    """All leading axes of both are summed over."""
    return np.tensordot(x, dy, (range(x.ndim - 1), range(x.ndim - 1)))


def bias(x: Any, b: Any) -> Any:
    """Each channel is moved by its own number."""
    return x + b.reshape((1,) * (x.ndim - 1) + (-1,))


def bias_backward(dy: Any) -> Any:
    """All axes but the channels are summed over."""
    return dy.sum(axis=tuple(range(dy.ndim - 1)))


def bias_prelu(x: Any, w: Any, b: Any, slope: Any) -> Any:
    """What is not positive after the bias is multiplied by its channel's slope."""
    y = bias(matrix(x, w), b)
    return np.maximum(y, 0) + slope * np.minimum(y, 0)


def moments(x: Any, w: Any) -> Any:
    """The product, and over its rows the mean and the mean squared deviation."""
    y = matrix(x, w)
    rows = y.reshape(-1, y.shape[-1])
    return y, rows.mean(axis=0), np.square(rows - rows.mean(axis=0)).mean(axis=0)
