"""Sliding windows: the arithmetic of kernel size, stride, pads and dilation."""

from __future__ import annotations

from .checks import ShapeError

Pair = tuple[int, int]
Pads = tuple[int, int, int, int]


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
    padded = (size[0] + pads[0] + pads[1], size[1] + pads[2] + pads[3])
    reach = tuple(d * (k - 1) + 1 for d, k in zip(dilation, kernel_size, strict=True))
    if padded[0] < reach[0] or padded[1] < reach[1] or min(size) < 1:
        raise ShapeError(
            f"window: expected a map of at least {reach[0]}x{reach[1]} (kernel {kernel_size}, "
            f"dilation {dilation}), got {size[0]}x{size[1]} with pads {pads}, "
            f"{padded[0]}x{padded[1]} in all: the output would be empty"
        )
    return (padded[0] - reach[0]) // stride[0] + 1, (padded[1] - reach[1]) // stride[1] + 1


def same_pads(size: Pair, kernel_size: Pair, stride: Pair, dilation: Pair = (1, 1)) -> Pads:
    """Return the pads of Keras's "same": ceil(size / stride) outputs, the odd pixel at the end."""
    pads = []
    for n, k, s, d in zip(size, kernel_size, stride, dilation, strict=True):
        total = max(0, (-(-n // s) - 1) * s + d * (k - 1) + 1 - n)
        pads += [total // 2, total - total // 2]
    return pads[0], pads[1], pads[2], pads[3]
