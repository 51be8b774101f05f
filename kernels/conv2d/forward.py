"""Convolution, forward: the rungs of `conv2d.forward`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .. import depthwise, gemm
from ..checks import Array, ShapeError, check_array
from ..jit import kernel, run_blas
from ..memory import empty
from ..windows import Pads, Pair, output_size, zero_padded
from . import columns as share
from .axes import axes
from .gather import panels_of
from .tiles import convolve

# Output channels that are worth a copy of the windows of their own.
WIDE = 512


def check(
    x: Array,
    w: Array,
    *,
    stride: Pair = (1, 1),
    pads: Pads = (0, 0, 0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> tuple[int, ...]:
    """Raise unless x is (N, H, W, Cin) and w fits it; return (OH, OW)."""
    check_array("x", x, ("N", "H", "W", "Cin"))
    share.check_weight(w, groups, x)
    if x.shape[0] < 1:
        raise ShapeError(f"x: expected at least one image, got shape {x.shape}")
    if x.shape[3] != w.shape[2] * groups:
        raise ShapeError(
            f"x: expected {w.shape[2] * groups} channels (w {w.shape}, groups={groups}), "
            f"got shape {x.shape}; images are NHWC"
        )
    return output_size(x.shape[1:3], w.shape[:2], stride=stride, pads=pads, dilation=dilation)


def naive(
    x: Array,
    w: Array,
    *,
    stride: Pair = (1, 1),
    pads: Pads = (0, 0, 0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> Array:
    """Direct: seven plain loops and a bounds test.

    Saves: nothing; this is the definition. Measure: GFLOP/s. The innermost loop walks down a
    column of w, so each product meets another cache line.
    """
    oh, ow = output_size(x.shape[1:3], w.shape[:2], stride=stride, pads=pads, dilation=dilation)
    y = np.zeros((x.shape[0], oh, ow, w.shape[3]), x.dtype)
    naive_loop(x, w, y, stride, pads, dilation, groups)
    return y


@kernel
def naive_loop(
    x: Array, w: Array, y: Array, stride: Pair, pads: Pads, dilation: Pair, groups: int
) -> None:
    """x (N, H, W, Cin), w (KH, KW, Cin/g, Cout) -> y (N, OH, OW, Cout) that starts at zero."""
    for n in range(y.shape[0]):
        for oy in range(y.shape[1]):
            for ox in range(y.shape[2]):
                for o in range(y.shape[3]):
                    first = o // (y.shape[3] // groups) * w.shape[2]  # channel of the group
                    for ky in range(w.shape[0]):
                        for kx in range(w.shape[1]):
                            iy = oy * stride[0] + ky * dilation[0] - pads[0]
                            ix = ox * stride[1] + kx * dilation[1] - pads[2]
                            if 0 <= iy < x.shape[1] and 0 <= ix < x.shape[2]:
                                for c in range(w.shape[2]):
                                    y[n, oy, ox, o] += x[n, iy, ix, first + c] * w[ky, kx, c, o]


def numpy(
    x: Array,
    w: Array,
    *,
    stride: Pair = (1, 1),
    pads: Pads = (0, 0, 0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> Array:
    """View the padded input as windows by strides alone; one product per group.

    Saves: the loops. NumPy's product copies the view first, so this is im2col by NumPy and BLAS.
    Measure: against im2col, which copies by compiled loops.
    """
    size = output_size(x.shape[1:3], w.shape[:2], stride=stride, pads=pads, dilation=dilation)
    seen = share.window_view(zero_padded(x, pads), w.shape[:2], size, stride, dilation)
    y = empty((len(x), *size, w.shape[3]), x.dtype)
    parts = zip(
        np.split(seen, groups, 5), np.split(w, groups, 3), np.split(y, groups, 3), strict=True
    )
    for seen_g, w_g, y_g in parts:
        y_g[...] = np.tensordot(seen_g, w_g, 3)
    return y


def blas(
    x: Array,
    w: Array,
    *,
    stride: Pair = (1, 1),
    pads: Pads = (0, 0, 0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> Array:
    """Blocked: copy a few lines of windows side by side, multiply while they are in cache.

    Saves: the windows of the whole batch, KH * KW times x, are never in memory.
    Measure: against im2col at batch 1, whose windows fit the cache, and at a large batch.
    """
    kernel_size = w.shape[:2]
    if w.shape[2] == 1 and w.shape[3] == groups and dilation == (1, 1):
        kernels = w.reshape(*kernel_size, groups)
        return depthwise.forward["simd"](x, kernels, stride=stride, pads=pads)
    size = output_size(x.shape[1:3], kernel_size, stride=stride, pads=pads, dilation=dilation)
    y = empty((len(x), *size, w.shape[3]), x.dtype)
    matrix, y_rows = w.reshape(-1, w.shape[3]), y.reshape(-1, w.shape[3])
    x_rows = x.reshape(-1, x.shape[3])
    (k, _), cin, cout = matrix.shape, w.shape[2], w.shape[3] // groups
    direct = share.no_copy(kernel_size, stride, pads)

    def task(lines: range, part: slice) -> Callable[[], object]:
        def run() -> None:
            for block in share.blocks(lines, size[1], k):
                rows = slice(block.start * size[1], block.stop * size[1])
                for g in range(groups):
                    if direct:
                        columns = x_rows[rows, g * cin : (g + 1) * cin]
                    else:
                        shape = (len(block), size[1], *kernel_size, cin)
                        copied = empty(shape, x.dtype)
                        share.copy_windows(
                            x, copied, block.start, 0, g * cin, size, stride, pads, dilation
                        )
                        columns = copied.reshape(-1, k)
                    out = slice(g * cout + part.start, g * cout + part.stop)
                    np.matmul(columns, matrix[:, out], out=y_rows[rows, out])

        return run

    lines, wanted = len(x) * size[0], gemm.wanted_parts(y.size * k)
    # Each part packs the weights anew, so it takes some rows; where rows are few, it is the
    # output channels that are cut, and few times: each cut copies the windows once more.
    by_line = share.spread(lines, min(wanted, lines * size[1] // gemm.BLAS_TILE))
    by_channel = gemm.cuts(cout, max(1, min(-(-wanted // len(by_line)), cout // WIDE)))
    run_blas([task(part, channels) for part in by_line for channels in by_channel])
    return y


def simd(
    x: Array,
    w: Array,
    *,
    stride: Pair = (1, 1),
    pads: Pads = (0, 0, 0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> Array:
    """Copy the windows of some pixels, and let a register tile multiply them while in cache.

    Saves: BLAS's own copy into panels, half-empty tiles at the end of an image, and on small
    maps the products with padding. Measure: GFLOP/s against the peak, at 28x28 and at 3x3.
    """
    if not share.fits_tile(x, w.shape[2], w.shape[3] // groups, groups):
        return blas(x, w, stride=stride, pads=pads, dilation=dilation, groups=groups)
    size = output_size(x.shape[1:3], w.shape[:2], stride=stride, pads=pads, dilation=dilation)
    y = empty((len(x), *size, w.shape[3]), x.dtype)
    along = axes(size, w.shape[:2], stride, pads, dilation)
    for group, columns in share.group_channels(x.shape[3], w.shape[3], groups):
        panels = panels_of(w, range(w.shape[0]), range(w.shape[1]), columns, turned=False)
        convolve(x, panels, y, along, group, columns)
    return y
