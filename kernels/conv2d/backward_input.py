"""Convolution, gradient of the input: the rungs of `conv2d.backward_input`."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np

from .. import gemm
from ..checks import Array, check_array
from ..jit import kernel, run_blas
from ..memory import empty
from ..windows import Pads, Pair, output_size
from . import columns as share
from .axes import Axis
from .gather import panels_of
from .tiles import convolve


def check(
    dy: Array,
    w: Array,
    *,
    size: Pair,
    stride: Pair = (1, 1),
    pads: Pads = (0, 0, 0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> None:
    """Raise unless dy is what a map of that size gives with w."""
    check_array("dy", dy, ("N", "OH", "OW", "Cout"))
    share.check_weight(w, groups, dy)
    out = output_size(size, w.shape[:2], stride=stride, pads=pads, dilation=dilation)
    check_array("dy", dy, ("N", *out, w.shape[3]))


def naive(
    dy: Array,
    w: Array,
    *,
    size: Pair,
    stride: Pair = (1, 1),
    pads: Pads = (0, 0, 0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> Array:
    """Direct: forward's seven loops, each product hands its gradient to the pixel it read.

    Saves: nothing; this is the definition. Measure: against forward, with as many products.
    """
    dx = np.zeros((dy.shape[0], *size, w.shape[2] * groups), dy.dtype)
    naive_loop(dy, w, dx, stride, pads, dilation, groups)
    return dx


@kernel
def naive_loop(
    dy: Array, w: Array, dx: Array, stride: Pair, pads: Pads, dilation: Pair, groups: int
) -> None:
    """dy (N, OH, OW, Cout), w (KH, KW, Cin/g, Cout) -> dx (N, H, W, Cin) that starts at zero."""
    for n in range(dy.shape[0]):
        for oy in range(dy.shape[1]):
            for ox in range(dy.shape[2]):
                for o in range(dy.shape[3]):
                    first = o // (dy.shape[3] // groups) * w.shape[2]  # channel of the group
                    for ky in range(w.shape[0]):
                        for kx in range(w.shape[1]):
                            iy = oy * stride[0] + ky * dilation[0] - pads[0]
                            ix = ox * stride[1] + kx * dilation[1] - pads[2]
                            if 0 <= iy < dx.shape[1] and 0 <= ix < dx.shape[2]:
                                for c in range(w.shape[2]):
                                    dx[n, iy, ix, first + c] += dy[n, oy, ox, o] * w[ky, kx, c, o]


def numpy(
    dy: Array,
    w: Array,
    *,
    size: Pair,
    stride: Pair = (1, 1),
    pads: Pads = (0, 0, 0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> Array:
    """One product gives the gradient of all windows; each tap adds its slice to the padded map.

    Saves: the loops. Measure: the product's share of the time; the windows take KH * KW times x.
    """
    top, bottom, left, right = pads
    cin = w.shape[2]
    dx = np.zeros((len(dy), size[0] + top + bottom, size[1] + left + right, cin * groups), dy.dtype)
    for g, (dy_g, w_g) in enumerate(
        zip(np.split(dy, groups, 3), np.split(w, groups, 3), strict=True)
    ):
        seen = np.tensordot(dy_g, w_g, (3, 3))
        dx_g = dx[..., g * cin : (g + 1) * cin]
        for ky, kx in np.ndindex(*w.shape[:2]):
            y0, x0 = ky * dilation[0], kx * dilation[1]
            y1, x1 = y0 + dy.shape[1] * stride[0], x0 + dy.shape[2] * stride[1]
            dx_g[:, y0 : y1 : stride[0], x0 : x1 : stride[1]] += seen[:, :, :, ky, kx]
    return np.ascontiguousarray(dx[:, top : top + size[0], left : left + size[1]])


def blas(
    dy: Array,
    w: Array,
    *,
    size: Pair,
    stride: Pair = (1, 1),
    pads: Pads = (0, 0, 0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> Array:
    """Blocked: multiply a few lines, add the windows they give to the map while in cache.

    Windows overlap, so the images of one part are one thread's work. Saves: the windows of the
    whole batch are never in memory. Measure: as forward.
    """
    kernel_size = w.shape[:2]
    matrix, dy_rows = w.reshape(-1, w.shape[3]), dy.reshape(-1, w.shape[3])
    (k, _), cin, cout = matrix.shape, w.shape[2], w.shape[3] // groups
    oh, ow = dy.shape[1:3]
    dx = empty((len(dy), *size, cin * groups), dy.dtype)
    direct = share.no_copy(kernel_size, stride, pads)

    def task(images: range) -> Callable[[], object]:
        def run() -> None:
            if not direct:
                dx[images.start : images.stop].fill(0)
            for block in share.blocks(range(images.start * oh, images.stop * oh), ow, k):
                rows = slice(block.start * ow, block.stop * ow)
                for g in range(groups):
                    out = slice(g * cout, (g + 1) * cout)
                    if direct:
                        into = dx.reshape(-1, dx.shape[3])[rows, g * cin : (g + 1) * cin]
                        np.matmul(dy_rows[rows, out], matrix[:, out].T, out=into)
                        continue
                    columns = empty((rows.stop - rows.start, k), dy.dtype)
                    np.matmul(dy_rows[rows, out], matrix[:, out].T, out=columns)
                    share.add_windows(
                        columns.reshape(len(block), ow, *kernel_size, cin),
                        dx,
                        block.start,
                        g * cin,
                        (oh, ow),
                        stride,
                        pads,
                        dilation,
                    )

        return run

    # Each part packs the weights anew, so it takes some rows.
    wanted = min(gemm.wanted_parts(dy.size * k), dy_rows.shape[0] // gemm.BLAS_TILE)
    run_blas([task(images) for images in share.spread(len(dy), wanted)])
    return dx


def simd(
    dy: Array,
    w: Array,
    *,
    size: Pair,
    stride: Pair = (1, 1),
    pads: Pads = (0, 0, 0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> Array:
    """Convolve dy with the turned, transposed weights: the loop of the forward pass again.

    With a stride, a pixel of dx meets only every stride-th tap. So dx falls into stride x
    stride sets of pixels, each a convolution of dy, without a stride, with taps of its own.
    Saves: adding up windows; each pixel is written once. Measure: as forward.
    """
    cin, cout = w.shape[2], w.shape[3] // groups
    if not share.fits_tile(dy, cout, cin, groups):
        return blas(dy, w, size=size, stride=stride, pads=pads, dilation=dilation, groups=groups)
    dx = empty((len(dy), *size, cin * groups), dy.dtype)
    ys = _turned(size[0], w.shape[0], stride[0], pads[0], dilation[0])
    xs = _turned(size[1], w.shape[1], stride[1], pads[2], dilation[1])
    for (y, ky), (x, kx) in itertools.product(ys, xs):
        for own, seen in share.group_channels(dx.shape[3], dy.shape[3], groups):
            panels = panels_of(w, ky, kx, seen, turned=True)
            convolve(dy, panels, dx, (y, x), seen, own)
    return dx


def _turned(size: int, k: int, stride: int, pad: int, dilation: int) -> list[tuple[Axis, range]]:
    """Return one axis of dx as convolutions of dy, each with the taps of w it needs, turned.

    Tap t of output o reads pixel o * stride + t * dilation - pad. Seen from a pixel:
    o = (pixel + pad - t * dilation) / stride, for those t that leave no remainder. These are
    the same for the pixels first, first + stride, ...
    """
    found = []
    for first in range(min(stride, size)):
        taps = [t for t in range(k) if (first + pad - t * dilation) % stride == 0]
        step = taps[1] - taps[0] if len(taps) > 1 else stride
        last = taps[-1] if taps else 0  # the last tap reads the first row of dy
        axis = Axis(
            outputs=len(range(first, size, stride)),
            stride=1,
            dilation=step * dilation // stride,
            origin=(first + pad - last * dilation) // stride,
            first_tap=0,
            taps=len(taps),
            at=first,
            step=stride,
        )
        found.append((axis, range(last, -1, -step) if taps else range(0)))
    return found
