"""The geometry of sliding windows, shared by convolutions and pooling; no loops here."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from .checks import Array, ShapeError, check_array

Pair: TypeAlias = tuple[int, int]
Pads: TypeAlias = tuple[int, int, int, int]  # top, bottom, left, right


def out_size(size: int, k: int, stride: int, before: int, after: int, ceil_mode: bool) -> int:
    """Return how many windows fit along one axis, by PyTorch's rule.

    Floor mode counts whole windows. Ceil mode lets the last one hang over the end, but it must
    start inside the input or the padding before it.
    """
    spare = size + before + after - k
    if not ceil_mode:
        return spare // stride + 1
    n = -(-spare // stride) + 1
    return n - 1 if (n - 1) * stride >= size + before else n


def out_shape(
    shape: tuple[int, ...], kernel: Pair, stride: Pair, pads: Pads, ceil_mode: bool
) -> tuple[int, ...]:
    """Return (N, OH, OW, C) for an input (N, H, W, C)."""
    n, h, w, c = shape
    top, bottom, left, right = pads
    oh = out_size(h, kernel[0], stride[0], top, bottom, ceil_mode)
    ow = out_size(w, kernel[1], stride[1], left, right, ceil_mode)
    return n, oh, ow, c


def check_windows(
    x_shape: tuple[int, ...], kernel: Pair, stride: Pair, pads: Pads, ceil_mode: bool
) -> None:
    """Raise ShapeError unless windows of this kind fit an input (N, H, W, C)."""
    if len(x_shape) != 4:
        raise ShapeError(f"x: expected shape (N, H, W, C), got {x_shape}")
    if min(kernel) < 1 or min(stride) < 1 or min(pads) < 0:
        raise ShapeError(
            f"pooling: expected kernel and stride >= 1 and pads >= 0, "
            f"got kernel {kernel}, stride {stride}, pads {pads}"
        )
    if max(pads[:2]) >= kernel[0] or max(pads[2:]) >= kernel[1]:
        raise ShapeError(
            f"pooling: expected pads (top, bottom, left, right) smaller than the kernel {kernel}, "
            f"got {pads}; a window would hold padding alone"
        )
    # In ceil mode a window may lack stride - 1 pixels, as in PyTorch.
    least = [max(1, k - (s - 1) * ceil_mode) for k, s in zip(kernel, stride, strict=True)]
    h, w = x_shape[1] + pads[0] + pads[1], x_shape[2] + pads[2] + pads[3]
    if h < least[0] or w < least[1] or min(x_shape[1:3]) < 1:
        raise ShapeError(
            f"x: expected at least {least[0]}x{least[1]} pixels with padding {pads}, "
            f"got shape {x_shape}"
        )


def check_pooled(
    name: str,
    a: Array,
    x_shape: tuple[int, ...],
    kernel: Pair,
    stride: Pair,
    pads: Pads,
    ceil_mode: bool,
) -> None:
    """Raise unless `a` is a float array shaped like the pooled output for `x_shape`."""
    check_windows(x_shape, kernel, stride, pads, ceil_mode)
    check_array(name, a, out_shape(x_shape, kernel, stride, pads, ceil_mode))


def zero_padded(x: Array, pads: Pads) -> Array:
    """Return a copy of x (N, H, W, C) with zeros around every map."""
    top, bottom, left, right = pads
    return np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)))


def padded(x: Array, kernel: Pair, stride: Pair, pads: Pads, out: Pair, fill: float) -> Array:
    """Return a copy of x with `fill` around it, just large enough for all windows."""
    n, h, w, c = x.shape
    high = max((out[0] - 1) * stride[0] + kernel[0], pads[0] + h)
    wide = max((out[1] - 1) * stride[1] + kernel[1], pads[2] + w)
    result = np.full((n, high, wide, c), fill, x.dtype)
    result[:, pads[0] : pads[0] + h, pads[2] : pads[2] + w] = x
    return result


def shifted(a: Array, p: int, q: int, stride: Pair, out: Pair) -> Array:
    """View of element (p, q) of every window of a padded array: (N, OH, OW, C)."""
    rows = slice(p, p + (out[0] - 1) * stride[0] + 1, stride[0])
    columns = slice(q, q + (out[1] - 1) * stride[1] + 1, stride[1])
    return a[:, rows, columns]


def output_size(
    size: Pair, kernel_size: Pair, *, stride: Pair, pads: Pads, dilation: Pair = (1, 1)
) -> Pair:
    """Return (OH, OW) of windows slid over an (H, W) map.

    Parameters
    ----------
    size, kernel_size, stride, dilation : (int, int)
        Height first.
    pads : (int, int, int, int)
        Zeros added at the top, bottom, left and right.

    Raises
    ------
    ShapeError
        If a setting is out of range, or the padded map is smaller than one window.
    """
    if min(stride) < 1 or min(dilation) < 1 or min(kernel_size) < 1 or min(pads) < 0:
        raise ShapeError(
            f"window: expected kernel size, stride and dilation >= 1 and pads >= 0, got kernel "
            f"size {kernel_size}, stride {stride}, dilation {dilation}, pads {pads}"
        )
    wide = (size[0] + pads[0] + pads[1], size[1] + pads[2] + pads[3])
    reach = tuple(d * (k - 1) + 1 for d, k in zip(dilation, kernel_size, strict=True))
    if wide[0] < reach[0] or wide[1] < reach[1] or min(size) < 1:
        raise ShapeError(
            f"window: expected a map of at least {reach[0]}x{reach[1]} (kernel {kernel_size}, "
            f"dilation {dilation}), got {size[0]}x{size[1]} with pads {pads}, "
            f"{wide[0]}x{wide[1]} in all: the output would be empty"
        )
    oh = out_size(size[0], reach[0], stride[0], pads[0], pads[1], ceil_mode=False)
    return oh, out_size(size[1], reach[1], stride[1], pads[2], pads[3], ceil_mode=False)


def same_pads(size: Pair, kernel_size: Pair, stride: Pair, dilation: Pair = (1, 1)) -> Pads:
    """Return the pads of Keras's "same": ceil(size / stride) outputs, the odd pixel at the end."""
    pads = []
    for n, k, s, d in zip(size, kernel_size, stride, dilation, strict=True):
        total = max(0, (-(-n // s) - 1) * s + d * (k - 1) + 1 - n)
        pads += [total // 2, total - total // 2]
    return pads[0], pads[1], pads[2], pads[3]
