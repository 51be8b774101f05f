"""Convolution, gradient of the weights: the rungs of `conv2d.backward_weight`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .. import gemm
from ..checks import Array, ShapeError, check_array
from ..jit import kernel, run_blas
from ..memory import empty
from ..windows import Pads, Pair, output_size, zero_padded
from . import columns as share
from .axes import axes
from .tiles import sum_products


def check(
    dy: Array,
    x: Array,
    *,
    kernel_size: Pair,
    stride: Pair = (1, 1),
    pads: Pads = (0, 0, 0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> None:
    """Raise unless dy is what x gives with a kernel of that size."""
    check_array("x", x, ("N", "H", "W", "Cin"))
    out = output_size(x.shape[1:3], kernel_size, stride=stride, pads=pads, dilation=dilation)
    check_array("dy", dy, (x.shape[0], *out, "Cout"), like=x)
    if groups < 1 or dy.shape[3] % groups or x.shape[3] % groups:
        raise ShapeError(
            f"groups={groups}: expected it to divide both numbers of channels, "
            f"got x {x.shape} and dy {dy.shape}"
        )


def naive(
    dy: Array,
    x: Array,
    *,
    kernel_size: Pair,
    stride: Pair = (1, 1),
    pads: Pads = (0, 0, 0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> Array:
    """Direct: forward's seven loops, each product hands its gradient to its weight.

    Saves: nothing; this is the definition. Measure: against forward, with as many products.
    """
    dw = np.zeros((*kernel_size, x.shape[3] // groups, dy.shape[3]), dy.dtype)
    naive_loop(dy, x, dw, stride, pads, dilation, groups)
    return dw


@kernel
def naive_loop(
    dy: Array, x: Array, dw: Array, stride: Pair, pads: Pads, dilation: Pair, groups: int
) -> None:
    """dy (N, OH, OW, Cout), x (N, H, W, Cin) -> dw (KH, KW, Cin/g, Cout) that starts at zero."""
    for n in range(dy.shape[0]):
        for oy in range(dy.shape[1]):
            for ox in range(dy.shape[2]):
                for o in range(dy.shape[3]):
                    first = o // (dy.shape[3] // groups) * dw.shape[2]  # channel of the group
                    for ky in range(dw.shape[0]):
                        for kx in range(dw.shape[1]):
                            iy = oy * stride[0] + ky * dilation[0] - pads[0]
                            ix = ox * stride[1] + kx * dilation[1] - pads[2]
                            if 0 <= iy < x.shape[1] and 0 <= ix < x.shape[2]:
                                for c in range(dw.shape[2]):
                                    dw[ky, kx, c, o] += dy[n, oy, ox, o] * x[n, iy, ix, first + c]


def numpy(
    dy: Array,
    x: Array,
    *,
    kernel_size: Pair,
    stride: Pair = (1, 1),
    pads: Pads = (0, 0, 0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> Array:
    """Sum over all windows, seen by strides alone; one product per group.

    Saves: the loops. Measure: against im2col, which copies the windows by compiled loops.
    """
    size = (dy.shape[1], dy.shape[2])
    seen = share.window_view(zero_padded(x, pads), kernel_size, size, stride, dilation)
    parts = zip(np.split(seen, groups, 5), np.split(dy, groups, 3), strict=True)
    dw = [np.tensordot(seen_g, dy_g, ((0, 1, 2), (0, 1, 2))) for seen_g, dy_g in parts]
    return np.concatenate(dw, axis=3)


def blas(
    dy: Array,
    x: Array,
    *,
    kernel_size: Pair,
    stride: Pair = (1, 1),
    pads: Pads = (0, 0, 0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> Array:
    """Blocked: copy a few lines of windows side by side, multiply while they are in cache.

    A small gradient is summed in chunks of lines that are added up in order; a large one is
    cut by kernel rows and output channels instead. Saves: the windows of the whole batch are
    never in memory. Measure: as forward.
    """
    (kh, kw), cin, cout = kernel_size, x.shape[3] // groups, dy.shape[3] // groups
    oh, ow = dy.shape[1:3]
    dy_rows, x_rows = dy.reshape(-1, dy.shape[3]), x.reshape(-1, x.shape[3])
    direct = share.no_copy(kernel_size, stride, pads)

    def columns(block: range, ky: range, g: int) -> Array:
        if direct:
            return x_rows[block.start * ow : block.stop * ow, g * cin : (g + 1) * cin]
        copied = empty((len(block), ow, len(ky), kw, cin), x.dtype)
        share.copy_windows(
            x, copied, block.start, ky.start, g * cin, (oh, ow), stride, pads, dilation
        )
        return copied.reshape(len(block) * ow, -1)

    def task(lines: range, ky: range, part: slice, out: Array) -> Callable[[], object]:
        """Out (KH, KW, Cin/g, Cout): this task fills its kernel rows, and `part` of each group."""

        def run() -> None:
            for g in range(groups):
                channels = slice(g * cout + part.start, g * cout + part.stop)
                # Kernel rows of dw are one matrix; this view of it is written to in place.
                into = out.reshape(kh, -1, dy.shape[3])[ky.start : ky.stop, :, channels]
                into.fill(0)
                for block in share.blocks(lines, ow, len(ky) * kw * cin):
                    rows = slice(block.start * ow, block.stop * ow)
                    product = columns(block, ky, g).T @ dy_rows[rows, channels]
                    into += product.reshape(into.shape)

        return run

    lines, k = len(x) * oh, kh * kw * cin
    wanted = gemm.wanted_parts(dy.size * k)
    large = k * cout > 4 * gemm.BLAS_TILE**2
    by_row = share.spread(kh, wanted if large else 1)
    by_channel = gemm.cuts(cout, min(wanted, cout // gemm.BLAS_TILE) if large else 1)
    left = -(-wanted // (len(by_row) * len(by_channel)))
    chunks = share.spread(lines, gemm.reduction_chunks(lines * ow, k * dy.shape[3], left))
    partial = empty((len(chunks), kh, kw, cin, dy.shape[3]), x.dtype)
    run_blas(
        [
            task(part, ky, channels, partial[i])
            for i, part in enumerate(chunks)
            for ky in by_row
            for channels in by_channel
        ]
    )
    return gemm.add_up(partial)


def simd(
    dy: Array,
    x: Array,
    *,
    kernel_size: Pair,
    stride: Pair = (1, 1),
    pads: Pads = (0, 0, 0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> Array:
    """Copy the windows of some pixels; a register tile adds up their products with dy.

    Saves: BLAS's own copy into panels. Measure: as forward.
    """
    cin, cout = x.shape[3] // groups, dy.shape[3] // groups
    if not share.fits_tile(x, cin, cout, groups):
        return blas(
            dy,
            x,
            kernel_size=kernel_size,
            stride=stride,
            pads=pads,
            dilation=dilation,
            groups=groups,
        )
    dw = empty((*kernel_size, cin, dy.shape[3]), x.dtype)
    along = axes(dy.shape[1:3], kernel_size, stride, pads, dilation)
    for group, columns in share.group_channels(x.shape[3], dy.shape[3], groups):
        sum_products(x, dy, dw, along, group, columns)
    return dw
