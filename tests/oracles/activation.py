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
