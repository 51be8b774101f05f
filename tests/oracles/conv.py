"""Convolutions and products, in float64: einsum over windows gathered one by one."""

from __future__ import annotations

from typing import Any

import numpy as np


def _windows(x: Any, kernel: Any, stride: Any, pads: Any, dilation: Any) -> Any:
    """Return (OH, OW, N, KH, KW, C): each window cut out of a map drawn on a larger canvas."""
    n, h, w, c = x.shape
    top, bottom, left, right = pads
    canvas = np.zeros((n, top + h + bottom, left + w + right, c))
    canvas[:, top : top + h, left : left + w] = x
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    ys = range(0, canvas.shape[1] - reach[0] + 1, stride[0])
    xs = range(0, canvas.shape[2] - reach[1] + 1, stride[1])
    return np.array(
        [
            [canvas[:, y : y + reach[0] : dilation[0], x : x + reach[1] : dilation[1]] for x in xs]
            for y in ys
        ]
    )


def conv2d(
    x: Any,
    w: Any,
    *,
    stride: Any = (1, 1),
    pads: Any = (0,) * 4,
    dilation: Any = (1, 1),
    groups: int = 1,
) -> Any:
    """Sum of products over every window, group by group."""
    windows = _windows(x, w.shape[:2], stride, pads, dilation)
    cin, cout = w.shape[2], w.shape[3] // groups
    parts = [
        np.einsum(
            "yxnijc,ijco->nyxo",
            windows[..., g * cin : (g + 1) * cin],
            w[..., g * cout : (g + 1) * cout],
        )
        for g in range(groups)
    ]
    return np.concatenate(parts, axis=-1)


def conv2d_backward_input(dy: Any, w: Any, *, size: Any, groups: int = 1, **settings: Any) -> Any:
    """The map is linear in x, so dx is the transpose of its matrix, taken column by column."""
    n, channels = len(dy), w.shape[2] * groups
    dx = np.zeros((n, *size, channels))
    for y, x, c in np.ndindex(*size, channels):
        one = np.zeros((1, *size, channels))
        one[0, y, x, c] = 1
        column = conv2d(one, w, groups=groups, **settings)[0]
        dx[:, y, x, c] = (dy * column).sum((1, 2, 3))
    return dx


def conv2d_backward_weight(
    dy: Any,
    x: Any,
    *,
    kernel_size: Any,
    stride: Any = (1, 1),
    pads: Any = (0,) * 4,
    dilation: Any = (1, 1),
    groups: int = 1,
) -> Any:
    """Each weight meets the same place of every window."""
    windows = _windows(x, kernel_size, stride, pads, dilation)
    cin, cout = x.shape[3] // groups, dy.shape[3] // groups
    parts = [
        np.einsum(
            "yxnijc,nyxo->ijco",
            windows[..., g * cin : (g + 1) * cin],
            dy[..., g * cout : (g + 1) * cout],
        )
        for g in range(groups)
    ]
    return np.concatenate(parts, axis=-1)


def depthwise(x: Any, w: Any, *, stride: Any = (1, 1), pads: Any = (0,) * 4) -> Any:
    """Every channel meets its own kernel."""
    return np.einsum("yxnijc,ijc->nyxc", _windows(x, w.shape[:2], stride, pads, (1, 1)), w)


def depthwise_backward_input(dy: Any, w: Any, *, size: Any, **settings: Any) -> Any:
    """Transpose of the matrix of one channel."""
    dx = np.zeros((len(dy), *size, w.shape[2]))
    for i, j in np.ndindex(*size):
        one = np.zeros((1, *dx.shape[1:]))
        one[0, i, j] = 1
        column = depthwise(one, w, **settings)[0]
        dx[:, i, j] = (dy * column).sum((1, 2))
    return dx


def depthwise_backward_weight(
    dy: Any, x: Any, *, kernel_size: Any, stride: Any = (1, 1), pads: Any = (0,) * 4
) -> Any:
    """Windows against dy."""
    return np.einsum("yxnijc,nyxc->ijc", _windows(x, kernel_size, stride, pads, (1, 1)), dy)


def depthwise_backward(dy: Any, x: Any, w: Any, **settings: Any) -> Any:
    """Both gradients."""
    return (
        depthwise_backward_input(dy, w, size=x.shape[1:3], **settings),
        depthwise_backward_weight(dy, x, kernel_size=w.shape[:2], **settings),
    )
