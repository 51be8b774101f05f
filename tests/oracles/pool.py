"""Pooling, window by window, from PyTorch's documentation of the window rules."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from tests.oracles import activation, norm


def windows(
    x_shape: Any, size: Any, stride: Any, pads: Any, ceil_mode: bool
) -> Iterator[tuple[int, int, slice, slice, int, int, int]]:
    """Yield (a, b, rows, columns, first p, first q, size with padding) of every window."""
    _, h, w, _ = x_shape

    def starts(length: int, k: int, step: int, before: int, after: int) -> list[int]:
        rounding = math.ceil if ceil_mode else math.floor
        count = rounding((length + before + after - k) / step) + 1
        found = [i * step - before for i in range(count)]
        return [s for s in found if s < length] if ceil_mode else found

    for a, top in enumerate(starts(h, size[0], stride[0], pads[0], pads[1])):
        for b, left in enumerate(starts(w, size[1], stride[1], pads[2], pads[3])):
            with_pad = (min(top + size[0], h + pads[1]) - top) * (
                min(left + size[1], w + pads[3]) - left
            )
            rows = slice(max(top, 0), min(top + size[0], h))
            columns = slice(max(left, 0), min(left + size[1], w))
            yield a, b, rows, columns, rows.start - top, columns.start - left, with_pad


def _shape(x_shape: Any, found: Any) -> tuple[int, ...]:
    return x_shape[0], found[-1][0] + 1, found[-1][1] + 1, x_shape[3]


def max_pool(x: Any, *, size: Any, stride: Any, pads: Any, ceil_mode: bool) -> Any:
    """Values, and positions p * kw + q in the window as bytes; the first maximum wins."""
    found = list(windows(x.shape, size, stride, pads, ceil_mode))
    y = np.empty(_shape(x.shape, found))
    where = np.empty(y.shape, np.uint8)
    for a, b, rows, columns, p, q, _ in found:
        window = x[:, rows, columns]
        flat = window.reshape(len(x), -1, x.shape[3])
        at = flat.argmax(axis=1)
        y[:, a, b] = flat.max(axis=1)
        where[:, a, b] = (at // window.shape[2] + p) * size[1] + at % window.shape[2] + q
    return y, where


def max_pool_backward(
    dy: Any, argmax: Any, *, x_shape: Any, size: Any, stride: Any, pads: Any, ceil_mode: bool
) -> Any:
    """Each gradient goes to the chosen element."""
    dx = np.zeros(x_shape)
    for (i, a, b, c), where in np.ndenumerate(argmax):
        p, q = divmod(int(where), size[1])
        dx[i, a * stride[0] - pads[0] + p, b * stride[1] - pads[2] + q, c] += dy[i, a, b, c]
    return dx


def activated_max_pool(
    x: Any, gamma: Any, beta: Any, slope: Any, mean: Any, var: Any, *, eps: float, **windows: Any
) -> Any:
    """Batch norm with given statistics, PReLU and max pooling, one after the other."""
    z = norm.inference(x, gamma, beta, mean, var, eps=eps)
    return max_pool(activation.prelu(z, slope), **windows)


def activated_max_pool_backward(
    dy: Any, argmax: Any, x: Any, gamma: Any, beta: Any, slope: Any, mean: Any, var: Any, *,
    eps: float, **windows: Any,
) -> Any:  # fmt: skip
    """One after the other, backwards; the statistics are those of x."""
    da = max_pool_backward(dy, argmax, x_shape=x.shape, **windows)
    z = norm.inference(x, gamma, beta, mean, var, eps=eps)
    dz, dslope = activation.prelu_backward(da, z, slope)
    return *norm.backward(dz, x, gamma, mean, var, eps=eps), dslope


def avg_pool(
    x: Any, *, size: Any, stride: Any, pads: Any, ceil_mode: bool, count_include_pad: bool
) -> Any:
    """Sum of the window over its size, with or without padding."""
    found = list(windows(x.shape, size, stride, pads, ceil_mode))
    y = np.empty(_shape(x.shape, found))
    for a, b, rows, columns, _, _, with_pad in found:
        window = x[:, rows, columns]
        count = with_pad if count_include_pad else window.shape[1] * window.shape[2]
        y[:, a, b] = window.sum(axis=(1, 2)) / count
    return y


def avg_pool_backward(
    dy: Any,
    *,
    x_shape: Any,
    size: Any,
    stride: Any,
    pads: Any,
    ceil_mode: bool,
    count_include_pad: bool,
) -> Any:
    """Each element of a window gets the gradient over the count."""
    dx = np.zeros(x_shape)
    for a, b, rows, columns, _, _, with_pad in windows(x_shape, size, stride, pads, ceil_mode):
        area = dx[:, rows, columns]
        count = with_pad if count_include_pad else area.shape[1] * area.shape[2]
        area += dy[:, a, b][:, None, None] / count
    return dx


def global_avg_pool(x: Any) -> Any:
    """The mean of all pixels."""
    return np.einsum("nhwc->nc", x) / (x.shape[1] * x.shape[2])


def global_avg_pool_backward(dy: Any, *, x_shape: Any) -> Any:
    """The same share for every pixel."""
    return np.einsum("nc,hw->nhwc", dy, np.ones(x_shape[1:3])) / (x_shape[1] * x_shape[2])
