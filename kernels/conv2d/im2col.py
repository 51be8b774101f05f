"""Convolution as one matrix product: the rung im2col, in all three directions.

Every window of the batch is written down as a row of a matrix (Chellapilla, Puri and Simard 2006).
"""

from __future__ import annotations

import numpy as np

from .. import gemm
from ..checks import Array
from ..memory import empty, zeros
from ..windows import Pads, Pair, output_size
from . import columns as share


def _windows(
    x: Array, channels: range, kernel_size: Pair, size: Pair, stride: Pair, pads: Pads,
    dilation: Pair,
) -> Array:  # fmt: skip
    """Copy the windows of all images, for some channels: (N * OH * OW, KH * KW * channels)."""
    copied = empty((len(x) * size[0], size[1], *kernel_size, len(channels)), x.dtype)
    share.copy_windows(x, copied, 0, 0, channels.start, size, stride, pads, dilation)
    return copied.reshape(len(x) * size[0] * size[1], -1)


def _part(a: Array, channels: range) -> Array:
    """Return some channels of y or w as a matrix with a column for each."""
    part = np.ascontiguousarray(a[..., channels.start : channels.stop])
    return part.reshape(-1, len(channels))


def forward(
    x: Array,
    w: Array,
    *,
    stride: Pair = (1, 1),
    pads: Pads = (0, 0, 0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> Array:
    """im2col: write every window down as a row of a matrix, then one product does it all.

    Saves: everything a matrix product knows about caches and registers comes for nothing.
    Costs: KH * KW times the memory of x, written and read once.
    Measure: the share of time that the copy takes, large where output channels are few.
    """
    size = output_size(x.shape[1:3], w.shape[:2], stride=stride, pads=pads, dilation=dilation)
    y = empty((len(x), *size, w.shape[3]), x.dtype)
    for seen, own in share.group_channels(x.shape[3], w.shape[3], groups):
        windows = _windows(x, seen, w.shape[:2], size, stride, pads, dilation)
        product = gemm.nn(windows, _part(w, own))
        y[..., own.start : own.stop] = product.reshape(len(x), *size, len(own))
    return y


def backward_input(
    dy: Array,
    w: Array,
    *,
    size: Pair,
    stride: Pair = (1, 1),
    pads: Pads = (0, 0, 0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> Array:
    """col2im: one product gives the gradients of all windows, which add up where they overlap.

    Saves and costs: as forward. Measure: as forward; adding reads the map as well.
    """
    n, oh, ow, _ = dy.shape
    dx = zeros((n, *size, w.shape[2] * groups), dy.dtype)
    for seen, own in share.group_channels(dx.shape[3], w.shape[3], groups):
        windows = gemm.nt(_part(dy, own), _part(w, own))
        shaped = windows.reshape(n * oh, ow, *w.shape[:2], len(seen))
        share.add_windows(shaped, dx, 0, seen.start, (oh, ow), stride, pads, dilation)
    return dx


def backward_weight(
    dy: Array,
    x: Array,
    *,
    kernel_size: Pair,
    stride: Pair = (1, 1),
    pads: Pads = (0, 0, 0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> Array:
    """im2col: the matrix of all windows, turned, times the gradients.

    Saves and costs: as forward. Measure: as forward; the product's sums are N * OH * OW long.
    """
    dw = empty((*kernel_size, x.shape[3] // groups, dy.shape[3]), x.dtype)
    for seen, own in share.group_channels(x.shape[3], dy.shape[3], groups):
        windows = _windows(x, seen, kernel_size, dy.shape[1:3], stride, pads, dilation)
        product = gemm.tn(windows, _part(dy, own))
        dw[..., own.start : own.stop] = product.reshape(*dw.shape[:3], len(own))
    return dw
