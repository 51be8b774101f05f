"""Activations."""

from __future__ import annotations

from typing import Any

import numpy as np


def prelu(x: Any, slope: Any) -> Any:
    """max(0, x) + slope * min(0, x), the form of the QuickNet paper."""
    return np.maximum(x, 0) + slope * np.minimum(x, 0)


def prelu_backward(dy: Any, x: Any, slope: Any) -> Any:
    """Derivatives of `prelu`, the slope's summed over the axes it was repeated along."""
    dx = dy * ((x > 0) + (x <= 0) * slope)
    each = dy * np.minimum(x, 0)
    if slope.shape == (1,):
        return dx, each.sum(keepdims=True).reshape(1)
    axes = tuple(range(x.ndim - slope.ndim))
    return dx, each.sum(axis=axes)


def relu(x: Any) -> Any:
    """The positive part, as half of x plus its magnitude."""
    return (x + np.abs(x)) / 2


def relu_backward(dy: Any, x: Any) -> Any:
    """Heaviside's step, zero at zero."""
    return dy * np.heaviside(x, 0)


def leaky_relu(x: Any, *, slope: float) -> Any:
    """The larger of x and slope * x, for slopes below one."""
    return np.maximum(x, slope * x)


def leaky_relu_backward(dy: Any, x: Any, *, slope: float) -> Any:
    """One or the slope; the slope at zero."""
    return dy * (slope + (1 - slope) * np.heaviside(x, 0))
